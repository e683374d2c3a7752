"""The judge of a lab: what it checks, and a verdict that lists problems, not causes. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.kernel.values import Family
from testbed.cluster.underlay_plan import GATEWAY
from testbed.control.answers.faults import CheckLine
from testbed.faults.explain import Loss

SHOWN = 8
"""Lines shown per check; the rest is counted."""


@dataclass(frozen=True, slots=True)
class JudgedNode:
    """The observed state of one node."""

    name: str
    address: str
    ready: bool
    """Whether its agent reports ready."""
    forwarding: frozenset[tuple[str, str]] | None
    """Subnet and address; None if the agent did not report them."""
    kernel_problems: tuple[str, ...] | None
    """Problems in the kernel's own tables, for an agent that reports no entries; None for our agent."""
    routes: frozenset[tuple[str, str]]
    """Destination and device of the kernel's unicast routes."""
    device: str | None
    """The overlay device's name; None for a backend that has none."""
    bridge: str | None
    """None: CNI plugins link its pods, in a way of their own."""


@dataclass(frozen=True, slots=True)
class JudgedLease:
    """One key of etcd."""

    subnet: str
    address: str
    ipv6: tuple[str, str] | None = None
    """The IPv6 subnet and address."""

    @property
    def subnets(self) -> frozenset[str]:
        """Return the subnets of both families."""
        return frozenset({self.subnet} if self.ipv6 is None else {self.subnet, self.ipv6[0]})

    @property
    def entries(self) -> frozenset[tuple[str, str]]:
        """Return the possible forwarding entries: one tunnel may carry both families."""
        addresses = {self.address} if self.ipv6 is None else {self.address, self.ipv6[1]}
        return frozenset((subnet, address) for subnet in self.subnets for address in addresses)


@dataclass(frozen=True, slots=True)
class PairSeen:
    """The result of one ping."""

    source: str
    destination: str
    answered: bool
    family: Family = 4


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """The result of one connection to a Service."""

    source: str
    """A pod."""
    service: str
    """Its name and port."""
    problem: str
    """Empty if the connection was accepted."""


@dataclass(frozen=True, slots=True)
class NameSeen:
    """The result of one query to the cluster's DNS."""

    source: str
    """A pod."""
    answered: bool


@dataclass(frozen=True, slots=True)
class JudgedLab:
    """The observed state of a whole lab."""

    network: str
    nodes: Sequence[JudgedNode]
    leases: Sequence[JudgedLease] | None
    """None if etcd did not answer."""
    small: Sequence[PairSeen]
    full: Sequence[PairSeen]
    full_size: int
    """Bytes of a whole packet."""
    nodes_are_connected: bool = True
    """False for backends that only share out subnets."""
    has_ipv6: bool = False
    """Whether pods also have IPv6 addresses."""
    services: Sequence[ServiceSeen] = ()
    """From a pod of each node; empty in a lab without Services."""
    etcd: Sequence[str] = ()
    """Its members."""
    shares_network: bool = False
    """Whether machines outside the lab may hold subnets too."""
    names: Sequence[NameSeen] = ()
    """From a pod of each node; empty in a lab without DNS."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check."""

    check: str
    holds: bool
    wrong: tuple[str, ...]
    """One line for each problem."""
    trace: str | None = None
    """Arguments of `testbed trace` for the first pair without a reply."""

    def line(self) -> CheckLine:
        """Return it in the form of the lab's answer."""
        return {"check": self.check, "holds": self.holds, "wrong": list(self.wrong), "trace": self.trace}


def judge(seen: JudgedLab) -> list[Verdict]:
    """Return every check, in the order in which people look."""
    sizes = {"small packets": seen.small, f"full-size packets ({seen.full_size} bytes)": seen.full}
    return [
        _verdict("agents", [f"{node.name}'s agent is not ready" for node in seen.nodes if not node.ready]),
        _verdict("leases", _leases(seen)),
        _verdict("forwarding tables", _forwarding(seen)),
        _verdict("routes", _routes(seen)),
        *(_pairs(f"every pair: {size}", pairs, 4) for size, pairs in sizes.items()),
        *(_pairs(f"every pair by IPv6: {size}", pairs, 6) for size, pairs in sizes.items() if seen.has_ipv6),
        *([_verdict("Services", _services(seen))] if seen.services else []),
        *([_verdict("names", _names(seen))] if seen.names else []),
    ]


def losses(seen: JudgedLab) -> list[Loss]:
    """Return between which places packets got lost, or would; None: with one place nothing is as it should be."""
    found: list[Loss] = [(pair.source, pair.destination) for pair in (*seen.small, *seen.full) if not pair.answered]
    found += [(one.source, None) for one in seen.services if one.problem]
    found += [(one.source, GATEWAY) for one in seen.names if not one.answered]
    if seen.leases is None:
        return [*found, *((name, None) for name in seen.etcd)]
    held = {lease.address for lease in seen.leases}
    return found + [(node.name, None) for node in seen.nodes if not node.ready or node.address not in held]


def _verdict(check: str, wrong: Sequence[str], trace: str | None = None) -> Verdict:
    shown = [*wrong[:SHOWN], *([f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])]
    return Verdict(check, not wrong, tuple(shown), trace)


def _leases(seen: JudgedLab) -> list[str]:
    if seen.leases is None:
        return ["etcd does not answer"]
    wrong = []
    for node in seen.nodes:
        count = sum(lease.address == node.address for lease in seen.leases)
        if count != 1:
            wrong.append(f"{node.name} holds {count or 'no'} lease{'s' if count > 1 else ''}")
    if seen.shares_network:
        return wrong
    known = {node.address for node in seen.nodes}
    return wrong + [
        f"{lease.subnet} is leased to {lease.address}, which is not a node"
        for lease in seen.leases
        if lease.address not in known
    ]


def _forwarding(seen: JudgedLab) -> list[str]:
    if seen.leases is None:
        return ["cannot compare: etcd does not answer"]
    wrong: list[str] = []
    for node in seen.nodes:
        others = [lease for lease in seen.leases if lease.address != node.address]
        if node.kernel_problems is not None:
            wrong += node.kernel_problems
        elif node.forwarding is None:
            wrong.append(f"{node.name}'s agent does not report its forwarding table")
        elif seen.nodes_are_connected and not _is_forwarded(node.forwarding, others):
            wrong.append(f"{node.name}'s forwarding table differs from etcd's leases")
    # Without a lease, no other node forwards to it.
    without = {node.name for node in seen.nodes} - {
        node.name for node in seen.nodes for lease in seen.leases if lease.address == node.address
    }
    return wrong + [f"no node forwards to {name}" for name in sorted(without)]


def _is_forwarded(entries: frozenset[tuple[str, str]], leases: Sequence[JudgedLease]) -> bool:
    """Report whether each subnet has one entry, which leads to its holder."""
    known = sorted(subnet for subnet, _ in entries)
    wanted = sorted(subnet for lease in leases for subnet in lease.subnets)
    return known == wanted and all(any(entry in lease.entries for lease in leases) for entry in entries)


def _routes(seen: JudgedLab) -> list[str]:
    leases = {lease.address: lease for lease in seen.leases or ()}
    wrong = []
    for node in seen.nodes:
        has_peers = seen.leases is None or any(lease.address != node.address for lease in seen.leases)
        if (
            node.device is not None
            and seen.nodes_are_connected
            and has_peers
            and not any(device == node.device for _, device in node.routes)
        ):
            wrong.append(f"{node.name}'s kernel has no route into the overlay")
        own = sorted(leases[node.address].subnets) if node.address in leases else ()
        wrong += [
            f"{node.name}'s kernel has no route to its own pods, {subnet}"
            for subnet in own
            if node.bridge is not None and (subnet, node.bridge) not in node.routes
        ]
    return wrong


def _services(seen: JudgedLab) -> list[str]:
    return [f"{one.source} -> Service {one.service}: {one.problem}" for one in seen.services if one.problem]


def _names(seen: JudgedLab) -> list[str]:
    return [f"{one.source}: no reply from the cluster's DNS" for one in seen.names if not one.answered]


def _pairs(check: str, pairs: Sequence[PairSeen], family: Family) -> Verdict:
    silent = [pair for pair in pairs if pair.family == family and not pair.answered]
    flag = "-6 " if family == 6 else ""
    trace = f"{flag}{silent[0].source} {silent[0].destination}" if silent else None
    return _verdict(check, [f"{pair.source} -> {pair.destination}: no reply" for pair in silent], trace)
