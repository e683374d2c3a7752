"""No silence, no hang, no traceback: every verb with odd arguments, names, streams, signals, limits and lab states."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import testbed.command.cli  # noqa: F401 - registers the verbs
from testbed.command.command_line import verbs
from tests.e2e.walk_cases import Case, Result, cases, problems

ROOT = Path(__file__).resolve().parents[2]
APART = ("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")


def walked(directory: Path, how_many: str, limit_s: float) -> list[tuple[Case, Result]]:
    """Return every case with what came of it."""
    (directory / "here").mkdir()
    done = subprocess.run(
        [*APART, sys.executable, "-m", "tests.e2e.walker", str(directory / "results"), how_many],
        cwd=ROOT,
        env={**os.environ, "WALK_DIRECTORY": str(directory / "here"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    known = cases(verbs, everything=how_many == "everything")
    found = []
    for file in directory.glob("results.*"):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            found.append((known[entry["number"]], Result(**entry["result"])))
    return found


def complain(results: list[tuple[Case, Result]]) -> None:
    """Fail with everything that is not as it must be."""
    wrong = [f"{case}: {problem}" for case, result in results for problem in problems(case, result)]
    if wrong:
        pytest.fail(f"{len(wrong)} of {len(results)}:\n" + "\n".join(wrong), pytrace=False)


@pytest.mark.timeout(300)
def test_no_silence_no_hang_no_traceback(tmp_path: Path) -> None:
    results = walked(tmp_path, "some", 280)
    assert len(results) == len(cases(verbs, everything=False)) >= 500
    complain(results)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_silence_no_hang_no_traceback_with_everything(tmp_path: Path) -> None:
    results = walked(tmp_path, "everything", 1700)
    assert len(results) == len(cases(verbs, everything=True)) >= 2000
    complain(results)
