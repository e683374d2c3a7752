"""Results of a bench run: metrics, medians, ratios, which rounds count, which goals are met. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from testbed.bench.plan import MEASUREMENTS, Measurement
from testbed.control.answers.bench import MeasurementAnswer

Values = Mapping[str, float]
"""Metric → value; a metric that could not be measured, or that the path does not have, is omitted."""
ByPath = Mapping[str, Values]

REFERENCES = ("vxlan", "python", "host-gw")
"""Paths to which the others are compared."""
YARDSTICK = "python"
YARDSTICK_MEASUREMENTS = frozenset({"tcp_1_forward", "tcp_1_reverse"})
YARDSTICK_LEAST = 0.4e9
"""bit/s; below it, something else on the machine kept the python path from its processor."""
GIGABYTE = 1e9
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a measurement."""

    name: str
    """Ends with the unit of its JSON value."""
    title: str
    unit: str
    """The printed unit."""
    scale: float
    """Divides the JSON value to get the unit."""
    digits: int
    higher_is_better: bool = True
    compared: bool = True
    """Whether a ratio to another path's value is meaningful."""


def _metrics_of(measurement: Measurement) -> list[Metric]:
    name, title = measurement.name, measurement.title
    if measurement.kind == "tcp":
        return [Metric(f"{name}_bits_per_second", title, "Gbit/s", 1e9, 2)]
    if measurement.kind == "udp":
        return [
            Metric(f"{name}_packets_per_second", f"{title}, received", "kpps", 1e3, 1),
            Metric(f"{name}_lost_percent", f"{title}, lost", "%", 1, 1, higher_is_better=False, compared=False),
        ]
    return [
        Metric(f"{name}_p{percentile}_us", f"{title}, p{percentile}", "µs", 1, 1, higher_is_better=False)
        for percentile in (50, 99)
    ]


CPU_PER_GIGABYTE = Metric("agents_cpu_seconds_per_gigabyte", "agents' CPU, TCP", "s/GB", 1, 2, higher_is_better=False)
CPU_PER_MILLION_PACKETS = Metric(
    "agents_cpu_seconds_per_million_packets", "agents' CPU, UDP 16 B", "s/Mpkt", 1, 2, higher_is_better=False
)
CPU_OF = {"tcp_1_forward": CPU_PER_GIGABYTE, "udp_16": CPU_PER_MILLION_PACKETS}
"""Measurement → the name of the agents' processor time during it."""


def metrics_of(measurements: Iterable[Measurement]) -> list[Metric]:
    """Return all their metrics, in reading order."""
    chosen = list(measurements)
    found = [metric for measurement in chosen for metric in _metrics_of(measurement)]
    return found + [CPU_OF[measurement.name] for measurement in chosen if measurement.name in CPU_OF]


METRICS = tuple(metrics_of(MEASUREMENTS))


@dataclass(frozen=True, slots=True)
class Round:
    """One round through all paths."""

    number: int
    load: float
    """Load average of the last minute at its start."""
    values: ByPath


@dataclass(frozen=True, slots=True)
class Goal:
    """A path's target relative to another path."""

    path: str
    metric: str
    reference: str
    ratio: float
    at_least: bool
    """Else at most."""


_TCP, _P50 = "tcp_1_forward_bits_per_second", "latency_p50_us"
GOALS = (
    Goal("native", _TCP, "vxlan", 0.25, at_least=True),
    Goal("native", _TCP, "python", 8, at_least=True),
    Goal("native", _P50, "vxlan", 1.3, at_least=False),
    Goal("native", "udp_16_packets_per_second", "python", 2, at_least=True),
    Goal("native", "udp_1400_packets_per_second", "python", 1.5, at_least=True),
    *(
        Goal("kernel", metric, "vxlan", 1.0, at_least=metric != _P50)
        for metric in (
            _TCP,
            "tcp_4_forward_bits_per_second",
            "udp_16_packets_per_second",
            "udp_1400_packets_per_second",
            _P50,
        )
    ),
    # The kernel moves these packets, so it must not matter who made the entries.
    Goal("vxlan-backend", _TCP, "vxlan", 0.95, at_least=True),
    Goal("host-gw-backend", _TCP, "host-gw", 0.95, at_least=True),
)


def values_of(measurement: Measurement, raw: MeasurementAnswer) -> dict[str, float]:
    """Return the metrics in the lab's answer to a measurement."""
    name = measurement.name
    cpu_s, found = raw.get("agents_cpu_s"), {}
    if measurement.kind == "tcp":
        found = {f"{name}_bits_per_second": raw["bytes"] * 8 / raw["seconds"]}
        amount = raw["bytes"] / GIGABYTE
    elif measurement.kind == "udp":
        lost = 100 * (1 - raw["received"] / raw["sent"]) if raw["sent"] else 0.0
        found = {f"{name}_packets_per_second": raw["received"] / raw["seconds"], f"{name}_lost_percent": lost}
        amount = raw["received"] / MILLION
    else:
        return {f"{name}_p50_us": raw["p50_us"], f"{name}_p99_us": raw["p99_us"]}
    if cpu_s is not None and name in CPU_OF and amount > 0:
        found[CPU_OF[name].name] = cpu_s / amount
    return found


def why_not_counted(one: Round, measurements: Iterable[Measurement] = MEASUREMENTS) -> str | None:
    """Return why a round of these measurements does not count; None if it does.

    Every round counts in a run without TCP with one stream on the python path.
    """
    yardsticks = [measurement.name for measurement in measurements if measurement.name in YARDSTICK_MEASUREMENTS]
    measured = one.values.get(YARDSTICK)
    if measured is None or not yardsticks:
        return None
    best = max((measured.get(f"{name}_bits_per_second", 0.0) for name in yardsticks), default=0.0)
    if best >= YARDSTICK_LEAST:
        return None
    got = f"{best / 1e9:.2f} Gbit/s"
    return f"{YARDSTICK} reached {got} with one TCP stream, below {YARDSTICK_LEAST / 1e9:g}: the machine was busy"


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return medians by path and metric, over the rounds that have the value."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for one in rounds:
        for path, values in one.values.items():
            for metric, value in values.items():
                gathered.setdefault(path, {}).setdefault(metric, []).append(value)
    return {path: {metric: median(found) for metric, found in metrics.items()} for path, metrics in gathered.items()}


def ratios(of: ByPath, reference: str) -> dict[str, dict[str, float]]:
    """Return every path's values divided by those of `reference`, where that is meaningful; none if it was not
    measured.
    """
    base = {metric.name: of.get(reference, {}).get(metric.name) for metric in METRICS if metric.compared}
    return {
        path: {metric: value / divisor for metric, value in values.items() if (divisor := base.get(metric))}
        for path, values in of.items()
        if reference in of
    }


@dataclass(frozen=True, slots=True)
class GoalVerdict:
    """A goal and its result."""

    goal: Goal
    ratio: float
    reached: bool


def verdicts(of: ByPath) -> list[GoalVerdict]:
    """Return the verdicts on goals whose paths were both measured."""
    found = []
    for goal in GOALS:
        ratio = ratios(of, goal.reference).get(goal.path, {}).get(goal.metric)
        if ratio is not None:
            found.append(GoalVerdict(goal, ratio, ratio >= goal.ratio if goal.at_least else ratio <= goal.ratio))
    return found
