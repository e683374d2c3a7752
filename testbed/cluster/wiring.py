"""The cabling of the underlay: its machines, switches and cables as one value, and derived facts. Pure.

A Mininet topology and the `switches:` and `links:` of a cluster file both become a `Wiring`. A *segment* is a broadcast
domain: switches that are cabled together, or a cable without any switch. Routers connect segments.
"""

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

DURATION = re.compile(r"[0-9]+(\.[0-9]+)?(us|ms|s)")
"""A time in the form of tc and Mininet's TCLink: 10ms."""
NETEM_FIELDS = ("delay", "jitter", "loss")
"""Done by the kernel's netem queueing discipline; bandwidth needs only tbf."""


@dataclass(frozen=True, slots=True)
class Shaping:
    """A cable's difference from a perfect one, in each direction; the parameters of Mininet's TCLink."""

    bandwidth: float | None = None
    """Mbit/s."""
    delay: str | None = None
    """One way, such as 10ms."""
    jitter: str | None = None
    loss: float | None = None
    """Percent of packets."""
    max_queue_size: int | None = None
    """Packets."""

    @property
    def is_none(self) -> bool:
        """Return whether the cable is unshaped."""
        return self == Shaping()

    @property
    def netem(self) -> dict[str, str | float]:
        """Return the given parameters that need netem, by name."""
        given = {name: getattr(self, name) for name in NETEM_FIELDS}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Cable:
    """A link between two named objects."""

    first: str
    second: str
    shaping: Shaping = field(default_factory=Shaping)

    @property
    def ends(self) -> tuple[str, str]:
        """Return both names."""
        return self.first, self.second

    def __str__(self) -> str:
        return f"{self.first} - {self.second}"


@dataclass(frozen=True)
class Wiring:
    """The underlay without addresses. Gateway and etcd members are on the first switch; they are not listed here."""

    nodes: tuple[str, ...]
    switches: tuple[str, ...]
    cables: tuple[Cable, ...]
    routers: tuple[str, ...] = ()
    root: str | None = None
    """The root switch of the spanning tree; by default the first."""

    def renamed(self, nodes: Sequence[str]) -> "Wiring":
        """Return the same with other names for the nodes, in order."""
        names = dict(zip(self.nodes, nodes, strict=True))
        cables = tuple(
            Cable(names.get(c.first, c.first), names.get(c.second, c.second), c.shaping) for c in self.cables
        )
        return Wiring(tuple(nodes), self.switches, cables, self.routers, self.root)

    def with_node(self, name: str, switch: str) -> "Wiring":
        """Return the same with one more node, on a switch."""
        return Wiring((*self.nodes, name), self.switches, (*self.cables, Cable(name, switch)), self.routers, self.root)

    def without_node(self, name: str) -> "Wiring":
        """Return the same without a node and its cables."""
        nodes = tuple(node for node in self.nodes if node != name)
        cables = tuple(cable for cable in self.cables if name not in cable.ends)
        return Wiring(nodes, self.switches, cables, self.routers, self.root)

    @cached_property
    def segment_of_switch(self) -> Mapping[str, int]:
        """Return the number of each switch's segment; the first switch's is 0."""
        neighbours: dict[str, list[str]] = {switch: [] for switch in self.switches}
        for cable in self.cables:
            if cable.first in neighbours and cable.second in neighbours:
                neighbours[cable.first].append(cable.second)
                neighbours[cable.second].append(cable.first)
        found: dict[str, int] = {}
        count = 0
        for switch in self.switches:
            if switch in found:
                continue
            waiting = deque([switch])
            found[switch] = count
            while waiting:
                for other in neighbours[waiting.popleft()]:
                    if other not in found:
                        found[other] = count
                        waiting.append(other)
            count += 1
        return found

    @cached_property
    def segment_of_cable(self) -> tuple[int, ...]:
        """Return the number of each cable's segment; a cable without a switch is its own segment."""
        count = len(set(self.segment_of_switch.values()))
        numbers = []
        for cable in self.cables:
            switch = next((end for end in cable.ends if end in self.segment_of_switch), None)
            if switch is None:
                numbers.append(count)
                count += 1
            else:
                numbers.append(self.segment_of_switch[switch])
        return tuple(numbers)

    @cached_property
    def segment_count(self) -> int:
        """Return how many subnets the underlay has."""
        return 1 + max((*self.segment_of_switch.values(), *self.segment_of_cable), default=0)

    @cached_property
    def ports(self) -> Mapping[str, tuple[int, ...]]:
        """Return the segments on each node's and router's ports, in the order of the cables: port 0 is NAME-eth0."""
        found: dict[str, list[int]] = {name: [] for name in (*self.nodes, *self.routers)}
        for cable, segment in zip(self.cables, self.segment_of_cable, strict=True):
            for end in cable.ends:
                if end in found:
                    found[end].append(segment)
        return {name: tuple(segments) for name, segments in found.items()}

    def next_routers(self, origins: Collection[int], without: str | None = None) -> Mapping[int, tuple[int, str]]:
        """Return, for every segment beyond `origins`, the origin and first router of a path with the fewest routers.

        A router that asks for itself is excluded.
        """
        found: dict[int, tuple[int, str]] = {}
        waiting: deque[tuple[int, tuple[int, str] | None]] = deque((origin, None) for origin in origins)
        while waiting:
            segment, way = waiting.popleft()
            for router in self.routers:
                if router == without or segment not in self.ports[router]:
                    continue
                for other in self.ports[router]:
                    if other not in origins and other not in found:
                        found[other] = way or (segment, router)
                        waiting.append((other, found[other]))
        return found

    @cached_property
    def spare(self) -> frozenset[int]:
        """Return the indices in `cables` of those that close a loop of switches.

        The other cables are the tree that the spanning tree protocol chooses if all cables cost the same: the shortest
        path to the root; among equal ones by the first switch in `priorities`, then by the lower port.
        """
        order = self.priorities
        between = {number: cable for number, cable in enumerate(self.cables) if set(cable.ends) <= set(order)}
        tree: set[int] = set()
        reached: set[str] = set()
        for start in order:
            level = [] if start in reached else [start]
            reached.update(level)
            while level:
                children: list[str] = []
                for parent in sorted(level, key=order.__getitem__):
                    for number, cable in between.items():
                        child = cable.second if cable.first == parent else cable.first
                        if parent in cable.ends and child not in reached:
                            reached.add(child)
                            children.append(child)
                            tree.add(number)
                level = children
        return frozenset(between) - tree

    @cached_property
    def priorities(self) -> Mapping[str, int]:
        """Return the rank of each switch in the spanning tree's election; the root has 0."""
        first = self.root or (self.switches[0] if self.switches else None)
        order = sorted(self.switches, key=lambda switch: switch != first)
        return {switch: number for number, switch in enumerate(order)}

    def islands(self) -> tuple[tuple[str, ...], ...]:
        """Return the disconnected groups: a single one if all is connected, in the order of switches and nodes."""
        everything = (*self.switches, *self.routers, *self.nodes)
        neighbours: dict[str, list[str]] = {name: [] for name in everything}
        for cable in self.cables:
            neighbours[cable.first].append(cable.second)
            neighbours[cable.second].append(cable.first)
        seen: set[str] = set()
        return tuple(_reach(name, neighbours, seen) for name in everything if name not in seen)

    def shaped(self) -> Iterator[Cable]:
        """Return the cables that are not perfect."""
        return (cable for cable in self.cables if not cable.shaping.is_none)


def _reach(start: str, neighbours: Mapping[str, Sequence[str]], seen: set[str]) -> tuple[str, ...]:
    seen.add(start)
    found, waiting = [start], deque([start])
    while waiting:
        for other in neighbours[waiting.popleft()]:
            if other not in seen:
                seen.add(other)
                found.append(other)
                waiting.append(other)
    return tuple(found)
