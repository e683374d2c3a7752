"""Every row of the fault table that words can say: injected, measured, healed, and the lab looked over afterwards.

The slow run does each three times; the quick one takes a choice, once. What is late on a busy machine is tried
again, as the soak does (see `attempts`).
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.faults.trials import CONTROL, TRIALS, Trial
from testbed.places import TOPOLOGIES
from testbed.pytest_plugin import NewLab
from testbed.testing.attempts import Attempt, attempts
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.lab_handle import LabHandle
from tests.rows import MEASURED

REPEATS = int(os.environ.get("TESTBED_FAULT_REPEATS", "3"))


def promise_of(trial: Trial) -> str:
    """Return its limit in words, as the table of results has it."""
    if trial.gap_s == 0:
        return f"no packet lost; {trial.limit_s:g} s"
    return f"{trial.limit_s:g} s" if trial.gap_s is None else f"gap of {trial.gap_s:g} s"


def cluster(etcd_members: int) -> str:
    """Return the cluster for faults, with so many etcd members."""
    text = (TOPOLOGIES / "faults.yaml").read_text()
    assert "members: 1" in text
    return text.replace("members: 1", f"members: {etcd_members}")


@pytest.fixture(scope="module")
def one_etcd(new_lab: NewLab) -> Iterator[tuple[LabHandle, Heartbeats]]:
    """Yield a lab with probes between its pods."""
    with new_lab(cluster(1)) as handle, Heartbeats(handle) as heartbeats:
        yield handle, heartbeats


@pytest.fixture(scope="module")
def three_etcd(new_lab: NewLab) -> Iterator[tuple[LabHandle, Heartbeats]]:
    """Yield the same with an etcd of three members."""
    with new_lab(cluster(3)) as handle, Heartbeats(handle) as heartbeats:
        yield handle, heartbeats


def cases() -> list[object]:
    """Return each trial; pytest's own type for them is not public."""
    found: list[object] = []
    for trial in (CONTROL, *TRIALS):
        marks = [pytest.mark.slow] if trial.slow else []
        if trial is not CONTROL:
            # The kernel that wants memory back sends the same SIGKILL.
            marks.append(pytest.mark.row(*([trial.row, "F9"] if trial.row == "F2" else [trial.row])))
        found.append(pytest.param(trial, id=trial.name.replace(" ", "-"), marks=marks))
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trial", cases())
def test_row(
    trial: Trial,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    tmp_path: Path,
) -> None:
    lab, heartbeats = request.getfixturevalue("one_etcd" if trial.etcd_members == 1 else "three_etcd")
    quick = "not slow" in (request.config.option.markexpr or "")
    measured: list[float] = []
    for repeat in range(1 if quick or trial is CONTROL else REPEATS):
        tried = list(attempts(lab, heartbeats, trial.again if repeat else trial))
        for attempt in tried[:-1]:
            print(f"late while somebody waited for a processor {attempt.waited:.0%} of the time:", attempt.found.late)
        found = tried[-1].found
        measured.append(round(found.measured_s, 2))
        if found.problems:
            missed = found.problems[0].splitlines()[0]
            measure = {"promise": promise_of(trial), "seconds": measured, "missed": missed}
            record_property(MEASURED, json.dumps(measure))
            pytest.fail(told(trial, tried, repeat, heartbeats, tmp_path), pytrace=False)
    record_property(MEASURED, json.dumps({"promise": promise_of(trial), "seconds": measured}))


def told(trial: Trial, tried: list[Attempt], repeat: int, heartbeats: Heartbeats, directory: Path) -> str:
    """Return everything about a failed trial; the history remains in a file."""
    found, history = tried[-1].found, directory / "history.jsonl"
    heartbeats.write(history)
    with history.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in found.history)
    share = "unknown" if tried[-1].waited is None else f"{tried[-1].waited:.0%}"
    lines = [
        f"{trial.name}, repeat {repeat + 1}, attempt {len(tried)}: measured {found.measured_s:.2f} s, "
        f"longest gap {found.gap}; somebody waited for a processor: {share} of the time"
    ]
    return "\n".join([*lines, *found.problems, f"history: {history}"])
