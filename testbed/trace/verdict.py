"""The result of a probe. Pure."""

from dataclasses import dataclass

from testbed.capture.map import Map
from testbed.control.answers.trace import Outcome
from testbed.trace.recognise import Role
from testbed.trace.timeline import Step, Timeline


@dataclass(frozen=True, slots=True)
class TraceVerdict:
    """The result of a probe before its causes are investigated."""

    outcome: Outcome
    """See docs/trace.md."""
    lost: Step | None = None
    """The last sighting of the packet that did not arrive."""


def judge(timeline: Timeline, said: str | None, unacknowledged: int, known: Map) -> TraceVerdict:
    """Judge the probe; `said`: the sender's kernel's result (`Probe.outcome`); `unacknowledged`: payload bytes in
    flight.
    """
    request, reply, data = timeline.leg(Role.REQUEST), timeline.leg(Role.REPLY), timeline.leg(Role.DATA)
    if said == "answered":
        return TraceVerdict("data lost", _last(data) or _last(request)) if unacknowledged else TraceVerdict("answered")
    delivered = any(is_delivered(step, known) for step in request)
    # A packet filter on the path refuses in the destination's name.
    if said == "refused" and delivered:
        return TraceVerdict("refused")
    if not request:
        return TraceVerdict("not sent")
    if said == "refused" or timeline.leg(Role.ERROR):
        return TraceVerdict("unreachable", _last(request))
    if not delivered:
        return TraceVerdict("lost", _last(request))
    if not reply:
        return TraceVerdict("unanswered", _last(request))
    return TraceVerdict("reply lost", _last(reply))


def is_delivered(step: Step, known: Map) -> bool:
    """Report whether the packet has reached the machine with its destination address."""
    destination = step.inner.header.destination
    mine = known.addresses.get(destination) == step.sighting.place
    return not step.sighting.outgoing and step.outer is None and (mine or destination.is_loopback)


def _last(steps: list[Step]) -> Step | None:
    return steps[-1] if steps else None
