"""A pod's part of the network: its veth, its address, its routes and neighbours, and its name for `ip netns`."""

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import NamedTuple, Protocol

from agent.errors import AgentError
from agent.kernel.journal import FileJournal
from agent.kernel.kernel import Kernel
from agent.kernel.values import (
    IPAddress,
    IPInterface,
    Route,
    VethPeer,
    Wanted,
    WantedAddresses,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
    WantedSysctl,
)
from testbed.cluster.device_names import BRIDGE
from testbed.cluster.manifest import PodManifest
from testbed.cluster.underlay_plan import DEFAULT_IPV6_ROUTE, DEFAULT_ROUTE
from testbed.errors import NoSubnetYet
from testbed.pods.ipam import Ipam, NoFreeAddress
from testbed.processes import namespaces as ns

INTERFACE_NAME_LENGTH = 15  # IFNAMSIZ less its NUL, linux/if.h
HOST_END_PREFIX = "veth"
POD_END = "eth0"
POD_MAC_PREFIX = "0a:58"  # What kubenet and CNI's bridge plugin put before the address.


class Guard(Protocol):
    """A node's rules for packets from its pods."""

    def confine(self, port: str, mac: str, addresses: Collection[IPAddress]) -> None:
        """Let this port of the bridge send only from these addresses. Raises OSError."""

    def release(self, port: str) -> None:
        """Remove the rules for a port that is gone. Raises OSError."""


class PodHost(Protocol):
    """The node of a pod. Values that change with a new lease are read again at every start of the pod."""

    @property
    def name(self) -> str:
        """Return the node's name."""

    @property
    def address(self) -> IPv4Address:
        """Return the node's own address; pods with hostNetwork have it too."""

    @property
    def pid(self) -> int:
        """Return a process with the node's network and mount namespaces."""

    @property
    def kernel(self) -> Kernel:
        """Return the node's network namespace."""

    @property
    def guard(self) -> Guard:
        """Return the node's rules for packets from its pods."""

    @property
    def subnet(self) -> IPv4Network:
        """Return the leased subnet. Raises NoSubnetYet while the node has none."""

    @property
    def ipv6_address(self) -> IPv6Address | None:
        """Return the node's own IPv6 address; None if the underlay has only IPv4."""

    @property
    def ipv6_subnet(self) -> IPv6Network | None:
        """Return the leased IPv6 subnet; None if pods have only IPv4. Raises NoSubnetYet while the node has none."""

    @property
    def gateway(self) -> IPv4Address:
        """Return the bridge's address."""

    @property
    def overlay_mtu(self) -> int:
        """Return the MTU of the pods' links, in bytes. Raises NoSubnetYet while the node has no lease."""

    @property
    def rundir(self) -> Path:
        """Return a directory inside the lab, which ends with it: pods' files are in `pods`."""

    @property
    def logs(self) -> Path:
        """Return a directory on the host: pods' logs are in `pods` below it."""


class PodAddresses(NamedTuple):
    """A pod's addresses."""

    ipv4: IPv4Address
    ipv6: IPv6Address | None
    """In addition, on a dual-stack network."""


class PodNetwork(Protocol):
    """What gives the pods of one node their networks: `BridgeNetwork`, or plugins (cni_network)."""

    def reserve(self, manifest: PodManifest) -> PodAddresses | None:
        """Reserve the pod's addresses, the current ones if it has some; None if `connect` chooses them.

        Raises OSError with a message.
        """

    def connect(self, manifest: PodManifest, pause_pid: int) -> PodAddresses:
        """Link the pod and configure both ends. Raises OSError with a message; then `disconnect` is called."""

    def disconnect(self, manifest: PodManifest) -> None:
        """Remove the pod's link; one that is already gone is success."""

    def release(self, manifest: PodManifest) -> None:
        """Release the pod's addresses; it is not linked any more."""

    def is_current(self, manifest: PodManifest, addresses: PodAddresses) -> bool:
        """Return whether the pod may keep these addresses: its node's subnet may have changed."""

    def repair(self, manifest: PodManifest, addresses: PodAddresses) -> str:
        """Repair the pod's link if it is broken; return what was done, or nothing. Raises OSError with a message."""

    def host_end(self, manifest: PodManifest) -> str | None:
        """Return the name of the node's end of the pod's link; None while it is not known."""

    def calls(self, manifest: PodManifest) -> list[str]:
        """Return the pod's last calls of plugins, one line each."""


class BridgeNetwork:
    """The lab's own: a port of the node's bridge, and the lowest free address of its subnet."""

    def __init__(self, host: PodHost, ipam: Ipam) -> None:
        self._host = host
        self._ipam = ipam

    def reserve(self, manifest: PodManifest) -> PodAddresses:
        """Reserve the lowest free address. Raises OSError with a message."""
        with failures_as_oserror(str(manifest.key)):
            address = self._ipam.allocate(manifest.key.file_name, self._host.subnet)
            ipv6 = ipv6_of(self._host, address)
        return PodAddresses(address, None if ipv6 is None else ipv6.ip)

    def connect(self, manifest: PodManifest, pause_pid: int) -> PodAddresses:
        """Link it to the bridge, with its reserved addresses. Raises OSError with a message."""
        addresses = self.reserve(manifest)
        connect(self._host, manifest.key.file_name, pause_pid, addresses.ipv4)
        return addresses

    def disconnect(self, manifest: PodManifest) -> None:
        """Remove the pod's link."""
        disconnect(self._host, manifest.key.file_name)

    def release(self, manifest: PodManifest) -> None:
        """Release the pod's addresses."""
        self._ipam.release(manifest.key.file_name)

    def is_current(self, manifest: PodManifest, addresses: PodAddresses) -> bool:
        """Return whether the addresses are in the node's subnets."""
        del manifest
        with contextlib.suppress(NoSubnetYet):
            if addresses.ipv4 not in self._host.subnet:
                return False
            ipv6 = self._host.ipv6_subnet
            return ipv6 is None or addresses.ipv6 is None or addresses.ipv6 in ipv6
        return True

    def repair(self, manifest: PodManifest, addresses: PodAddresses) -> str:
        """Put the pod's link back on the bridge."""
        again = plug_in(self._host, manifest.key.file_name, addresses.ipv4)
        return f"reconnected to {BRIDGE}" if again else ""

    def host_end(self, manifest: PodManifest) -> str:
        """Return the name of the node's end."""
        return host_end(manifest.key.file_name)

    def calls(self, manifest: PodManifest) -> list[str]:
        """Return none."""
        del manifest
        return []


def host_end(pod: str) -> str:
    """Return the name of the node's end of the pod's link: `veth` and the pod's name, or its start and a hash."""
    name = HOST_END_PREFIX + pod
    if len(name) <= INTERFACE_NAME_LENGTH and "." not in name:
        return name
    digest = hashlib.sha256(pod.encode()).hexdigest()[:6]
    kept = pod.replace(".", "-")[: INTERFACE_NAME_LENGTH - len(HOST_END_PREFIX) - len(digest)]
    return HOST_END_PREFIX + kept + digest


def pod_mac(address: IPv4Address) -> str:
    """Return the MAC address for a pod address; it is stable, so no neighbour entry becomes stale."""
    return ":".join([POD_MAC_PREFIX, *(f"{byte:02x}" for byte in address.packed)])


def ipv6_of(host: PodHost, address: IPv4Address) -> IPv6Interface | None:
    """Return the IPv6 address of the pod with this IPv4 address: the same number in its subnet; None without IPv6.

    So one reservation covers both, and each address follows from the other. Raises NoSubnetYet.
    """
    subnet = host.ipv6_subnet
    if subnet is None:
        return None
    number = int(address) - int(host.subnet.network_address)
    return IPv6Interface((subnet.network_address + number, subnet.prefixlen))


@contextlib.contextmanager
def failures_as_oserror(pod: str) -> Iterator[None]:
    """Convert errors: supervision retries on OSError, and a node's subnet or a link may come later.

    The node may lose its subnet at any time, also between two looks at it.
    """
    try:
        yield
    except AgentError as error:
        raise OSError(str(error)) from error
    except (NoFreeAddress, NoSubnetYet) as error:
        raise OSError(f"pod {pod}: {error}") from error


def connect(host: PodHost, pod: str, pause_pid: int, address: IPv4Address) -> None:
    """Link the pod to the node's bridge and configure both ends. Raises OSError with a message."""
    why = f"pod {pod}"
    near, mac, node = host_end(pod), pod_mac(address), host.kernel
    with failures_as_oserror(pod):
        ipv6 = ipv6_of(host, address)
        bridge = node.link(BRIDGE)
        if bridge is None:
            raise OSError(f"pod {pod}: node {host.name} has no bridge {BRIDGE}")
        peer = VethPeer(POD_END, host.overlay_mtu, mac, namespace_pid=pause_pid, namespace=pod)
        link = WantedLink(near, f"{why}: its link", kind="veth", settings=peer, mtu=host.overlay_mtu)
        # The node does not send on this end; without this the kernel sends router solicitations and MLD reports.
        quiet = _ipv6_setting(near, "disable_ipv6", "1", f"{why}: a bridge port needs no address", required=False)
        # An existing one of that name belongs to a pod that is gone.
        left = {near: f"{why}: left from an earlier run"}
        node.converge(Wanted(no_links=left, links=(link,), sysctls=(quiet,)))
        host.guard.confine(near, mac, [address, *([ipv6.ip] if ipv6 is not None else [])])
        node.converge(_wanted_port(host, pod, address, ipv6), known=[bridge])
        journal = node.journal.of(pod) if isinstance(node.journal, FileJournal) else node.journal
        with Kernel(journal, pause_pid) as inside:
            inside.converge(_wanted_inside(host, pod, address, ipv6, bridge.mac), new={POD_END})


def _wanted_port(host: PodHost, pod: str, address: IPv4Address, ipv6: IPv6Interface | None) -> Wanted:
    """Return the node's end as a port of the bridge, and the pod among the bridge's neighbours."""
    why, mac = f"pod {pod}", pod_mac(address)
    port = WantedLink(
        host_end(pod),
        f"{why}: a port of the bridge; a Service may send its packets back to it",
        master=BRIDGE,
        hairpin=True,
        up=True,
    )
    neighbours = [WantedNeighbours(BRIDGE, {address: mac}, f"{why}: known without ARP")]
    if ipv6 is not None:
        neighbours.append(
            WantedNeighbours(BRIDGE, {ipv6.ip: mac}, f"{why}: known without neighbour discovery", family=6)
        )
    return Wanted(links=(port,), neighbours=tuple(neighbours))


def wanted_in_any_pod(pod: str) -> Wanted:
    """Return what every pod's network namespace has, whichever code makes its link."""
    why = f"inside pod {pod}"
    low_ports = WantedSysctl(
        "net.ipv4.ip_unprivileged_port_start",
        "0",
        f"{why}: any user may listen on port 80, as in container engines",
    )
    return Wanted(sysctls=(low_ports,), links=(WantedLink("lo", f"{why}: containers share localhost", up=True),))


def _wanted_inside(
    host: PodHost, pod: str, address: IPv4Address, ipv6: IPv6Interface | None, bridge_mac: str
) -> Wanted:
    """Return the pod's own namespace: loopback, its end with its addresses, the route to the node."""
    why = f"inside pod {pod}"
    own_end = WantedLink(POD_END, f"{why}: its end", up=True)
    route = Route(destination=DEFAULT_ROUTE, device=POD_END, gateway=host.gateway)
    own: frozenset[IPInterface] = frozenset({IPv4Interface((address, host.subnet.prefixlen))})
    wanted = wanted_in_any_pod(pod) + Wanted(
        links=(own_end,),
        addresses=(WantedAddresses(POD_END, own, f"{why}: its address"),),
        neighbours=(WantedNeighbours(POD_END, {host.gateway: bridge_mac}, f"{why}: the node, known without ARP"),),
        routes=(WantedRoute(route, f"{why}: everything else goes to the node"),),
    )
    if ipv6 is None:
        off = _ipv6_setting(POD_END, "disable_ipv6", "1", f"{why}: the overlay carries IPv4", required=False)
        return wanted + Wanted(sysctls=(off,))
    gateway = ipv6.network.network_address + 1
    ipv6_route = Route(destination=DEFAULT_IPV6_ROUTE, device=POD_END, gateway=gateway)
    known = f"{why}: the node, known without neighbour discovery"
    return wanted + Wanted(
        # Before it is up, when the kernel would choose a link-local address.
        sysctls=(
            _ipv6_setting(POD_END, "accept_ra", "0", f"{why}: only the node may announce itself as a router"),
            _ipv6_setting(
                POD_END, "addr_gen_mode", "1", f"{why}: it sends only from its own address, so no link-local one"
            ),
            _ipv6_setting(POD_END, "disable_ipv6", "0", f"{why}: the overlay carries IPv6 too"),
        ),
        addresses=(WantedAddresses(POD_END, frozenset({ipv6}), f"{why}: its IPv6 address", family=6),),
        neighbours=(WantedNeighbours(POD_END, {gateway: bridge_mac}, known, family=6),),
        routes=(WantedRoute(ipv6_route, f"{why}: everything else by IPv6"),),
    )


def _ipv6_setting(device: str, name: str, value: str, why: str, *, required: bool = True) -> WantedSysctl:
    return WantedSysctl(f"net.ipv6.conf.{device}.{name}", value, why, required, device)


def plug_in(host: PodHost, pod: str, address: IPv4Address) -> bool:
    """Put the pod's link back on the bridge if it was removed or the bridge was recreated; return whether it was off.

    Raises OSError with a message.
    """
    near = host_end(pod)
    with failures_as_oserror(pod):
        bridge, link = host.kernel.link(BRIDGE), host.kernel.link(near)
        if bridge is None or link is None or link.master == bridge.index:
            return False
        host.kernel.converge(_wanted_port(host, pod, address, ipv6_of(host, address)), known=[bridge, link])
    return True


def disconnect(host: PodHost, pod: str) -> None:
    """Remove the pod's link; one that is already gone, with its node or with its pod, is success."""
    near = host_end(pod)
    with contextlib.suppress(AgentError):
        host.kernel.delete_link(near, f"pod {pod} is ending")
    with contextlib.suppress(OSError):
        host.guard.release(near)


def bind_name(directory: Path, pod: str, pause_pid: int) -> None:
    """Let `ip netns exec POD` find the pod's network namespace. Raises OSError."""
    unbind_name(directory, pod)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / pod).touch(mode=0o444)
    ns.mount(f"/proc/{pause_pid}/ns/net", str(directory / pod), flags=ns.MS_BIND)


def unbind_name(directory: Path, pod: str) -> None:
    """Remove the name; one that is already gone is success."""
    with contextlib.suppress(OSError):
        ns.umount(str(directory / pod), ns.MNT_DETACH)
    (directory / pod).unlink(missing_ok=True)
