"""One trace from beginning to end: open the sockets, send, watch, report."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from agent.kernel.values import Family, IPAddress, IPNetwork
from testbed.capture.map import LAB, Map, map_of
from testbed.cluster.kinds import SERVICE
from testbed.cluster.object_key import DEFAULT_NAMESPACE, key_of
from testbed.control.answers.trace import TraceAnswer, TracedFrame, TraceLoss, TraceProbe
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.state import LabState
from testbed.policies.policies import Policies
from testbed.services.services import Services
from testbed.spelling import listed
from testbed.trace.evidence import Counters, Evidence
from testbed.trace.facts import Facts
from testbed.trace.former_flows import forget_former
from testbed.trace.hops import hop_list, narrow_places
from testbed.trace.order import in_order
from testbed.trace.packet_filter import probe_filters
from testbed.trace.policy_words import PolicyWords, passed_words
from testbed.trace.recognise import Protocol, Recogniser, Role
from testbed.trace.sealed import match_encrypted
from testbed.trace.suspects import Finding, Suspects
from testbed.trace.timeline import Step, Timeline, build_timeline
from testbed.trace.traced_packet import TracedPacket, WantedPacket
from testbed.trace.verdict import TraceVerdict, judge
from testbed.trace.watch import PacketWatch, Sighting

ANSWER_LIMIT_S = 1.0


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """The parameters of a trace."""

    source: str
    destination: str
    protocol: Protocol
    source_port: int | None = None
    destination_port: int | None = None
    size: int | None = None
    """Payload bytes; None: the minimum."""
    timeout_s: float = ANSWER_LIMIT_S
    namespace: str = DEFAULT_NAMESPACE
    """Namespace for names."""
    ipv6: bool = False
    """Names mean their IPv6 addresses."""
    with_frames: bool = False
    """Whether the answer includes the captured frames, for a capture file."""
    with_headers: bool = False
    """Whether each hop includes its frame, header by header, for pictures."""


LOOPBACK: Mapping[Family, IPAddress] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
HOW_TO_HAVE_ONE = {4: "want one of a Service's pods, or wait for a pod's", 6: "want a network with EnableIPv6"}
LONGEST_HEADERS = 576 + 28
"""Bytes around a probe's payload, or of an ICMP error about it, which quotes it (RFC 1812 §4.3.2.3)."""
ARRIVED = frozenset({"answered", "refused"})
"""Outcomes without a loss."""
Explained = Callable[[Sequence[tuple[str, str | None]]], list[str]]
"""Returns the active faults that can explain a loss between these places (testbed.faults.explain)."""
DEFAULT_SIZE = {"tcp": 1, "udp": 16, "icmp": 56}


def trace(
    state: LabState,
    services: Services,
    policies: Policies,
    asked: TraceRequest,
    explained: Explained,
    client_left: Callable[[float], bool],
) -> TraceAnswer:
    """Send one probe and return its path, as JSON (docs/trace.md).

    Raises TestbedError for unknown names. `client_left` returns whether the client has left, which ends the wait for a
    reply.
    """
    known = map_of(state)
    asked = _in_namespace(asked, known, services)
    place = known.place_of.get(asked.source)
    if place is None:
        there = listed(sorted(known.place_of.keys() - {LAB}), asked.source)
        raise TestbedError(f"no pod or node named {asked.source} (there are: {there})")
    destination = _address(state, services, known, asked)
    size = DEFAULT_SIZE[asked.protocol] if asked.size is None else asked.size
    wanted = WantedPacket(asked.protocol, destination, asked.destination_port, asked.source_port, size)
    pid = known.pid(place)
    assert pid is not None  # only the lab's own place has none, and no pod or node has its name
    try:
        probe = TracedPacket(pid, wanted)
    except OSError as failure:
        port = "" if asked.source_port is None else f"source port {asked.source_port}: "
        raise TestbedError(f"trace {asked.source}: {port}{failure.strerror or failure}") from failure
    evidence = Evidence(state.nodes, known)
    forget_former(state.nodes, known, place, probe)
    try:
        watch, timeline, mtus = _sent(probe, known, evidence, asked.timeout_s, client_left)

        def another() -> TracedPacket:
            # Only then is a port chosen by the user free again.
            probe.close()
            return TracedPacket(pid, wanted)

        verdict = judge(timeline, probe.outcome, probe.unacknowledged(), known)
        with Facts(known, state.nodes, state.underlay, services, another, state.seen_in_kernel) as facts:
            shown = _shown(timeline, with_data=verdict.outcome == "data lost" or size > 1)
            words = PolicyWords(policies.world())
            hops = hop_list(shown, known, facts, mtus, with_headers=asked.with_headers)
            passed = words.passed(shown)
            for number, policy in passed:
                hops[number]["why"] += f"; {passed_words(policy)}"
            sent = _probe_json(asked, probe, destination, size)
            network = state.network.network if destination.version == 4 else state.network.ipv6_network
            found = _findings(verdict, timeline, probe, place, known, facts, evidence, network, words)
            if verdict.outcome not in ARRIVED:
                _name_faults(found.finding, explained([(asked.source, _far_end(timeline, known, asked, destination))]))
            answer: TraceAnswer = {
                "probe": sent,
                "outcome": verdict.outcome,
                "hops": hops,
                "lost_at": _lost_json(verdict.lost, found.finding, known),
                "reasons": found.finding.reasons,
                "policies": [policy for _, policy in passed],
                "warnings": narrow_places(hops),
                "hints": found.finding.hints,
                "drops": found.drops,
                "counters": found.kernels,
                "strays": hop_list(timeline.strays, known, facts, mtus),
                "repeated": timeline.again,
                "unwatched": watch.missed,
            }
    finally:
        probe.close()
    if asked.with_frames:
        answer["frames"] = _frames(watch, known)
    return answer


def _sent(
    probe: TracedPacket, known: Map, evidence: Evidence, timeout_s: float, client_left: Callable[[float], bool]
) -> tuple[PacketWatch, Timeline, dict[tuple[str, str], int | None]]:
    """Send the probe and wait for its end; return what was seen of it, and the MTUs of the interfaces on its path."""
    programs = probe_filters(probe.mark, known.overlay, probe.wanted.size + LONGEST_HEADERS)
    with PacketWatch(known.places, programs, known.overlay) as watch:
        evidence.before()
        probe.send()
        until = time.monotonic() + timeout_s
        watch.collect(lambda: probe.settled() or client_left(0), until, also=(probe.fileno(),))
        timeline = _timeline(watch, known, probe)
        return watch, timeline, {step.end: watch.mtu(*step.end) for step in (*timeline.steps, *timeline.strays)}


def _frames(watch: PacketWatch, known: Map) -> list[TracedFrame]:
    """Return the captured frames, for a capture file; the client writes it, since it may write where the
    lab may not.
    """
    sightings = _sightings(watch, known)
    labels = {(known.node_name(one.place, one.interface), one.interface) for one in sightings}
    points = {
        (node, interface): f"{node}:{'uplink' if node in known.nodes and interface == f'{node}-eth0' else interface}"
        for node, interface in labels
    }
    # Several packets from one frame count as one frame.
    frames = {(one.place, one.number, one.frame): one for one in sightings}
    return [
        {
            "point": points[known.node_name(one.place, one.interface), one.interface],
            "at_ns": one.at_ns,
            "out": one.outgoing,
            "ethernet": one.link_header > 0,
            "frame": (one.frame if one.sealed is None else one.sealed).hex(),
        }
        for one in frames.values()
    ]


def _shown(timeline: Timeline, *, with_data: bool) -> list[Step]:
    # The byte after TCP's handshake takes the same path as the handshake, unless its arrival is in question.
    return [step for step in timeline.steps if step.role is not Role.DATA or with_data]


@dataclass(frozen=True, slots=True)
class _Found:
    """Why a probe did not arrive, and which counters increased meanwhile."""

    finding: Finding = field(default_factory=Finding)
    drops: dict[str, Counters] = field(default_factory=dict)
    kernels: dict[str, Counters] = field(default_factory=dict)


def _findings(
    verdict: TraceVerdict,
    timeline: Timeline,
    probe: TracedPacket,
    place: str,
    known: Map,
    facts: Facts,
    evidence: Evidence,
    pod_network: IPNetwork | None,
    words: PolicyWords,
) -> _Found:
    if verdict.outcome in ARRIVED:
        return _Found()
    drops, kernels = evidence.drops(), evidence.kernels()
    suspects = Suspects(known, facts, drops, kernels, words, pod_network)
    finding = Finding()
    if verdict.lost is not None:
        about = Role.REPLY_ERROR if verdict.lost.role is Role.REPLY else Role.ERROR
        finding = suspects.about(verdict.lost, timeline.leg(about), timeline.leg(verdict.lost.role))
    elif verdict.outcome == "not sent":
        finding = suspects.about_sender(place, probe.wanted.destination, probe.outcome)
    return _Found(finding, drops, kernels)


def _far_end(timeline: Timeline, known: Map, asked: TraceRequest, destination: IPAddress) -> str | None:
    """Return the request's destination: behind a Service, the pod that its rules chose; None while none is chosen."""
    if asked.destination in known.place_of:
        return asked.destination
    chosen = [step.inner.header.destination for step in timeline.leg(Role.REQUEST)]
    return known.addresses.get(chosen[-1] if chosen else destination)


def _name_faults(finding: Finding, faults: Sequence[str]) -> None:
    """Insert the faults that can explain a loss after its surest reason, and their healing after the first hint."""
    finding.reasons[1:1] = faults
    if faults:
        finding.hints.insert(1, "fault heal")


def _lost_json(lost: Step | None, finding: Finding, known: Map) -> TraceLoss | None:
    if lost is None:
        return None
    return {
        "where": known.where(*lost.end),
        "node": known.node_name(*lost.end),
        "interface": lost.sighting.interface,
        "direction": "out" if lost.sighting.outgoing else "in",
        "leg": lost.role.leg,
        "reason": finding.reasons[0] if finding.reasons else None,
    }


def _timeline(watch: PacketWatch, known: Map, probe: TracedPacket) -> Timeline:
    ordered = in_order(_sightings(watch, known), known.cables)
    ports = frozenset(known.switch_ports) | {
        interface for place, interface in known.cables if place in known.nodes and not interface.startswith(place)
    }
    return build_timeline(ordered, Recogniser(probe.mark), known.cables, ports)


def _sightings(watch: PacketWatch, known: Map) -> list[Sighting]:
    return match_encrypted(list(watch.sightings()), known.overlay, known.overlay_devices)


def _in_namespace(asked: TraceRequest, known: Map, services: Services) -> TraceRequest:
    """Return the same with unique names of its ends."""
    kind, slash, rest = asked.destination.partition("/")
    key = key_of(asked.destination, asked.namespace)
    destination = known.in_namespace(asked.destination, asked.namespace)
    if slash and kind in SERVICE.words:
        destination = f"{kind}/{key_of(rest, asked.namespace)}"
    elif destination not in known.place_of and key in services.numbered:
        destination = str(key)
    return replace(asked, source=known.in_namespace(asked.source, asked.namespace), destination=destination)


def _address(state: LabState, services: Services, known: Map, asked: TraceRequest) -> IPAddress:
    with contextlib.suppress(ValueError):
        address = ip_address(asked.destination)
        if asked.ipv6 and address.version == 4:
            raise InvalidInput(f"trace -6: not an IPv6 address (got {address}; want one, or a name)")
        return address
    family: Family = 6 if asked.ipv6 else 4
    own = _address_of_name(state, services, known, asked.destination, family)
    if own is None:
        raise TestbedError(f"{asked.destination} has no IPv{family} address ({HOW_TO_HAVE_ONE[family]})")
    return own


def _address_of_name(
    state: LabState, services: Services, known: Map, destination: str, family: Family
) -> IPAddress | None:
    """Return the address of a name; None if it has none. Raises TestbedError for an unknown name."""
    if destination == "localhost":
        return LOOPBACK[family]
    kind, slash, rest = destination.partition("/")
    is_service = bool(slash) and kind in SERVICE.words
    name = rest if is_service else destination
    service = services.numbered.get(key_of(name))
    if service is not None and (is_service or name not in known.place_of):
        return service.address_of(family)
    if is_service:
        raise TestbedError(f"no service {name} (there are: {listed(sorted(map(str, services.numbered)), name)})")
    pod = state.pods.named(destination)
    if pod is not None:
        text = pod.address if family == 4 else pod.ipv6_address
        return None if text is None else ip_address(text)
    machine = state.underlay.plan.machines.get(destination)
    if machine is not None:
        port = machine.ports[0]
        interface = port.address if family == 4 else port.ipv6
        return None if interface is None else interface.ip
    there = listed(sorted(known.place_of.keys() - {LAB}), destination)
    raise TestbedError(f"no pod, node or address {destination} (there are: {there})")


def _probe_json(asked: TraceRequest, probe: TracedPacket, destination: IPAddress, size: int) -> TraceProbe:
    source = probe.source
    return {
        "protocol": asked.protocol,
        "from": asked.source,
        "to": asked.destination,
        "source": None if source.is_unspecified else str(source),
        "source_port": probe.source_port,
        "destination": str(destination),
        "destination_port": asked.destination_port,
        "size": size,
    }
