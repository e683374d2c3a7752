"""Machines, switches and cables of the underlay: Mininet's classes, programmed over netlink instead of shell strings.

A switch is a Linux bridge in the lab's network namespace, or one of Open vSwitch (open_vswitch.py); a node, a router,
an etcd member and the gateway are Mininet hosts with their own network and mount namespaces.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from mininet.link import Intf, Link
from mininet.node import Host, Switch

from agent.kernel.journal import Journal
from agent.kernel.kernel import Kernel
from agent.kernel.values import (
    Family,
    IPAddress,
    VethPeer,
    Wanted,
    WantedAddresses,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
    WantedSysctl,
)
from testbed.cluster.underlay_plan import MachinePlan
from testbed.lab.holder import NamespaceHolder
from testbed.lab.holder import Report as HolderReport
from testbed.lab.machine_shell import ShellOnDemand
from testbed.lab.unreachable import answer_each_packet
from testbed.pods.tmpfs import MIB, mount_tmpfs, umount_tmpfs
from testbed.processes.short_commands import output_of

TREE_TIMERS = ("forward_delay", "200", "hello_time", "100", "max_age", "600")
"""Spanning tree timers in 1/100 s, the kernel's smallest.

A failure at a bridge's own port is repaired after two forward delays, a more distant one after max_age more: 10 s.
"""
ROOT_PRIORITY = 0x1000  # of the first switch; the others follow one by one, all better than the default 0x8000
LAB = "lab"
"""The journal's name for the lab's own namespace."""


def run_command(journal: Journal, command: Sequence[str], why: str) -> None:
    """Run ip or tc in the caller's network namespace, for tasks outside of `Kernel`.

    Raises OSError with its message.
    """
    output_of(command)
    journal.record(command, why)


def wanted_namespace(*, ipv6: bool) -> Wanted:
    """Return the initial state of every new namespace: loopback up, and IPv6 on or off.

    Addresses and routes come from the plan alone.
    """
    why = "this underlay has IPv6 too" if ipv6 else "this underlay is IPv4 only"
    sysctls = []
    for scope in ("all", "default"):
        sysctls.append(WantedSysctl(f"net.ipv6.conf.{scope}.disable_ipv6", "0" if ipv6 else "1", why))
        for setting in ("accept_ra", "accept_dad", "router_solicitations") if ipv6 else ():
            name, plan = f"net.ipv6.conf.{scope}.{setting}", "addresses and routes come from the plan alone"
            sysctls.append(WantedSysctl(name, "0", plan, required=False))
    loopback = WantedLink("lo", "in a new namespace, loopback is down", up=True)
    return Wanted(links=(loopback,), sysctls=tuple(sysctls))


class VethInterface(Intf):
    """One end of a link. Addresses, MAC and state use netlink; other requests of Mininet still use ifconfig."""

    mac: str | None

    def setIP(self, ipstr: str, prefixLen: int | None = None) -> None:
        """Give the interface exactly this address."""
        address = IPv4Interface(ipstr if prefixLen is None else f"{ipstr}/{prefixLen}")
        self.know_address(address)
        self.node.kernel.ensure_addresses(self.name, [address], f"the underlay address of {self.node.name}")

    def know_address(self, address: IPv4Interface) -> None:
        """Set the interface's address in Mininet."""
        self.ip, self.prefixLen = str(address.ip), address.network.prefixlen

    def setMAC(self, macstr: str) -> None:
        """Remember the MAC; the link was created with it."""
        self.mac = macstr

    def ifconfig(self, *args: str) -> str:
        """Handle `up` and `down` over netlink, the rest with the real program."""
        if args == ("up",):
            self.node.kernel.set_up(self.name, "bring the link's end up")
            if isinstance(self.node, OverlayNode):
                self.node.restore(self.name)
            return ""
        if args == ("down",):
            self.node.kernel.set_down(self.name, "take the link's end down")
            return ""
        return str(super().ifconfig(*args))

    def isUp(self, setUp: bool = False) -> bool:
        """Return whether the interface is up; with `setUp` bring it up."""
        if setUp:
            self.ifconfig("up")
            return True
        link = self.node.kernel.link(self.name)
        return bool(link and link.up)

    def updateIP(self) -> str | None:
        """Return the address that we set; nothing else changes it."""
        return str(self.ip) if self.ip else None

    def updateMAC(self) -> str | None:
        """Return the MAC from the kernel."""
        link = self.node.kernel.link(self.name)
        self.mac = link.mac if link else None
        return self.mac

    def delete(self) -> None:
        """Remove the interface, and with it the other end."""
        self.node.kernel.delete_link(self.name, "the link is removed")
        self.node.delIntf(self)
        self.link = None


class VethLink(Link):
    """A veth pair created by one netlink message with both ends already in their namespaces, the first one up."""

    plugged_in = True

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
        """Create the pair between `node1` and `node2`."""
        peer = VethPeer(
            intfname2,
            node1.underlay_mtu,
            mac=addr2,
            namespace_pid=node2.pid,
            namespace=node2.name if isinstance(node2, OverlayNode) else LAB,
        )
        why = f"the cable {node1.name} to {node2.name}"
        mtu = node1.underlay_mtu
        link = WantedLink(intfname1, why, kind="veth", settings=peer, mtu=mtu, mac=addr1, up=cls.plugged_in)
        node1.kernel.converge(Wanted(links=(link,)))


class SpareLink(VethLink):
    """A link whose ends stay down for now."""

    plugged_in = False


class OverlayNode(ShellOnDemand, Host):
    """A machine of the lab: a Mininet host with its own /run."""

    holder: NamespaceHolder

    def __init__(
        self,
        name: str,
        *,
        lab_files: Path,
        files_mib: int,
        journal: Journal,
        report: HolderReport,
        underlay_mtu: int,
        ipv6: bool,
        **params: Any,
    ) -> None:
        self._lab_files = lab_files
        self._run_directory = lab_files / name / "run"
        self._files_mib = files_mib
        self._report = report
        super().__init__(name, **params)
        self.underlay_mtu = underlay_mtu
        self.ipv6 = ipv6
        self.kernel = Kernel(journal, netns_pid=self.pid)
        self.plan: MachinePlan | None = None
        """Its routes and neighbours, once its ports have their addresses."""
        self.kernel.converge(wanted_namespace(ipv6=ipv6))

    def hold(self) -> int:
        """Create the machine's namespaces; return the process that holds them. Raises OSError."""
        # As on any machine: programs of non-root users look for their files there.
        mount_tmpfs(self._run_directory, self._files_mib * MIB, 0o755)
        self.holder = NamespaceHolder(self.name, self._run_directory, self._lab_files, self._report)
        return self.holder.pid

    def terminate(self) -> None:
        """Switch the machine off, with everything that runs on it."""
        super().terminate()
        self.holder.end()
        umount_tmpfs(self._run_directory)

    def restore(self, interface: str) -> None:
        """Restore what the kernel forgets when a port goes down: routes through it, neighbours, IPv6 addresses."""
        if self.plan is not None:
            self.kernel.converge(self._wanted_at(self.plan, interface))

    def take_place(self, plan: MachinePlan) -> None:
        """Configure the new ports of the machine: its addresses, then routes, and every neighbour's MAC. The neighbour
        table's limit counts all namespaces together, and excludes only permanent entries.
        """
        self.plan = plan
        wanted = Wanted()
        for port in plan.ports:
            self.intf(port.interface).know_address(port.address)
            own = WantedAddresses(port.interface, frozenset({port.address}), f"the underlay address of {self.name}")
            wanted += Wanted(addresses=(own,)) + self._wanted_at(plan, port.interface)
        self.kernel.converge(wanted, new={port.interface for port in plan.ports})

    def follow(self, plan: MachinePlan) -> None:
        """Apply a new plan with the same ports; only new parts are checked."""
        known = frozenset(() if self.plan is None else self.plan.neighbours)
        routes = frozenset(() if self.plan is None else self.plan.routes)
        news = replace(
            plan,
            neighbours=tuple(one for one in plan.neighbours if one not in known),
            routes=tuple(one for one in plan.routes if one not in routes),
        )
        for port in plan.ports:
            self.kernel.converge(self._wanted_at(news, port.interface))
        self.plan = plan

    def _wanted_at(self, plan: MachinePlan, interface: str) -> Wanted:
        """Return the state of a port apart from its IPv4 address."""
        ipv6 = [port.ipv6 for port in plan.ports if port.interface == interface and port.ipv6 is not None]
        others: dict[Family, dict[IPAddress, str]] = {4: {}, 6: {}}
        for one in plan.neighbours:
            if one.interface == interface:
                others[one.address.version][one.address] = one.mac
        why = f"the other machines on the subnet of {self.name}"
        return Wanted(
            addresses=tuple(
                WantedAddresses(interface, frozenset({address}), f"the IPv6 address of {self.name}", family=6)
                for address in ipv6
            ),
            routes=tuple(WantedRoute(route, why) for route, why in plan.routes if route.device == interface),
            neighbours=tuple(
                WantedNeighbours(interface, entries, why, family) for family, entries in others.items() if entries
            ),
        )

    def config(self, **_params: Any) -> dict[str, Any]:
        """Do nothing: `Underlay` sets addresses and routes."""
        return {}


class Router(OverlayNode):
    """A machine that forwards between its links."""

    def __init__(self, name: str, **params: Any) -> None:
        super().__init__(name, **params)
        self.kernel.sysctl("net.ipv4.ip_forward", "1", "a router forwards")
        if self.ipv6:
            self.kernel.sysctl("net.ipv6.conf.all.forwarding", "1", "a router forwards")
        for scope in ("all", "default"):
            why = "no ICMP redirects: the lab sets all routes"
            self.kernel.sysctl(f"net.ipv4.conf.{scope}.send_redirects", "0", why)
        answer_each_packet(self.kernel, self.pid, ipv6=self.ipv6)


class BridgeSwitch(ShellOnDemand, Switch):
    """A Linux bridge named like the switch, in the lab's own network namespace."""

    def __init__(self, name: str, *, kernel: Kernel, underlay_mtu: int, **params: Any) -> None:
        self.kernel = kernel
        self.underlay_mtu = underlay_mtu
        super().__init__(name, **{**params, "dpid": "0", "inNamespace": False})

    def start(self, _controllers: object) -> None:
        """Create the bridge and plug every cable in."""
        bridge = WantedLink(self.name, "a switch of the underlay", kind="bridge", mtu=self.underlay_mtu, up=True)
        self.kernel.converge(Wanted(links=(bridge,)))
        self._bridge = self.kernel.link(self.name)
        for interface in self.intfList():
            if interface.name != "lo":
                self.plug(interface.name)

    def plug(self, interface: str) -> None:
        """Plug a cable's end in, one at a time.

        A query for this link alone makes the kernel notice at once that its cable is connected. Otherwise it may wait a
        second if both ends have the same index in their namespaces, and the bridge drops packets meanwhile.
        """
        port = WantedLink(interface, "plug the cable into the switch", master=self.name)
        self.kernel.converge(Wanted(links=(port,)), known=[self._bridge] if self._bridge else [])

    def unplug(self, _interface: str) -> None:
        """Do nothing: a bridge forgets a port that is gone."""

    def span_tree(self, priority: int) -> None:
        """Let the bridge take part in the spanning tree protocol."""
        options = [*TREE_TIMERS, "priority", str(ROOT_PRIORITY + priority), "stp_state", "1"]
        why = "switches form a loop: spanning tree blocks the spare cables"
        run_command(self.kernel.journal, ["ip", "link", "set", self.name, "type", "bridge", *options], why)

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge."""
        with contextlib.suppress(OSError):
            self.kernel.delete_link(self.name, "the switch is removed")
