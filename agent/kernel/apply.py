"""Carries out changes by pyroute2 and journals each real change as the equivalent command.

"Already there" and "already gone" are success: another process may have made or undone a change since it was decided.
"""

import ctypes
import errno
import fcntl
import functools
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal
from pyroute2.netlink.rtnl import RTM_NEWNEIGH
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from agent.errors import AgentError, EnvironmentMissing, NetlinkError
from agent.kernel.changes import (
    AddAddress,
    AddLink,
    Change,
    DeleteAddress,
    DeleteForwarding,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    ReplaceForwarding,
    ReplaceNeighbours,
    ReplaceRoute,
    SetHairpin,
    SetLink,
    WriteSysctl,
)
from agent.kernel.journal import Journal
from agent.kernel.messages import FOU, PERMANENT
from agent.kernel.read import (
    ADDRESS_FAMILIES,
    ALREADY_GONE,
    LARGEST_SEQUENCE_NUMBER,
    MAIN_TABLE,
    link,
)
from agent.kernel.values import (
    ONLINK,
    ROUTE_KINDS,
    ROUTE_PROTOCOLS,
    ROUTE_SCOPES,
    IPAddress,
    Link,
    Route,
    TunnelSettings,
    VethPeer,
    VxlanSettings,
)

InNamespace = Callable[[Callable[[], Any]], Any]
"""Calls a function in a thread in the namespace, whose /proc/sys it sees; returns what it returns."""

ALREADY_THERE = frozenset({errno.EEXIST})
UNKNOWN_KIND = errno.EOPNOTSUPP
"""The kernel's error for a link kind without a driver."""
PERMANENT_NOARP = 0x80 | 0x40  # NUD_PERMANENT | NUD_NOARP, as `bridge fdb` writes entries that do not age
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # linux/sockios.h, linux/ethtool.h
OF_THE_DEVICE = 0x02  # NTF_SELF: the vxlan device's own database, not that of a bridge above it
ADDRESS_WITHOUT_PROBING = 0x02  # IFA_F_NODAD, linux/if_addr.h
AT_ONCE = 64
"""Requests in one batch: if every one is refused, the refusals must fit into the socket's buffer."""
ANSWERED, UNANSWERED = LARGEST_SEQUENCE_NUMBER, LARGEST_SEQUENCE_NUMBER - 1
"""Sequence numbers of a batch: of its last request, which is acknowledged, and of the others, which are answered only
if refused.
"""
RECEIVE_BYTES = 1 << 16
NEIGHBOURS_KEPT = 1024
SYSCTL_BYTES = 4096


class Applier:
    """Applies changes in one namespace. Not for several threads at once."""

    def __init__(self, socket: IPRoute, in_namespace: InNamespace, journal: Journal, links: Mapping[str, Link]) -> None:
        """Take `links`, those already read; others are looked up when their index is needed."""
        self._socket = socket
        self._in_namespace = in_namespace
        self._journal = journal
        self._indices = {name: one.index for name, one in links.items()}

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes in order, up to the first that the kernel refuses.

        Raises NetlinkError; EnvironmentMissing when the kernel has no driver for a kind of link.
        """
        self._apply(changes, None)

    def apply_all(self, changes: Sequence[Change]) -> list[AgentError]:
        """Make every change that the kernel accepts; return its refusals."""
        refusals: list[AgentError] = []
        self._apply(changes, refusals)
        return refusals

    def _apply(self, changes: Sequence[Change], refusals: list[AgentError] | None) -> None:
        rest = list(changes)
        while rest:
            try:
                if isinstance(rest[0], WriteSysctl):
                    rest = self._write_sysctls(rest)
                else:
                    self._make(rest.pop(0))
            except AgentError as error:
                if refusals is None:
                    raise
                refusals.append(error)

    def _make(self, change: Change) -> None:
        try:
            settled = self._request(change)
        except KernelRefusal as error:
            if isinstance(change, AddLink) and error.code == UNKNOWN_KIND:
                raise EnvironmentMissing(missing_kind(str(change.link.kind), str(error.args[-1]))) from error
            raise NetlinkError(f"{' '.join(change.commands[0])}: {error.args[-1]}") from error
        if not settled:
            for command in change.commands:
                self._journal.record(command, change.why)

    def _request(self, change: Change) -> bool:
        """Make one change; return whether it was made already. Raises KernelRefusal, NetlinkError."""
        socket = self._socket
        match change:
            case AddLink(link=wanted):
                settled = ALREADY_THERE if wanted.kind == "bridge" else frozenset[int]()
                if _unless(settled, lambda: socket.link("add", **self._new_link(change))):
                    return True
                if isinstance(wanted.settings, TunnelSettings) and wanted.settings.cut:
                    self._in_namespace(lambda: _without_checksum_offload(wanted.name))
            case SetLink():
                socket.link("set", index=self._index(change.name, change), **self._link_settings(change))
            case SetHairpin():
                socket.brport("set", index=self._index(change.port, change), mode=int(change.on))
            case DeleteLink(name=name):
                index = self._index(name, change)
                del self._indices[name]
                return _unless(ALREADY_GONE, lambda: socket.link("del", index=index))
            case AddAddress():
                return _unless(ALREADY_THERE, lambda: socket.addr("add", **self._address(change)))
            case DeleteAddress():
                parts = self._address(change)
                return _unless(ALREADY_GONE, lambda: socket.addr("del", **parts))
            case ReplaceRoute(route=route):
                socket.route("replace", **self._route(route, change))
            case DeleteRoute(route=route):
                parts = self._route(route, change)
                return _unless(ALREADY_GONE, lambda: socket.route("del", **parts))
            case ReplaceNeighbours():
                self._replace_neighbours(change)
            case DeleteNeighbour():
                parts = {"dst": str(change.address), "ifindex": self._index(change.device, change)}
                return _unless(ALREADY_GONE, lambda: socket.neigh("del", **parts))
            case ReplaceForwarding():
                socket.fdb("replace", **self._forwarding(change))
            case DeleteForwarding():
                parts = self._forwarding(change)
                return _unless(ALREADY_GONE, lambda: socket.fdb("del", **parts))
            case _:
                raise TypeError(f"no way to make {change!r}")
        return False

    def _index(self, name: str, change: Change) -> int:
        if name not in self._indices:
            found = link(self._socket, name)
            if found is None:
                raise NetlinkError(f"{' '.join(change.commands[0])}: no device {name}")
            self._indices[name] = found.index
        return self._indices[name]

    def _new_link(self, change: AddLink) -> dict[str, Any]:
        wanted = change.link
        parts: dict[str, Any] = {"ifname": wanted.name, "kind": wanted.kind}
        parts |= self._settings(wanted.mtu, wanted.mac, wanted.tx_queue_length, wanted.master, wanted.up, change)
        match wanted.settings:
            case VethPeer() as peer:
                far: dict[str, Any] = {"ifname": peer.name, "mtu": peer.mtu}
                far |= {"address": peer.mac} if peer.mac else {}
                far |= {} if peer.namespace_pid is None else {"net_ns_pid": peer.namespace_pid}
                parts["peer"] = far
            case VxlanSettings() as vxlan:
                parts |= {
                    "vxlan_id": vxlan.vni,
                    "vxlan_link": vxlan.underlay,
                    "vxlan_local" if vxlan.local.version == 4 else "vxlan_local6": str(vxlan.local),
                    "vxlan_port": vxlan.port,
                    "vxlan_learning": vxlan.learning,
                }
                parts |= {"vxlan_gbp": True} if vxlan.gbp else {}
            case TunnelSettings() as tunnel:
                parts |= {"ipip_local": str(tunnel.local), "ipip_remote": str(tunnel.remote or "0.0.0.0")}
                parts |= {"ipip_ttl": tunnel.ttl} if tunnel.ttl else {}
                parts |= {"gso_max_segs": 1} if tunnel.cut else {}
                if tunnel.fou_port is not None:
                    ports = {"ipip_encap_sport": tunnel.fou_port, "ipip_encap_dport": tunnel.fou_port}
                    # Without IFLA_IPIP_ENCAP_FLAGS: no UDP checksum, as flanneld's.
                    parts |= {"ipip_encap_type": FOU, **ports}
        return parts

    def _link_settings(self, change: SetLink) -> dict[str, Any]:
        parts = self._settings(change.mtu, change.mac, change.tx_queue_length, change.master, change.up, change)
        return parts | ({} if change.alias is None else {"ifalias": change.alias})

    def _settings(
        self,
        mtu: int | None,
        mac: str | None,
        tx_queue_length: int | None,
        master: str | None,
        up: bool | None,
        change: Change,
    ) -> dict[str, Any]:
        parts: dict[str, Any] = {"mtu": mtu, "address": mac, "txqlen": tx_queue_length}
        parts["master"] = None if master is None else self._index(master, change)
        parts["state"] = None if up is None else "up" if up else "down"
        return {name: value for name, value in parts.items() if value is not None}

    def _address(self, change: AddAddress | DeleteAddress) -> dict[str, Any]:
        address = change.address
        parts: dict[str, Any] = {"index": self._index(change.device, change), "address": str(address.ip)}
        parts["prefixlen"] = address.network.prefixlen
        if isinstance(change, AddAddress) and address.version == 6:
            parts["flags"] = ADDRESS_WITHOUT_PROBING
        if isinstance(change, AddAddress) and change.broadcast:
            parts["broadcast"] = str(address.network.broadcast_address)
        return parts

    def _route(self, route: Route, change: Change) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "dst": str(route.destination),
            "table": MAIN_TABLE,
            "scope": ROUTE_SCOPES[route.scope],
            "type": ROUTE_KINDS[route.kind],
            "proto": ROUTE_PROTOCOLS[route.protocol],
            "family": ADDRESS_FAMILIES[route.destination.version],
            "flags": ONLINK if route.onlink else 0,
            "oif": None if route.device is None else self._index(route.device, change),
            "gateway": None if route.gateway is None else str(route.gateway),
            "priority": route.metric or None,
            "prefsrc": None if route.source is None else str(route.source),
        }
        return {name: value for name, value in parts.items() if value is not None}

    def _replace_neighbours(self, change: ReplaceNeighbours) -> None:
        index = self._index(change.device, change)
        for start in range(0, len(change.entries), AT_ONCE):
            *others, last = change.entries[start : start + AT_ONCE]
            messages = [_neighbour(index, address, mac) for address, mac in others]
            self._socket.sendto(b"".join([*messages, _neighbour(index, *last, answered=True)]), (0, 0))
            self._await_answer()

    def _await_answer(self) -> None:
        """Wait until the last of a batch is acknowledged. Raises KernelRefusal, for the first that was refused."""
        refusal: KernelRefusal | None = None
        answered = False
        while not answered:
            for answer in self._socket.marshal.parse(self._socket.recv(RECEIVE_BYTES)):
                header = answer["header"]
                if header["sequence_number"] in (UNANSWERED, ANSWERED):
                    refusal = refusal or header["error"]
                answered = answered or header["sequence_number"] == ANSWERED
        if refusal is not None:
            raise refusal

    def _forwarding(self, change: ReplaceForwarding | DeleteForwarding) -> dict[str, Any]:
        return {
            "ifindex": self._index(change.device, change),
            "lladdr": change.entry.mac,
            "dst": str(change.entry.destination),
            "state": PERMANENT_NOARP,
            "flags": OF_THE_DEVICE,
        }

    def _write_sysctls(self, changes: list[Change]) -> list[Change]:
        """Write all leading sysctls in one visit to the namespace; return the other changes."""
        count = next((n for n, one in enumerate(changes) if not isinstance(one, WriteSysctl)), len(changes))
        sysctls = [one for one in changes[:count] if isinstance(one, WriteSysctl)]
        rest = changes[count:]
        del changes[:count]
        for changed in self._in_namespace(lambda: [one for one in sysctls if _write(one)]):
            self._journal.record(changed.commands[0], changed.why)
        return rest


@functools.lru_cache(maxsize=NEIGHBOURS_KEPT)
def _neighbour(index: int, address: IPAddress, mac: str, *, answered: bool = False) -> bytes:
    """Return the request for a permanent neighbour as bytes.

    Cached, since all machines of a subnet have the same neighbours, on a device with the same index.
    """
    message = ndmsg()
    message["header"]["type"] = RTM_NEWNEIGH
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | (NLM_F_ACK if answered else 0)
    message["header"]["sequence_number"] = ANSWERED if answered else UNANSWERED
    message["family"], message["ifindex"] = ADDRESS_FAMILIES[address.version], index
    message["state"] = PERMANENT
    message["attrs"] = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    message.encode()
    return bytes(message.data)


def _unless(settled: frozenset[int], act: Callable[[], object]) -> bool:
    """Run it; return whether the kernel reports that it was done already. Raises KernelRefusal."""
    try:
        act()
    except KernelRefusal as error:
        if error.code in settled:
            return True
        raise
    return False


def _without_checksum_offload(name: str) -> None:
    """Do `ethtool -K NAME tx off` in the calling thread's namespace. Raises NetlinkError."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        except OSError as error:
            raise NetlinkError(f"ethtool -K {name} tx off: {error.strerror}") from error


def missing_kind(kind: str, reason: str) -> str:
    """Return the error line for a backend whose device this kernel does not have."""
    return f"backend {kind}: this kernel has no {kind} device (got {reason}; want Debian's module {kind})"


def sysctl_path(name: str) -> Path:
    """Return the file of a sysctl; whichever of dot and slash comes first is the separator, as for sysctl(8)."""
    swapped = name.translate(str.maketrans("./", "/."))
    slash_first = "/" in name and ("." not in name or name.index("/") < name.index("."))
    return Path("/proc/sys") / (name if slash_first else swapped)


def _write(change: WriteSysctl) -> bool:
    """Set a sysctl of the calling thread's namespace; return whether the value changed. Raises NetlinkError."""
    try:
        return _write_if_different(sysctl_path(change.name), change.value)
    except FileNotFoundError as error:
        if change.required:
            raise NetlinkError(f"sysctl -w {change.name}={change.value}: {os.strerror(errno.ENOENT)}") from error
        return False
    except OSError as error:
        raise NetlinkError(f"sysctl -w {change.name}={change.value}: {error.strerror}") from error


def _write_if_different(sysctl: Path, value: str) -> bool:
    """Open the file once: finding it among those of all namespaces is most of the work."""
    try:
        descriptor = os.open(sysctl, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        # Write nothing if the value is right already.
        if sysctl.read_text().split() == value.split():
            return False
        raise
    try:
        if os.read(descriptor, SYSCTL_BYTES).decode().split() == value.split():
            return False
        os.pwrite(descriptor, f"{value}\n".encode(), 0)
    finally:
        os.close(descriptor)
    return True
