"""The outcome of a probe: what its sender's kernel reports, and how far the request was seen to come."""

from ipaddress import IPv4Address

from testbed.capture.headers import NO_OVERLAY, unwrap
from testbed.capture.map import Map
from testbed.trace.recognise import Role
from testbed.trace.timeline import Step, Timeline
from testbed.trace.verdict import TraceVerdict, judge
from testbed.trace.watch import Sighting
from tests.packets import ipv4, tcp

POD, CLUSTER_IP = "10.0.2.2", "10.96.0.80"
KNOWN = Map((), {}, {}, {IPv4Address(POD): "pod"}, NO_OVERLAY, "", frozenset(), {})


def step(place: str, direction: str, destination: str = POD, role: Role = Role.REQUEST) -> Step:
    packet = ipv4("10.0.1.2", destination, tcp(1, ports=(5, 80)), protocol=6)
    (wrapped,) = unwrap(packet, 0, NO_OVERLAY)
    return Step(role, Sighting(place, 0, 0, "eth0", direction == "out", False, 1, packet, 0, wrapped))


def refused(*steps: Step) -> TraceVerdict:
    """Judge a probe whose sender got a TCP reset, or ICMP's port unreachable."""
    return judge(Timeline(list(steps)), "refused", 0, KNOWN)


def test_a_probe_that_arrived_and_was_refused_is_refused() -> None:
    reset = step("pod", "out", role=Role.REPLY)
    assert refused(step("client", "out"), step("pod", "in"), reset) == TraceVerdict("refused")


def test_a_probe_that_was_refused_on_its_path_did_not_arrive() -> None:
    last = step("node1", "in", CLUSTER_IP)
    reset = step("node1", "out", role=Role.REPLY)
    assert refused(step("client", "out", CLUSTER_IP), last, reset) == TraceVerdict("unreachable", last)


def test_a_probe_that_its_own_machine_refused_was_not_sent() -> None:
    assert refused(step("node1", "in", role=Role.REPLY)) == TraceVerdict("not sent")
