"""A finished bench run as one document, printed as it is by `-o json`, and as table rows. Pure."""

from collections.abc import Mapping, Sequence

from testbed.bench.plan import BenchPlan
from testbed.bench.results import (
    METRICS,
    REFERENCES,
    GoalVerdict,
    Metric,
    medians,
    metrics_of,
    ratios,
    verdicts,
    why_not_counted,
)
from testbed.bench.run import Gathered
from testbed.control.answers.bench import BenchAnswer, BenchGoal, MeasuredMachine

MISSING = "-"
SMALL_RATIO, LARGE_RATIO = 0.1, 10
"""Below the first a ratio needs another digit, above the second none."""
TIMES = "\N{MULTIPLICATION SIGN}"


def document(plan: BenchPlan, gathered: Gathered, machine: MeasuredMachine, since: str, took_s: float) -> BenchAnswer:
    """Return the whole result, in the units of the metrics' names. docs/reference.md describes the fields."""
    reasons = {one.number: why_not_counted(one, plan.measurements) for one in gathered.rounds}
    counted = [one for one in gathered.rounds if reasons[one.number] is None]
    middle = medians(counted or gathered.rounds)
    return {
        "since": since,
        "took_s": round(took_s, 1),
        "machine": machine,
        "rounds_wanted": plan.rounds,
        "seconds": plan.seconds,
        "paths": [{"name": path.name, "description": path.description} for path in plan.paths],
        "metrics": [
            {
                "name": metric.name,
                "title": metric.title,
                "unit": metric.unit,
                "scale": metric.scale,
                "better": "higher" if metric.higher_is_better else "lower",
            }
            for metric in metrics_of(plan.measurements)
        ],
        "rounds": [
            {
                "number": one.number,
                "load": round(one.load, 2),
                "counts": reasons[one.number] is None,
                "why_not": reasons[one.number],
                "values": one.values,
            }
            for one in gathered.rounds
        ],
        "rounds_counted": len(counted),
        "failures": gathered.failures,
        "medians": middle,
        "ratios": {name: ratios(middle, name) for name in REFERENCES if name in middle},
        "goals": [_goal(verdict) for verdict in verdicts(middle)] if counted else [],
    }


def _goal(verdict: GoalVerdict) -> BenchGoal:
    goal = verdict.goal
    return {
        "path": goal.path,
        "metric": goal.metric,
        "reference": goal.reference,
        "want": f"{'>=' if goal.at_least else '<='} {goal.ratio:g}",
        "ratio": verdict.ratio,
        "reached": verdict.reached,
    }


def worked(result: BenchAnswer) -> bool:
    """Report whether a round counts and every measured metric has a value."""
    failed = {(failure["path"], failure["measurement"]) for failure in result["failures"]}
    unmeasured = [
        (path, measurement)
        for path, measurement in failed
        if not any(metric.startswith(measurement) for metric in result["medians"].get(path, {}))
    ]
    return bool(result["rounds_counted"]) and not unmeasured


def median_rows(result: BenchAnswer) -> list[tuple[str, ...]]:
    """Return one row per metric: its title, its unit, each path's median."""
    return [
        (metric.title, metric.unit, *(_shown(metric, values) for values in _columns(result, result["medians"])))
        for metric in _metrics(result)
    ]


def ratio_rows(result: BenchAnswer, reference: str) -> list[tuple[str, ...]]:
    """Return one row per metric: its title, each path's median divided by the reference's."""
    columns = _columns(result, result["ratios"][reference])
    return [
        (metric.title, *(ratio(values.get(metric.name)) for values in columns))
        for metric in _metrics(result)
        if any(metric.name in values for values in columns)
    ]


def round_line(values: Mapping[str, Mapping[str, float]], metric: Metric) -> str:
    """Format one metric of a round over all paths: `python 0.48, native 4.91 Gbit/s`."""
    parts = [f"{path} {_shown(metric, found)}" for path, found in values.items()]
    return f"{', '.join(parts)} {metric.unit}"


def goal_line(goal: BenchGoal) -> str:
    """Describe a goal and its result."""
    metric = next(metric for metric in METRICS if metric.name == goal["metric"])
    word = "reached" if goal["reached"] else "missed"
    return f"{word:<8} {goal['path']}, {metric.title}: {ratio(goal['ratio'])} {goal['reference']} (want {goal['want']})"


def ratio(value: float | None) -> str:
    """Format a ratio with its significant digits."""
    if value is None:
        return MISSING
    digits = 3 if value < SMALL_RATIO else 2 if value < LARGE_RATIO else 1
    return f"{value:.{digits}f} {TIMES}"


def _metrics(result: BenchAnswer) -> list[Metric]:
    wanted = {metric["name"] for metric in result["metrics"]}
    return [metric for metric in METRICS if metric.name in wanted]


def _columns(result: BenchAnswer, by_path: Mapping[str, Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    return [by_path.get(path["name"], {}) for path in result["paths"]]


def _shown(metric: Metric, values: Mapping[str, float]) -> str:
    value = values.get(metric.name)
    return MISSING if value is None else f"{value / metric.scale:.{metric.digits}f}"
