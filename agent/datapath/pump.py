"""The protocol of pumps, which move packets, and the choice of one: `auto`, `native` or `python`."""

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from agent.datapath.counters import PacketCounters
from agent.datapath.forwarder import Forwarder
from agent.datapath.tun import TunDevice
from agent.errors import EnvironmentMissing

log = logging.getLogger(__name__)


class Pump(Protocol):
    """Moves packets between a TUN device and a UDP socket. Owns neither: the caller closes them after `stop`."""

    forwarder: Forwarder
    """May be replaced at any time without stopping traffic."""

    def start(self) -> None:
        """Begin to move packets. Raises RuntimeError if a thread cannot be started; some may run then, until `stop`."""

    @property
    def failed(self) -> str | None:
        """Return why packets are no longer moved, or None while they are."""

    def stop(self) -> None:
        """Stop moving packets; safe to call twice, and after a failure."""


def choose_datapath(wanted: str) -> str:
    """Return `native` or `python`. Raises EnvironmentMissing when native is requested by name but not compiled."""
    if wanted == "python":
        return wanted
    from agent.datapath.native.library import native_library

    try:
        native_library()
    except EnvironmentMissing as error:
        if wanted == "native":
            raise
        log.warning("data path: python (slow): %s", error)
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
    """Create a pump of the chosen kind, not yet started. The TUN device has virtio headers if and only if it is native.

    `on_failure` is called from a thread of the pump, at most once, when it can no longer move packets.
    """
    if datapath == "native":
        from agent.datapath.native_pump import NativePump

        return NativePump(tun, udp, forwarder, tally, on_failure)
    from agent.datapath.python_pump import PythonPump

    return PythonPump(tun, udp, forwarder, tally, on_failure)
