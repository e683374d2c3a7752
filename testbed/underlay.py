"""The underlay: Mininet hosts, switches and links, programmed over netlink instead of shell strings.

Everything here happens inside the lab's own namespaces. A switch is a Linux bridge in the lab's network namespace; a
node, an etcd member and the gateway are Mininet hosts with network and mount namespaces of their own.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from mininet.link import Intf, Link
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import Host, Switch
from mininet.topo import Topo

from agent.journal import Journal
from agent.netlink import Kernel, Route

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")


class VethInterface(Intf):
    """One end of a link. Addresses, MAC and state go over netlink; anything else Mininet asks still uses ifconfig."""

    mac: str | None

    def setIP(self, ipstr: str, prefixLen: int | None = None) -> None:
        """Give the interface exactly this address."""
        address = IPv4Interface(ipstr if prefixLen is None else f"{ipstr}/{prefixLen}")
        self.ip, self.prefixLen = str(address.ip), address.network.prefixlen
        self.node.kernel.ensure_addresses(self.name, [address], f"the underlay address of {self.node.name}")

    def setMAC(self, macstr: str) -> None:
        """Remember the MAC; the link was made with it."""
        self.mac = macstr

    def ifconfig(self, *args: str) -> str:
        """`up` and `down` over netlink, the rest by the real program."""
        if args == ("up",):
            self.node.kernel.set_up(self.name, "bring the link's end up")
            if isinstance(self.node, OverlayNode):
                self.node.restore()
            return ""
        if args == ("down",):
            self.node.kernel.set_down(self.name, "take the link's end down")
            return ""
        return str(super().ifconfig(*args))

    def updateIP(self) -> str | None:
        """The address we set; nothing else changes it."""
        return str(self.ip) if self.ip else None

    def updateMAC(self) -> str | None:
        """The MAC as the kernel has it."""
        link = self.node.kernel.link(self.name)
        self.mac = link.mac if link else None
        return self.mac

    def delete(self) -> None:
        """Remove the interface, and with it the other end."""
        self.node.kernel.delete_link(self.name, "the link is removed")
        self.node.delIntf(self)
        self.link = None


class VethLink(Link):
    """A veth pair made by one netlink message with both ends already in their namespaces."""

    @classmethod
    def makeIntfPair(
        cls,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = True,
    ) -> None:
        """Make the pair between `node1` and `node2`."""
        node1.kernel.create_veth(
            intfname1,
            peer=intfname2,
            peer_netns_pid=node2.pid,
            mtu=node1.underlay_mtu,
            mac=addr1,
            peer_mac=addr2,
            why=f"the cable {node1.name} to {node2.name}",
        )


class OverlayNode(Host):
    """A machine of the lab: a Mininet host whose /run is its own."""

    def __init__(self, name: str, *, run_directory: Path, journal: Journal, underlay_mtu: int, **params: Any) -> None:
        super().__init__(name, **params)
        self.underlay_mtu = underlay_mtu
        self.kernel = Kernel(journal, netns_pid=self.pid)
        self.wanted_routes: list[tuple[Route, str]] = []
        """With the reason for each."""
        self.known_neighbours: dict[str, tuple[IPv4Address, str]] = {}
        """Address and MAC of other machines, by name."""
        run_directory.mkdir(parents=True, exist_ok=True)
        self._run("mount", "--bind", str(run_directory), "/run")
        self.kernel.set_up("lo", "a new namespace has its loopback down")
        for scope in ("all", "default"):
            self.kernel.sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", "1", "this underlay is IPv4 only")

    def _run(self, *argv: str) -> None:
        _, errors, status = self.pexec(list(argv))
        if status:
            raise OSError(f"{self.name}: {' '.join(argv)}: {errors.strip()}")

    def restore(self) -> None:
        """Bring back what the kernel forgets when the uplink goes down: routes through it and neighbours on it."""
        for route, why in self.wanted_routes:
            self.kernel.ensure_route(route, why)
        for other, (address, mac) in self.known_neighbours.items():
            self.kernel.ensure_neighbour(f"{self.name}-eth0", address, mac, f"{self.name} knows {other}")

    def config(self, **_params: Any) -> dict[str, Any]:
        """Nothing: addresses and routes are set by `Underlay`."""
        return {}


class Router(OverlayNode):
    """A machine that forwards between its links."""

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, **params)
        self.kernel.sysctl("net.ipv4.ip_forward", "1", "a router forwards")


class BridgeSwitch(Switch):
    """A Linux bridge named like the switch, in the lab's own network namespace."""

    def __init__(self, name: str, *, kernel: Kernel, underlay_mtu: int, **params: Any) -> None:
        self.kernel = kernel
        self.underlay_mtu = underlay_mtu
        super().__init__(name, **{**params, "dpid": "0", "inNamespace": False})

    def start(self, _controllers: object) -> None:
        """Make the bridge and plug every cable in."""
        self.kernel.create_bridge(self.name, mtu=self.underlay_mtu, why="a switch of the underlay")
        for interface in self.intfList():
            if interface.name != "lo":
                self.kernel.set_master(interface.name, self.name, "plug the cable into the switch")
                self.kernel.set_up(interface.name, "bring the switch's port up")
        self.kernel.set_up(self.name, "switch the switch on")

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge."""
        with contextlib.suppress(OSError):
            self.kernel.delete_link(self.name, "the switch is removed")


@dataclass(frozen=True, slots=True)
class UnderlayPlan:
    """Who is on the underlay, at which address."""

    network: IPv4Network
    gateway: IPv4Address
    nodes: Mapping[str, IPv4Address]
    """In the order of the cluster file, which is also the order of the topology's hosts."""
    etcd_members: Mapping[str, IPv4Address]
    mtu: int
    """Of every cable and switch, in bytes."""


class Underlay:
    """The built network: `machines` by name, and Mininet's own object for its prompt."""

    def __init__(
        self, plan: UnderlayPlan, topology: Topo, run_directory: Path, journal_of: Callable[[str], Journal]
    ) -> None:
        self.plan = plan
        self.topology = topology
        self._run_directory = run_directory
        self._journal_of = journal_of
        self.kernel = Kernel(journal_of("lab"))
        setLogLevel("warning")
        # Its constructor would otherwise change sysctls of the whole machine.
        Mininet.inited = True
        self.net = Mininet(topo=None, host=OverlayNode, link=VethLink, intf=VethInterface, controller=None, build=False)
        self.machines: dict[str, OverlayNode] = {}

    def start(self) -> None:
        """Build switches, machines and cables; then addresses, routes and neighbours."""
        self.kernel.set_up("lo", "a new namespace has its loopback down")
        with contextlib.suppress(FileNotFoundError):
            self.kernel.sysctl("net.bridge.bridge-nf-call-iptables", "0", "switches do not look into packets")
        for scope in ("all", "default"):
            self.kernel.sysctl(f"net.ipv6.conf.{scope}.disable_ipv6", "1", "this underlay is IPv4 only")
        switches = self.topology.switches()
        for name in switches:
            self.net.addSwitch(name, cls=BridgeSwitch, kernel=self.kernel, underlay_mtu=self.plan.mtu)
        renamed = dict(zip(self.topology.hosts(), self.plan.nodes, strict=True))
        for name in self.plan.nodes:
            self._add_machine(name, OverlayNode)
        for name in self.plan.etcd_members:
            self._add_machine(name, OverlayNode)
        self._add_machine("gw", Router)
        for first, second in self.topology.links(sort=True):
            self._connect(renamed.get(first, first), renamed.get(second, second))
        for name in (*self.plan.etcd_members, "gw"):
            self._connect(name, switches[0])
        self.net.built = True
        self.net.start()
        self._address()
        self._introduce()

    def address_of(self, name: str) -> IPv4Address:
        """The underlay address of a machine."""
        if name == "gw":
            return self.plan.gateway
        return self.plan.nodes.get(name) or self.plan.etcd_members[name]

    def interface_of(self, name: str) -> str:
        """The name of a machine's underlay interface."""
        return f"{name}-eth0"

    def _add_machine(self, name: str, kind: type[OverlayNode]) -> None:
        self.machines[name] = self.net.addHost(
            name,
            cls=kind,
            run_directory=self._run_directory / name / "run",
            journal=self._journal_of(name),
            underlay_mtu=self.plan.mtu,
        )

    def _mac(self, name: str) -> str:
        return "02:00:" + ":".join(f"{byte:02x}" for byte in self.address_of(name).packed)

    def _connect(self, first: str, second: str) -> None:
        self.net.addLink(
            first,
            second,
            addr1=self._mac(first) if first in self.machines else None,
            addr2=self._mac(second) if second in self.machines else None,
        )

    def _address(self) -> None:
        for name, machine in self.machines.items():
            address = IPv4Interface(f"{self.address_of(name)}/{self.plan.network.prefixlen}")
            machine.intf().setIP(str(address))
            if name != "gw":
                route = Route(destination=DEFAULT_ROUTE, device=self.interface_of(name), gateway=self.plan.gateway)
                why = "everything else goes to the lab's gateway, which answers «net unreachable»"
                machine.wanted_routes.append((route, why))

    def _introduce(self) -> None:
        """Tell every machine every other one's MAC: the neighbour table's limit counts all namespaces together, and
        only permanent entries are outside it."""
        for name, machine in self.machines.items():
            machine.known_neighbours = {
                other: (self.address_of(other), self._mac(other)) for other in self.machines if other != name
            }
            machine.restore()
