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
    """The captured frame."""

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
    """`error`: an ICMP message about the request; `data`: TCP's payload, only if it matters."""
    where: str
    """For people: `nginx eth0`, `node1 docker0`, `node1 uplink`, `s1 s1-eth1`."""
    node: str
    """The owner of the interface: a pod, node, router or switch."""
    interface: str
    """Its real name: `node1-eth0`."""
    direction: Literal["in", "out"]
    """From the view of the interface's owner."""
    at_us: float
    """Microseconds since the first hop; never decreasing."""
    inner: HopPacket
    """The packet."""
    outer: HopPacket | None
    """The overlay's outer headers; null if there are none."""
    mtu: int | None
    """Of the interface, in bytes; null if it is gone."""
    why: str
    """One line: the reason for this hop."""
    frame: NotRequired[HopFrame]
    """Only with `--raw`."""


TraceProbeAsTyped = TypedDict("TraceProbeAsTyped", {"from": str, "to": str})


class TraceProbe(TraceProbeAsTyped):
    """The packet that was sent; `from` and `to` are as typed."""

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
    """Where a lost packet was last seen."""

    where: str
    node: str
    interface: str
    direction: Literal["in", "out"]
    leg: Leg
    reason: str | None


class TracedFrame(TypedDict):
    """A captured frame, for a capture file (`trace --pcap`)."""

    point: str
    at_ns: int
    out: bool
    ethernet: bool
    """Whether it starts with an Ethernet header."""
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
    """Those with a matching rule; none for a reply, whose connection is known."""


class TraceAnswer(TypedDict):
    """[trace.md](trace.md) explains how it is determined."""

    probe: TraceProbe
    outcome: Outcome
    """For their meaning see [trace.md](trace.md)."""
    hops: list[TraceHop]
    """In chronological order."""
    lost_at: TraceLoss | None
    """Null when nothing was lost."""
    reasons: list[str]
    """Reasons for the loss, the surest first."""
    policies: list[TracePolicy]
    """Network policies that it passed, in order; the one that dropped it is the first of `reasons`."""
    warnings: list[str]
    """Problems on the path that did not affect this probe: an interface that is too narrow for larger packets."""
    hints: list[str]
    """Verbs to type next, without `sudo testbed`; a comment after `#` is the command to type there."""
    drops: dict[str, dict[str, int]]
    """Agents' drop counters that increased meanwhile: `{"node1": {"no_route": 1}}`."""
    counters: dict[str, dict[str, int]]
    """Kernels' counters of lost packets that increased meanwhile, by place."""
    strays: list[TraceHop]
    """Hops of copies that a switch sent to other machines."""
    repeated: int
    """Sightings of packets that were retransmitted because no reply came."""
    unwatched: list[str]
    """Interfaces that could not be captured, with the reason."""
    frames: NotRequired[list[TracedFrame]]
    """If requested; not in `-o json`."""
