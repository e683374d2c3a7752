"""Whether a lab is well: what is looked at, and a verdict that says what is wrong, not why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 8
"""Lines of one check; the rest is counted."""


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node, as it was found."""

    name: str
    address: str
    ready: bool
    """Whether its agent says so."""
    forwarding: frozenset[tuple[str, str]] | None
    """Subnet and address; None when the agent did not say."""
    routes: frozenset[tuple[str, str]]
    """Destination and device of the kernel's unicast routes."""
    device: str | None
    """The overlay device's name; None for a backend that has none."""
    bridge: str


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """One key of etcd."""

    subnet: str
    address: str


@dataclass(frozen=True, slots=True)
class PairSeen:
    """One ping."""

    source: str
    destination: str
    answered: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole lab."""

    network: str
    nodes: Sequence[NodeSeen]
    leases: Sequence[LeaseSeen] | None
    """None when etcd did not answer."""
    small: Sequence[PairSeen]
    full: Sequence[PairSeen]
    full_size: int
    """Bytes of a whole packet."""
    nodes_are_connected: bool = True
    """False for backends that only share out subnets."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check."""

    check: str
    holds: bool
    wrong: tuple[str, ...]
    """A line for everything that does not hold."""


def judge(seen: Seen) -> list[Verdict]:
    """Every check, in the order in which one looks."""
    size = f"full-size packets ({seen.full_size} bytes)"
    return [
        _verdict(
            "agents", [f"{node.name}: its agent does not say that it is ready" for node in seen.nodes if not node.ready]
        ),
        _verdict("leases", _leases(seen)),
        _verdict("forwarding tables", _forwarding(seen)),
        _verdict("routes", _routes(seen)),
        _verdict("every pair: small packets", _pairs(seen.small, "no answer")),
        _verdict(f"every pair: {size}", _pairs(seen.full, "no answer")),
    ]


def _verdict(check: str, wrong: Sequence[str]) -> Verdict:
    shown = [*wrong[:SHOWN], *([f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])]
    return Verdict(check, not wrong, tuple(shown))


def _leases(seen: Seen) -> list[str]:
    if seen.leases is None:
        return ["etcd does not answer"]
    wrong = []
    for node in seen.nodes:
        count = sum(lease.address == node.address for lease in seen.leases)
        if count != 1:
            wrong.append(f"{node.name} holds {count or 'no'} lease{'s' if count > 1 else ''}")
    known = {node.address for node in seen.nodes}
    return wrong + [
        f"{lease.subnet} is leased to {lease.address}, which is no node"
        for lease in seen.leases
        if lease.address not in known
    ]


def _forwarding(seen: Seen) -> list[str]:
    if seen.leases is None:
        return ["nothing to compare with: etcd does not answer"]
    wrong = []
    for node in seen.nodes:
        wanted = {(lease.subnet, lease.address) for lease in seen.leases if lease.address != node.address}
        if node.forwarding is None:
            wrong.append(f"{node.name}'s agent does not say what it forwards")
        elif seen.nodes_are_connected and node.forwarding != wanted:
            wrong.append(f"{node.name} does not forward as etcd's leases say")
    # A node that nobody has a lease of is forwarded to by nobody.
    without = {node.name for node in seen.nodes} - {
        node.name for node in seen.nodes for lease in seen.leases if lease.address == node.address
    }
    return wrong + [f"nobody forwards to {name}" for name in sorted(without)]


def _routes(seen: Seen) -> list[str]:
    leases = {lease.address: lease.subnet for lease in seen.leases or ()}
    wrong = []
    for node in seen.nodes:
        if (
            node.device is not None
            and seen.nodes_are_connected
            and not any(device == node.device for _, device in node.routes)
        ):
            wrong.append(f"{node.name}'s kernel has no route into the overlay")
        own = leases.get(node.address)
        if own is not None and (own, node.bridge) not in node.routes:
            wrong.append(f"{node.name}'s kernel has no route to its own pods, {own}")
    return wrong


def _pairs(pairs: Sequence[PairSeen], what: str) -> list[str]:
    return [f"{pair.source} -> {pair.destination}: {what}" for pair in pairs if not pair.answered]
