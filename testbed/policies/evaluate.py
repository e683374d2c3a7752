"""Evaluates policies for a connection without sending it. Pure.

client ── egress of client ──> … ── ingress of tomcat ──> tomcat:8080
"""

from dataclasses import dataclass

from testbed.cluster.network_policy import Direction, NetworkPolicy, Peer, PolicyPort
from testbed.policies.world import PROTOCOLS, End, PolicyPod, Protocol, World, names_of


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of one pod's policies in one direction."""

    direction: Direction
    pod: str
    isolated_by: tuple[str, ...]
    """The policies that select the pod; none: everything passes."""
    allowed_by: tuple[str, ...]
    """Those of them with a matching rule."""

    @property
    def allowed(self) -> bool:
        """Return whether the packet passes."""
        return not self.isolated_by or bool(self.allowed_by)

    def __str__(self) -> str:
        what = f"{self.direction.lower()} of {self.pod}"
        if not self.isolated_by:
            return f"{what}: no policy"
        names = _listed(self.allowed_by or self.isolated_by)
        return f"{what}: {'allowed' if self.allowed_by else 'denied'} by {names}"


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """The result of all policies for one connection."""

    source: End
    target: End
    protocol: Protocol
    port: int | None
    egress: Decision | None
    """None: the source is not a pod, or policies do not apply between the two."""
    ingress: Decision | None
    always: str = ""
    """Why policies never apply between the two."""

    @property
    def denied_by(self) -> Decision | None:
        """Return the first decision that denies it; None: it passes."""
        return next((one for one in (self.egress, self.ingress) if one is not None and not one.allowed), None)

    @property
    def allowed(self) -> bool:
        """Return whether it passes."""
        return self.denied_by is None

    @property
    def connection(self) -> str:
        """Return `client → tomcat:8080`, with the protocol if it is not TCP."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.source} → {self.target}{port}{'' if self.protocol == 'tcp' else f' ({self.protocol})'}"

    def __str__(self) -> str:
        denied = self.denied_by
        if denied is not None:
            return f"denied by {denial(denied.isolated_by, denied.direction, denied.pod, self.connection)}"
        if self.always:
            return f"allowed: {self.always}"
        by = [
            f"{one.direction.lower()} {'policy' if len(one.allowed_by) == 1 else 'policies'} {_listed(one.allowed_by)}"
            for one in (self.egress, self.ingress)
            if one is not None and one.allowed_by
        ]
        return f"allowed by {' and '.join(by)}" if by else "allowed: no policy applies to it"


def denial(names: tuple[str, ...], direction: Direction, pod: str, connection: str) -> str:
    """Describe a denial: `policy default/deny (ingress of tomcat): no rule allows client → tomcat:8080`."""
    by = f"{'policy' if len(names) == 1 else 'policies'} {_listed(names)}"
    return f"{by} ({direction.lower()} of {pod}): no rule allows {connection}"


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def evaluate(world: World, source: End, target: End, protocol: Protocol, port: int | None) -> PolicyVerdict:
    """Evaluate a new connection; `port` None means a protocol without ports."""
    always = _always(world, source, target)
    sender = None if always or source.pod is None else source.pod
    receiver = None if always or target.pod is None else target.pod
    egress = decide(world, sender, "Egress", target, protocol, port) if sender else None
    ingress = decide(world, receiver, "Ingress", source, protocol, port) if receiver and receiver.node else None
    return PolicyVerdict(source, target, protocol, port, egress, ingress, always)


def _always(world: World, source: End, target: End) -> str:
    if source.address == target.address:
        return "a pod always reaches itself"
    for pod, other in ((target.pod, source), (source.pod, target)):
        if pod is not None and other.pod is None and other.address in world.node_addresses.get(pod.node, ()):
            return f"{pod.node} and its own pods always reach each other"
    return ""


def decide(
    world: World, pod: PolicyPod, direction: Direction, other: End, protocol: Protocol, port: int | None
) -> Decision:
    """Evaluate the policies of `pod` for a connection with `other` at the far end."""
    isolating = world.isolating(pod, direction)
    receiver = pod if direction == "Ingress" else other.pod
    fitting = [one for one in isolating if _fits(world, one, direction, other, protocol, port, receiver)]
    return Decision(direction, str(pod.key), names_of(isolating), names_of(fitting))


def _fits(
    world: World,
    policy: NetworkPolicy,
    direction: Direction,
    other: End,
    protocol: Protocol,
    port: int | None,
    receiver: PolicyPod | None,
) -> bool:
    return any(
        (not rule.peers or any(_is_peer(world, policy, one, other) for one in rule.peers))
        and (not rule.ports or any(_is_port(one, protocol, port, receiver) for one in rule.ports))
        for rule in policy.rules(direction)
    )


def _is_peer(world: World, policy: NetworkPolicy, peer: Peer, other: End) -> bool:
    if peer.ip_block is not None:
        inside = other.address in peer.ip_block.network
        return inside and not any(other.address in one for one in peer.ip_block.excluded)
    return other.pod is not None and world.selects(policy, peer, other.pod)


def _is_port(wanted: PolicyPort, protocol: Protocol, port: int | None, receiver: PolicyPod | None) -> bool:
    if port is None or PROTOCOLS[wanted.protocol] != protocol:
        return False
    if wanted.port is None:
        return True
    if isinstance(wanted.port, str):
        return receiver is not None and receiver.number_of(wanted.port, protocol) == port
    return wanted.port <= port <= (wanted.end_port or wanted.port)
