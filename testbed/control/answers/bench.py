"""Measurements: `bench -o json`, `bench scale -o json`, and a lab's answers to them."""

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

MetricValues = Mapping[str, float]
"""Metric → number."""


class MeasuredMachine(TypedDict):
    """The measuring machine."""

    processors: int
    model: str
    kernel: str


class MeasuredPathLine(TypedDict):
    """One path."""

    name: str
    """For a path of `--backends`: `BACKEND-backend`."""
    description: str


class BenchMetric(TypedDict):
    """One metric."""

    name: str
    """Ends with the unit of the values."""
    title: str
    unit: str
    """The printed unit."""
    scale: float
    """Value / scale is in that unit."""
    better: Literal["higher", "lower"]


class BenchRound(TypedDict):
    """One round through all paths."""

    number: int
    load: float
    """Average of the minute before."""
    counts: bool
    why_not: str | None
    """Why it does not count."""
    values: Mapping[str, MetricValues]
    """By path.

    Values that a path does not have are omitted: agents have processor time only if packets pass through
    them. Latency is half of a round trip.
    """


class BenchFailure(TypedDict):
    """A measurement that failed twice; its values are omitted."""

    round: int
    path: str
    measurement: str
    error: str


class BenchGoal(TypedDict):
    """A path's target relative to another path."""

    path: str
    metric: str
    reference: str
    want: str
    """`>= 8`"""
    ratio: float
    reached: bool


class BenchAnswer(TypedDict):
    """`bench -o json`. The exit code is 0 when a round counts and every measurement gave a number, else 1."""

    since: str
    """When it began: RFC 3339, UTC."""
    took_s: float
    machine: MeasuredMachine
    rounds_wanted: int
    seconds: int
    """Duration of each measurement."""
    paths: list[MeasuredPathLine]
    """In the requested order."""
    metrics: list[BenchMetric]
    rounds: list[BenchRound]
    rounds_counted: int
    """With 0 the medians are of all rounds and no goal is judged."""
    failures: list[BenchFailure]
    medians: Mapping[str, MetricValues]
    """By path, over the rounds that count."""
    ratios: Mapping[str, Mapping[str, MetricValues]]
    """By reference (`vxlan`, `python`, `host-gw`, where measured), then by path: median / the reference's median."""
    goals: list[BenchGoal]


class MeasurementAnswer(TypedDict):
    """The result of one measurement."""

    bytes: NotRequired[int]
    """TCP: received."""
    seconds: NotRequired[float]
    """TCP and UDP."""
    sent: NotRequired[int]
    """UDP: datagrams."""
    received: NotRequired[int]
    """UDP: datagrams."""
    p50_us: NotRequired[float]
    """Latency: half of a round trip."""
    p99_us: NotRequired[float]
    agents_cpu_s: NotRequired[float | None]
    """Processor time of the agents meanwhile; null if they do not carry the packets."""


class MemoryAnswer(TypedDict):
    """Proportional set sizes in KiB."""

    agents: int
    pauses: int
    machines: int
    init: int
    """The supervisor."""
    etcd: int
    everything: int
    threads: int
    """Number of the supervisor's threads."""


class SecondsAnswer(TypedDict):
    """How long something took."""

    seconds: float


class NeighboursAnswer(TypedDict):
    """Neighbour entries of all namespaces of the lab."""

    collectable: int
    """The kernel has one limit for all namespaces."""
    permanent: int


class ManyPingsAnswer(TypedDict):
    """Pings between pods chosen at random."""

    sent: int
    lost: int
    which: list[str]
    """The first ten that were lost."""


class EtcdRestartAnswer(TypedDict):
    """The effects of a restart of etcd."""

    answers_s: float
    watches_s: float
    """Time until a lease written after that is in every table."""
    pings_sent: int
    pings_lost: int
    """Pings lost meanwhile."""


class ScaleMeasured(TypedDict):
    """Measurements in a running lab of one size."""

    cores_at_rest: float
    """Processor time of everything in the lab, per second."""
    memory_kib: MemoryAnswer
    pings: ManyPingsAnswer
    neighbours: NeighboursAnswer
    join_s: float
    """Time until every forwarding table is complete again; so are the next two."""
    leave_s: float
    agent_killed_s: float
    etcd_restarted: EtcdRestartAnswer


class ScaleSize(ScaleMeasured):
    """One size of lab."""

    nodes: int
    pods: int
    load: float
    """Average of the minute before."""
    phases_s: dict[str, float]
    up_s: float
    """From launch to ready."""
    down_s: float
    """Until nothing is left."""
    plain_mininet_s: NotRequired[float]
    """As many hosts and links as nodes and pods, by Mininet alone."""
    times_plain_mininet: NotRequired[float]
    """`up_s` by that."""


class ScaleFailure(TypedDict):
    """The size that ended the run."""

    nodes: int
    why: str


class BenchScaleAnswer(TypedDict):
    """`bench scale -o json`."""

    since: str
    """RFC 3339, UTC."""
    took_s: float
    machine: MeasuredMachine
    pods_per_node: int
    rest_seconds: float
    sizes: list[ScaleSize]
    growth: float | None
    """Time per node: the largest size's, divided by that of the smallest from 20 nodes on."""
    failed: ScaleFailure | None
    """Null when no size failed."""
