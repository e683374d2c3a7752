"""The ports at which one end reaches another: every port, in ranges with the same answer. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.cluster.free_values import LAST_PORT
from testbed.cluster.network_policy import PolicyPort
from testbed.policies.evaluate import PolicyVerdict, evaluate
from testbed.policies.world import DIRECTIONS, PROTOCOLS, End, Protocol, World

WITHOUT_PORTS = "other protocols"


@dataclass(frozen=True, slots=True)
class PortSpan:
    """A range of ports of one protocol; without ports: protocols that have none."""

    protocol: Protocol
    first: int = 0
    last: int = LAST_PORT

    def __str__(self) -> str:
        if self.protocol == "icmp":
            return WITHOUT_PORTS
        if (self.first, self.last) == (0, LAST_PORT):
            return f"*/{self.protocol}"
        return f"{self.first}{'' if self.first == self.last else f'-{self.last}'}/{self.protocol}"


EVERYTHING = (PortSpan("tcp"), PortSpan("udp"), PortSpan("sctp"), PortSpan("icmp"))


@dataclass(frozen=True, slots=True)
class PortAnswer:
    """Ports with the same answer."""

    spans: tuple[PortSpan, ...]
    verdict: PolicyVerdict
    """The verdict of any of them."""

    @property
    def is_one_port(self) -> bool:
        """Return whether it is a single port."""
        return len(self.spans) == 1 and self.spans[0].first == self.spans[0].last

    @property
    def ports(self) -> list[str]:
        """Format ports for people: `all`, `8080/tcp`, `53-60/udp`, `*/sctp`."""
        return written(self.spans)


def port_answers(world: World, source: End, target: End) -> list[PortAnswer]:
    """Return the answers for all ports between two ends, those that pass first."""
    found: dict[tuple[object, ...], tuple[list[PortSpan], PolicyVerdict]] = {}
    for span in spans_of([world]):
        port = None if span.protocol == "icmp" else span.first
        verdict = evaluate(world, source, target, span.protocol, port)
        decisions = (verdict.egress, verdict.ingress)
        key = (verdict.allowed, *(one and (one.allowed, one.allowed_by) for one in decisions))
        found.setdefault(key, ([], verdict))[0].append(span)
    answers = [PortAnswer(tuple(joined(spans)), verdict) for spans, verdict in found.values()]
    return sorted(answers, key=lambda one: not one.verdict.allowed)


def passing(answers: Iterable[PortAnswer]) -> list[str]:
    """Return the ports that pass, formatted for people; `all`, or none."""
    spans = sorted((span for one in answers if one.verdict.allowed for span in one.spans), key=_place)
    return written(joined(spans))


def written(spans: Sequence[PortSpan]) -> list[str]:
    """Format ports for people; `all` if none is missing."""
    return ["all"] if tuple(spans) == EVERYTHING else list(map(str, spans))


def _place(span: PortSpan) -> tuple[int, int]:
    return [one.protocol for one in EVERYTHING].index(span.protocol), span.first


def spans_of(worlds: Iterable[World]) -> Iterator[PortSpan]:
    """Yield all ports in the smallest number of ranges within which no rule of these worlds differs."""
    edges: dict[Protocol, set[int]] = {"tcp": {0}, "udp": {0}, "sctp": {0}}
    for world in worlds:
        named = set()
        for port in _ports(world):
            if isinstance(port.port, int):
                edges[PROTOCOLS[port.protocol]] |= {port.port, (port.end_port or port.port) + 1}
            elif port.port is not None:
                named.add(port.port)
        for own in (one for pod in world.pods for one in pod.ports if one.name in named):
            edges[own.protocol] |= {own.number, own.number + 1}
    for protocol, starts in edges.items():
        inside = sorted(start for start in starts if start <= LAST_PORT)
        for first, following in zip(inside, [*inside[1:], LAST_PORT + 1], strict=True):
            yield PortSpan(protocol, first, following - 1)
    yield PortSpan("icmp")


def _ports(world: World) -> Iterator[PolicyPort]:
    for policy in world.policies:
        for direction in DIRECTIONS:
            for rule in policy.rules(direction):
                yield from rule.ports


def joined(spans: Sequence[PortSpan]) -> list[PortSpan]:
    """Merge adjacent ranges."""
    found: list[PortSpan] = []
    for span in spans:
        before = found[-1] if found else None
        if before is not None and before.protocol == span.protocol and before.last + 1 == span.first:
            found[-1] = PortSpan(span.protocol, before.first, span.last)
        else:
            found.append(span)
    return found


def reachable(world: World, pairs: Iterable[tuple[End, End]]) -> dict[tuple[str, str], list[str]]:
    """Return the ports that pass from each sender to its receiver, by their names; not between pods of one address."""
    return {
        (str(source), str(target)): passing(port_answers(world, source, target))
        for source, target in pairs
        if source.address != target.address
    }
