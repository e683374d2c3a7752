"""Carries out a bench plan in a lab, step by step, and collects the results."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from testbed.bench.plan import BenchPlan, BenchStep, Measurement
from testbed.bench.results import Round, values_of
from testbed.control.answers.bench import BenchFailure
from testbed.control.client import LabRecord, ask
from testbed.control.questions import BENCH_MEASURE, BENCH_TAKE
from testbed.errors import TestbedError

ATTEMPTS = 2
"""A flood can starve the load generator's own connection; then retry once."""


@dataclass(slots=True)
class Gathered:
    """The results of a run so far."""

    rounds: list[Round] = field(default_factory=list)
    """Complete rounds."""
    failures: list[BenchFailure] = field(default_factory=list)


def carry_out(
    lab: LabRecord, plan: BenchPlan, on_step: Callable[[BenchStep], None], on_round: Callable[[Round], None]
) -> Gathered:
    """Carry out every step of the plan.

    `on_step` is called before each. Raises TestbedError if a path cannot be used.
    """
    gathered = Gathered()
    values: dict[str, dict[str, float]] = {}
    load = os.getloadavg()[0]
    at = 1

    def finish() -> None:
        gathered.rounds.append(Round(at, load, values))
        on_round(gathered.rounds[-1])

    for step in plan.steps():
        if step.round != at:
            finish()
            at, values, load = step.round, {}, os.getloadavg()[0]
        on_step(step)
        if step.measurement is None:
            ask(lab, BENCH_TAKE, **{key: asdict(step.path)[key] for key in ("name", "backend", "datapath")})
            values[step.path.name] = {}
            continue
        found, error = _measured(lab, step, plan.seconds)
        values[step.path.name].update(found)
        if error:
            gathered.failures.append(_failure(step, step.measurement, error))
    finish()
    return gathered


def _failure(step: BenchStep, measurement: Measurement, error: str) -> BenchFailure:
    return {"round": step.round, "path": step.path.name, "measurement": measurement.name, "error": error}


def _measured(lab: LabRecord, step: BenchStep, seconds: int) -> tuple[dict[str, float], str]:
    """Return the values, or none and the reason."""
    assert step.measurement is not None
    error = ""
    for _ in range(ATTEMPTS):
        try:
            raw = ask(lab, BENCH_MEASURE, measurement=step.measurement.name, seconds=seconds)
        except TestbedError as failure:
            if not lab.alive:
                raise
            error = str(failure)
            time.sleep(0.2)  # what was in flight is gone then
            continue
        return values_of(step.measurement, raw), ""
    return {}, error
