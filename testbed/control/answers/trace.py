"""One traced packet: `trace -o json`."""

from typing import Literal, NotRequired, TypedDict

Leg = Literal["request", "reply", "error", "reply error", "data"]
Outcome = Literal["answered", "refused", "unreachable", "lost", "unanswered", "reply lost", "data lost", "not sent"]


class HopPacket(TypedDict):
    """One packet's header."""

    src: str
    dst: str
    ttl: int
    proto: str
    sport: int | None
    """Null without ports."""
    dport: int | None
    """Null without ports."""
    id: int
    """IPv4's identification; IPv6: 0."""
    length: int
    """Bytes, header included."""
    info: str
    """`SYN`, `echo request`, `port unreachable`, …"""


class HopHeaderField(TypedDict):
    """One field of a header."""

    name: str
    value: str
    offset: int
    """In the frame, in bytes."""
    length: int
    """In bytes."""


class HopLayer(TypedDict):
    """One header, or the payload."""

    name: str
    """`Ethernet`, `IPv4`, `IPv6`, `UDP`, `TCP`, `ICMP`, `VXLAN`, `WireGuard`, `encrypted`, `tag`, `payload`."""
    offset: int
    length: int
    depth: int
    """1 within the packet that an overlay carries."""
    fields: list[HopHeaderField]


class HopFrame(TypedDict):
    """The frame as it was seen."""

    length: int
    """In bytes."""
    hex: str
    """Its first 256 bytes."""
    layers: list[HopLayer]
    """From the outside in."""


class TraceHop(TypedDict):
    """The packet at one interface."""

    number: int
    """From 1."""
    leg: Leg
    """`error`: an ICMP message about the request; `data`: TCP's payload, only where it matters."""
    where: str
    """For people: `nginx eth0`, `node1 docker0`, `node1 uplink`, `s1 s1-eth1`."""
    node: str
    """Who has the interface: a pod, node, router or switch."""
    interface: str
    """Its real name: `node1-eth0`."""
    direction: Literal["in", "out"]
    """As the owner of the interface sees it."""
    at_us: float
    """Microseconds since the first hop; never smaller than the hop's before."""
    inner: HopPacket
    """The packet."""
    outer: HopPacket | None
    """What the overlay put around it; null where nothing is."""
    mtu: int | None
    """Of the interface, in bytes; null when it is gone."""
    why: str
    """One line: why it is here."""
    frame: NotRequired[HopFrame]
    """With `--raw` alone."""


TraceProbeAsTyped = TypedDict("TraceProbeAsTyped", {"from": str, "to": str})


class TraceProbe(TraceProbeAsTyped):
    """What was sent; `from` and `to` are as typed."""

    protocol: Literal["tcp", "udp", "icmp"]
    source: str | None
    source_port: int | None
    """Null for ICMP."""
    destination: str
    destination_port: int | None
    """Null for ICMP."""
    size: int
    """Payload bytes."""


class TraceLoss(TypedDict):
    """Where a lost packet was seen last."""

    where: str
    node: str
    interface: str
    direction: Literal["in", "out"]
    leg: Leg
    reason: str | None


class TracedFrame(TypedDict):
    """What was seen, for a capture file (`trace --pcap`)."""

    point: str
    at_ns: int
    out: bool
    ethernet: bool
    """Whether it begins with an Ethernet header."""
    frame: str
    """In hexadecimal digits."""


class TracePolicy(TypedDict):
    """A pod's network policies that the packet passed."""

    leg: Leg
    node: str
    pod: str
    direction: Literal["Ingress", "Egress"]
    isolated_by: list[str]
    """The policies that isolate the pod in this direction, as NAMESPACE/NAME."""
    allowed_by: list[str]
    """Those with a rule that fits; none for a reply, whose connection is known."""


class TraceAnswer(TypedDict):
    """[trace.md](trace.md) says how it is known."""

    probe: TraceProbe
    outcome: Outcome
    """Their meaning: [trace.md](trace.md)."""
    hops: list[TraceHop]
    """In the order in which they happened."""
    lost_at: TraceLoss | None
    """Null when nothing was lost."""
    reasons: list[str]
    """Why it got lost, the surest first."""
    policies: list[TracePolicy]
    """Network policies that it passed, in order; the one that dropped it is the first of `reasons`."""
    warnings: list[str]
    """What is wrong on the path although this probe passed: an interface that is too narrow for larger packets."""
    hints: list[str]
    """Verbs to type next, without `sudo testbed`; a comment behind `#` says what to type there."""
    drops: dict[str, dict[str, int]]
    """Agents' drop counters that moved meanwhile: `{"node1": {"no_route": 1}}`."""
    counters: dict[str, dict[str, int]]
    """Kernels' counters of lost packets that moved meanwhile, by place."""
    strays: list[TraceHop]
    """Hops of copies that a switch sent to machines that did not want them."""
    repeated: int
    """Sightings of packets that were sent again because no reply came."""
    unwatched: list[str]
    """Interfaces that could not be listened on, with the reason."""
    frames: NotRequired[list[TracedFrame]]
    """Where they were asked for; not in `-o json`."""
