"""Runs programs on the lab's machines, and finds the machines and cables that a fault names."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from agent.kernel.values import IPNetwork
from testbed.cluster.shaping import queueing_commands
from testbed.cluster.wiring import Cable
from testbed.errors import NoSubnetYet
from testbed.faults.ledger import FaultImpossible
from testbed.lab.etcd import enter_machine
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.underlay import LabUnderlay
from testbed.processes.short_commands import output_of
from testbed.spelling import listed

TABLE_PREFIX = "testbed-fault-"
"""Prefix of our own nftables tables, so that no other fault removes them."""


@dataclass(frozen=True, slots=True)
class WireEnd:
    """One end of a cable."""

    owner: str
    """A machine or a switch."""
    interface: str
    pid: int | None
    """Process whose network namespace contains it; None: the lab's own, with the switches."""
    mininet: Any
    """Mininet's object, which brings it up and down with everything attached."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One cable between two machines or switches; the end of the one named first comes first."""

    name: str
    ends: tuple[WireEnd, WireEnd]
    shaping: Sequence[Sequence[Sequence[str]]]
    """The cluster file's tc commands for each end."""


def run(pid: int | None, command: Sequence[str], stdin: str = "") -> str:
    """Run a program in a machine's namespaces, or in the lab's own; return its output.

    Raises OSError with its message.
    """
    inside = enter_machine(pid) if pid is not None else []
    return output_of([*inside, *command], stdin, called=" ".join(command))


def machine_pid(underlay: LabUnderlay, name: str) -> int:
    """Return a process in a machine's namespaces. Raises FaultImpossible."""
    machine = underlay.machines.get(name)
    if machine is None:
        raise FaultImpossible(f"no machine named {name} (there are: {listed(underlay.machines, name)})")
    return int(machine.pid)


def sources_of(underlay: LabUnderlay, nodes: Nodes, names: Sequence[str]) -> list[IPNetwork]:
    """Return the source addresses of these machines' packets: underlay addresses and, for nodes, their
    pods' subnets.
    """
    plans = (underlay.machines[name].plan for name in names)
    ports = [port for plan in plans if plan is not None for port in plan.ports]
    own = [ip_network(it.ip) for port in ports for it in (port.address, port.ipv6) if it is not None]
    return [*own, *(subnet for name in names if name in nodes for subnet in _subnets_of(nodes[name]))]


def _subnets_of(node: LabNode) -> Iterator[IPNetwork]:
    """Return the node's subnets; None while it has no lease."""
    with contextlib.suppress(NoSubnetYet):
        yield node.subnet
        if node.ipv6_subnet is not None:
            yield node.ipv6_subnet


def wire_between(underlay: LabUnderlay, first: str, second: str) -> Wire:
    """Return the cable between two machines or switches. Raises FaultImpossible."""
    known = underlay.net.nameToNode
    for name in (first, second):
        if name not in known:
            raise FaultImpossible(f"no machine or switch named {name} (there are: {listed(known, name)})")
    links = underlay.net.linksBetween(known[first], known[second])
    if not links:
        others = ", ".join(_neighbours(underlay, first))
        raise FaultImpossible(f"no link between {first} and {second} ({first} has links to {others})")
    link = links[0]
    ends = [_end(underlay, interface) for interface in (link.intf1, link.intf2)]
    if ends[0].owner != first:
        ends.reverse()
    # By its ends, not by the numbers of its ports: the cables of deleted nodes are no longer in the plan.
    cable = next((one for one in underlay.plan.cables if set(one.ends) == {first, second}), Cable(first, second))
    shaping = [queueing_commands(end.interface, cable.shaping) for end in ends]
    return Wire(f"{first} {second}", (ends[0], ends[1]), shaping)


def is_there(underlay: LabUnderlay, wire: Wire) -> bool:
    """Return whether the cable still exists: it is removed with its machine."""
    return any(wire.ends[0].mininet in (link.intf1, link.intf2) for link in underlay.net.links)


def _end(underlay: LabUnderlay, interface: Any) -> WireEnd:  # noqa: ANN401 - Mininet has no types
    owner = interface.node.name
    pid = interface.node.pid if owner in underlay.machines else None
    return WireEnd(owner, interface.name, pid, interface)


def _neighbours(underlay: LabUnderlay, name: str) -> list[str]:
    ends = ((link.intf1.node.name, link.intf2.node.name) for link in underlay.net.links)
    return sorted({other for pair in ends if name in pair for other in pair if other != name})
