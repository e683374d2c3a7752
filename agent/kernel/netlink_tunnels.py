"""Tunnel devices of one namespace: vxlan with its forwarding database, and ipip; a part of `netlink.Kernel`."""

import errno
from collections.abc import Mapping
from typing import Any

from agent.errors import EnvironmentMissing
from agent.kernel.netlink_library import KernelRefusal
from agent.kernel.netlink_links import ALREADY_GONE, LinkKernel, NetlinkError
from agent.kernel.netlink_messages import read_forwarding_entry, read_ipip, read_vxlan
from agent.kernel.values import ForwardingDatabaseEntry, IPAddress, TunnelSettings, VxlanSettings

BRIDGE_FAMILY = 7  # AF_BRIDGE: the forwarding database is asked for as neighbours of this family
PERMANENT_NOARP = 0x80 | 0x40  # NUD_PERMANENT | NUD_NOARP, as `bridge fdb` writes entries that do not age
OF_THE_DEVICE = 0x02  # NTF_SELF: the vxlan device's own database, not that of a bridge above it
UNKNOWN_KIND = errno.EOPNOTSUPP
"""What the kernel says to a kind of link that it has no driver for."""


class TunnelKernel(LinkKernel):
    """See `agent.kernel.netlink.Kernel`, which is what others use."""

    def vxlan(self, name: str) -> VxlanSettings | None:
        """The settings of a vxlan device; None when there is none of that name, or one of another sort."""
        return read_vxlan(message) if (message := self._link_message(name)) is not None else None

    def ipip(self, name: str) -> TunnelSettings | None:
        """The settings of an ipip device; None when there is none of that name."""
        return read_ipip(message) if (message := self._link_message(name)) is not None else None

    def create_vxlan(self, name: str, settings: VxlanSettings, *, mac: str, mtu: int, why: str) -> None:
        """Make a vxlan device. Raises EnvironmentMissing when the kernel has no vxlan, NetlinkError."""
        underlay = next((link.name for link in self.links() if link.index == settings.underlay), "?")
        command = ["ip", "link", "add", name, "mtu", str(mtu), "address", mac, "type", "vxlan"]
        command += ["id", str(settings.vni), "dev", underlay, "local", str(settings.local)]
        command += ["dstport", str(settings.port), "learning" if settings.learning else "nolearning"]
        parts: dict[str, object] = {
            "vxlan_id": settings.vni,
            "vxlan_link": settings.underlay,
            "vxlan_local" if settings.local.version == 4 else "vxlan_local6": str(settings.local),
            "vxlan_port": settings.port,
            "vxlan_learning": settings.learning,
        }
        if settings.gbp:
            command.append("gbp")
            parts["vxlan_gbp"] = True
        self._create("vxlan", name, command, {"mtu": mtu, "address": mac, **parts}, why)

    def create_ipip(self, name: str, settings: TunnelSettings, *, mtu: int, why: str) -> None:
        """Make an ipip device. Raises EnvironmentMissing when the kernel has no ipip, NetlinkError."""
        remote = str(settings.remote or "0.0.0.0")
        command = ["ip", "link", "add", name, "mtu", str(mtu), "type", "ipip"]
        command += ["local", str(settings.local), "remote", remote if settings.remote else "any"]
        parts = {"mtu": mtu, "ipip_local": str(settings.local), "ipip_remote": remote}
        self._create("ipip", name, command, parts, why)

    def forwarding_database(self, device: str) -> frozenset[ForwardingDatabaseEntry]:
        """Where a vxlan device sends packets, by destination MAC; empty when there is no such device."""
        link = self.link(device)
        if link is None:
            return frozenset()
        messages = self._read(
            f"bridge fdb show dev {device}",
            lambda socket: list(socket.get_neighbours(family=BRIDGE_FAMILY, ifindex=link.index)),
        )
        entries = [read_forwarding_entry(message) for message in messages if message["ifindex"] == link.index]
        return frozenset(entry for entry in entries if entry is not None)

    def ensure_forwarding_entries(self, device: str, wanted: Mapping[str, IPAddress], why: str) -> None:
        """Make sure of permanent entries, destination by MAC, each in place of whatever the MAC had; others stay."""
        present = self.forwarding_database(device)
        for mac, destination in wanted.items():
            if ForwardingDatabaseEntry(mac.lower(), destination) not in present:
                self._change_forwarding("replace", device, ForwardingDatabaseEntry(mac, destination), why)

    def delete_forwarding_entry(self, device: str, entry: ForwardingDatabaseEntry, why: str) -> None:
        """Make sure that the entry is gone."""
        self._change_forwarding("delete", device, entry, why)

    def _change_forwarding(self, verb: str, device: str, entry: ForwardingDatabaseEntry, why: str) -> None:
        command = ["bridge", "fdb", verb, entry.mac, "dev", device, "dst", str(entry.destination)]
        command += ["self", *(["permanent"] if verb == "replace" else [])]
        parts: dict[str, Any] = {
            "ifindex": self._link_or_raise(device, command).index,
            "lladdr": entry.mac,
            "dst": str(entry.destination),
            "state": PERMANENT_NOARP,
            "flags": OF_THE_DEVICE,
        }
        settled = ALREADY_GONE if verb == "delete" else frozenset[int]()
        word = "del" if verb == "delete" else verb
        self._change(command, why, lambda socket: socket.fdb(word, **parts), settled)

    def _link_message(self, name: str) -> Any:  # noqa: ANN401 - pyroute2 ships no types
        try:
            return self._ask_library(lambda socket: socket.link("get", ifname=name)[0])
        except KernelRefusal as error:
            if error.code == errno.ENODEV:
                return None
            raise NetlinkError(f"ip link show {name}: {error.args[-1]}") from error

    def _create(self, kind: str, name: str, command: list[str], parts: dict[str, object], why: str) -> None:
        try:
            self._ask_library(lambda socket: socket.link("add", ifname=name, kind=kind, **parts))
        except KernelRefusal as error:
            if error.code == UNKNOWN_KIND:
                raise EnvironmentMissing(missing_kind(kind, str(error.args[-1]))) from error
            raise NetlinkError(f"{' '.join(command)}: {error.args[-1]}") from error
        self.journal.record(command, why)


def missing_kind(kind: str, reason: str) -> str:
    """The error line for a backend whose device this kernel does not have."""
    return f"backend {kind}: this kernel has no {kind} device (got {reason}; want the module {kind}, which Debian has)"
