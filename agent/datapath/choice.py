"""Which pump moves the packets: `auto`, `native` or `python`."""

import logging
import socket

from agent.datapath.forwarder import Forwarder
from agent.datapath.pump import Pump, Tally
from agent.datapath.tun import TunDevice
from agent.errors import EnvironmentMissing

log = logging.getLogger(__name__)


def choose_datapath(wanted: str) -> str:
    """`native` or `python`. Raises EnvironmentMissing when native is asked for by name and is not compiled."""
    if wanted == "python":
        return wanted
    from agent.datapath.native_library import native_library

    try:
        native_library()
    except EnvironmentMissing as error:
        if wanted == "native":
            raise
        log.warning("data path: python, the slow one: %s", error)
        return "python"
    log.info("data path: native")
    return "native"


def make_pump(datapath: str, tun: TunDevice, udp: socket.socket, forwarder: Forwarder, tally: Tally) -> Pump:
    """A pump of the chosen kind, not started yet. The TUN device has virtio headers if and only if it is native."""
    if datapath == "native":
        from agent.datapath.native_pump import NativePump

        return NativePump(tun, udp, forwarder, tally)
    from agent.datapath.python_pump import PythonPump

    return PythonPump(tun, udp, forwarder, tally)
