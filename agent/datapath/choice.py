"""Which pump moves the packets: `auto`, `native` or `python`."""

import logging
import socket
from collections.abc import Callable

from agent.datapath.counters import PacketCounters
from agent.datapath.forwarder import Forwarder
from agent.datapath.pump import Pump
from agent.datapath.tun import TunDevice
from agent.errors import EnvironmentMissing

log = logging.getLogger(__name__)


def choose_datapath(wanted: str) -> str:
    """`native` or `python`. Raises EnvironmentMissing when native is asked for by name and is not compiled."""
    if wanted == "python":
        return wanted
    from agent.datapath.native.library import native_library

    try:
        native_library()
    except EnvironmentMissing as error:
        if wanted == "native":
            raise
        log.warning("data path: python, the slow one: %s", error)
        return "python"
    log.info("data path: native")
    return "native"


def make_pump(
    datapath: str,
    tun: TunDevice,
    udp: socket.socket,
    forwarder: Forwarder,
    tally: PacketCounters,
    on_failure: Callable[[], None],
) -> Pump:
    """A pump of the chosen kind, not started yet. The TUN device has virtio headers if and only if it is native.

    `on_failure` is called from a thread of the pump, at most once, when it can no longer move packets.
    """
    if datapath == "native":
        from agent.datapath.native_pump import NativePump

        return NativePump(tun, udp, forwarder, tally, on_failure)
    from agent.datapath.python_pump import PythonPump

    return PythonPump(tun, udp, forwarder, tally, on_failure)
