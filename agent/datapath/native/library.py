"""The compiled native data path, if present: the seam between Python's values and C's.

Everything that C returns or takes is converted here; no other module uses cffi.
"""

import importlib
import os
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from socket import inet_aton
from typing import Any

from agent.datapath.counters import Counters, DropReason
from agent.datapath.forwarder import Forwarder
from agent.datapath.offloads import Offloads
from agent.errors import EnvironmentMissing

LIBRARY = Path(__file__).with_name("_native.so")
INTERFACE = "agent.datapath.native._native_abi"
WANTED = "want it compiled: `sudo scripts/install` in a clone, or the wheel installed again"
SUBNET = struct.Struct("@IIIHxx")
"""struct native_subnet."""
ADDRESS = struct.Struct("!I")


class NativeLibrary:
    """The functions of native.h, through cffi. Raises EnvironmentMissing when not built."""

    def __init__(self, library: Path = LIBRARY) -> None:
        try:
            # By name: build.py creates the module, so a fresh clone has none.
            self.ffi: Any = importlib.import_module(INTERFACE).ffi
            self.c: Any = self.ffi.dlopen(str(library))
        except (ImportError, OSError) as error:
            raise EnvironmentMissing(f"native data path: not compiled (got {error}; {WANTED})") from error
        if SUBNET.size != self.ffi.sizeof("struct native_subnet"):
            raise EnvironmentMissing(f"native data path: compiled from another version ({WANTED})")
        reasons = self.ffi.string(self.c.native_reasons()).decode().split()
        if reasons != list(DropReason):
            raise EnvironmentMissing(f"native data path: compiled from another version ({WANTED})")

    def rules(self, forwarder: Forwarder) -> Any:
        """Convert the forwarder's node and table to C; free the result, or give it to a pump, which then owns it.

        Raises OSError when memory runs out.
        """
        node, count = forwarder.node, len(forwarder.table)
        # In one piece: field by field takes ten times as long, and each change of a peer makes new rules.
        packed = b"".join(
            SUBNET.pack(network, mask, *ADDRESS.unpack(inet_aton(endpoint.ip)), endpoint.port)
            for network, mask, endpoint in forwarder.table.numbers()
        )
        subnets = self.ffi.from_buffer("struct native_subnet[]", packed)
        own = {
            "network": int(node.subnet.network_address),
            "mask": int(node.subnet.netmask),
            "overlay_mtu": node.overlay_mtu,
            "port": node.port,
            "fenced": forwarder.fenced,
        }
        return self._made(self.c.native_rules_new(self.ffi.new("struct native_node *", own), subnets, count))

    def offloads(self, offloads: Offloads) -> Any:
        """Convert the offloads to C."""
        fields = {
            "vnet_header": offloads.vnet_header,
            "tun_udp": offloads.tun_udp,
            "udp_segment": offloads.udp_segment,
        }
        return self.ffi.new("struct native_offloads *", fields)

    def pump(self, tun: int, udp: int, offloads: Offloads, forwarder: Forwarder) -> Any:
        """Create a pump between descriptors that the caller keeps; free it when both of its functions have returned.

        Raises OSError when descriptors or memory run out.
        """
        rules = self.rules(forwarder)
        try:
            return self._made(self.c.native_pump_new(tun, udp, self.offloads(offloads), rules))
        except OSError:
            self.c.native_rules_free(rules)
            raise

    def counters(self, pump: Any) -> Counters:
        """Copy the pump's counters."""
        counters = self.ffi.new("struct native_counters *")
        self.c.native_pump_counters(pump, counters)
        return self.as_counters(counters)

    def as_counters(self, counters: Any) -> Counters:
        """Convert C's counters."""
        drops = self._named(counters.drops)
        return Counters(counters.tx_packets, counters.tx_bytes, counters.rx_packets, counters.rx_bytes, drops)

    def _named(self, drops: Iterable[int]) -> dict[str, int]:
        return {reason.value: count for reason, count in zip(DropReason, drops, strict=False)}

    def _made(self, pointer: Any) -> Any:
        if pointer == self.ffi.NULL:
            raise OSError(self.ffi.errno, os.strerror(self.ffi.errno))
        return pointer


@cache
def native_library() -> NativeLibrary:
    """Return the library of this clone, loaded once. Raises EnvironmentMissing."""
    return NativeLibrary()
