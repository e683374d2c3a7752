"""Which active faults can explain a loss of packets between two places of a lab. Pure.

`trace`, `check`, `status` and the ui name them, so that users do not search for a cause that the lab itself injected.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.control.answers.faults import FaultAnswer
from testbed.faults.catalogue import FaultRequest, parse

Loss = tuple[str, str | None]
"""Its two places: pods, nodes or other machines. None: unknown, as behind a Service."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The connections between the places of a lab."""

    machine_of: Mapping[str, str]
    """Place → the machine that its packets leave by."""
    cables: Collection[frozenset[str]]
    """The two ends of each."""
    routers: frozenset[str] = field(default_factory=frozenset)
    etcd: frozenset[str] = field(default_factory=frozenset)
    """Its members."""
    gateway: str = ""
    """The machine of the cluster's DNS."""

    def ends(self, loss: Loss) -> list[frozenset[str]]:
        """Return each known end by its own name and its machine's."""
        return [frozenset({place, self.machine_of.get(place, place)}) for place in loss if place is not None]

    def reached(self, start: frozenset[str], without: frozenset[str]) -> frozenset[str]:
        """Return everything that cables connect, without one cable."""
        found, new = start, start
        while new:
            ends = {end for cable in self.cables if cable != without and cable & new for end in cable}
            new = frozenset(ends - found)
            found |= new
        return found


def explain(faults: Sequence[FaultAnswer], losses: Iterable[Loss] | None, paths: Paths) -> list[str]:
    """Return a sentence for each active fault that can explain one of the losses; None: any loss."""
    known = None if losses is None else list(dict.fromkeys(losses))
    return [
        sentence(fault)
        for fault in faults
        if known is None or any(_explains(parse(fault["fault"].split()), loss, paths) for loss in known)
    ]


def sentence(fault: FaultAnswer) -> str:
    """Return `fault 1 (partition) is on: node1 / node2`."""
    name = parse(fault["fault"].split()).kind.name
    about = fault["fault"].removeprefix(name).strip()
    return f"fault {fault['number']} ({name}) is on" + (f": {about}" if about else "")


def _explains(fault: FaultRequest, loss: Loss, paths: Paths) -> bool:
    ends = paths.ends(loss)
    if fault.kind.loses == "machine":
        return any(str(fault.values[0]) in end for end in ends)
    if fault.kind.loses == "names":
        return any(paths.gateway in end for end in ends)
    if len(ends) > 1 and ends[0] & ends[1]:
        # There is neither a cable nor another machine between two pods of one machine.
        return False
    if fault.kind.loses == "cable":
        return _is_on_the_path(frozenset(map(str, fault.values[:2])), ends, paths)
    if fault.kind.loses == "sides":
        first, second = _sides(fault, paths)
        return _is_between(first, second, ends, paths) or _is_between(second, first, ends, paths)
    return False


def _is_on_the_path(cable: frozenset[str], ends: Sequence[frozenset[str]], paths: Paths) -> bool:
    """Return whether packets may cross a cable: it is the only connection, or one of several, and not a dead end."""
    if len(ends) < 2:
        return any(cable & end for end in ends)
    reached = paths.reached(ends[0], without=cable)
    return not reached & ends[1] or cable <= reached


def _sides(fault: FaultRequest, paths: Paths) -> tuple[frozenset[str], frozenset[str]]:
    first, second = (frozenset(side if isinstance(side, tuple) else ()) for side in (fault.values[0], fault.values[2]))
    return first, second or frozenset(end for cable in paths.cables for end in cable) - first


def _is_between(side: frozenset[str], other: frozenset[str], ends: Sequence[frozenset[str]], paths: Paths) -> bool:
    """Return whether one end is on one side, and the other end, a router, or all of etcd on the other.

    A node without etcd loses its lease, and then no node forwards to it.
    """
    if len(ends) < 2:
        return any(side & end for end in ends)
    between = paths.routers & other or (paths.etcd and paths.etcd <= other)
    return any(side & here and (other & there or between) for here, there in (ends, ends[::-1]))
