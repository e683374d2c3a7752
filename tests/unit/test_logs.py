"""Whose run wrote what, also when a log begins a new file; and several logs shown as one, by the real programs."""

import subprocess
from pathlib import Path

import pytest

from testbed.pods.container_log import CappedLog
from testbed.pods.log_runs import LogPart, LogRuns
from testbed.supervisor.log_verbs import LogSource, show_command


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "c.log"


def shown(log: Path | LogPart | None, lines: int | None = None) -> str:
    assert log is not None
    command = show_command([LogSource("pod/web/c", log)], lines, follow=False, labels=False)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(runs: LogRuns, log: Path, text: str, limit: int = 10_000_000) -> None:
    """Run a container up to its last output."""
    runs.begin()
    CappedLog(str(log), limit).write(text.encode())


def test_the_run_before_is_the_one_before_the_last_and_the_last_one_once_it_is_over(log: Path) -> None:
    runs = LogRuns(log)
    assert runs.before() is None
    run(runs, log, "first\n")
    assert runs.before() is None
    runs.end()
    assert shown(runs.before()) == "first\n"
    runs.begin()
    assert shown(runs.before()) == "first\n"
    CappedLog(str(log), 10_000_000).write(b"second 1\nsecond 2\n")
    assert shown(runs.before()) == "first\n"
    runs.end()
    assert shown(runs.before()) == "second 1\nsecond 2\n"
    assert shown(runs.before(), 1) == "second 2\n"
    runs.begin()
    CappedLog(str(log), 10_000_000).write(b"third\n")
    assert shown(runs.before()) == "second 1\nsecond 2\n"
    assert shown(log) == "first\nsecond 1\nsecond 2\nthird\n"


def test_a_run_that_wrote_nothing_is_empty(log: Path) -> None:
    runs = LogRuns(log)
    for text in ("first\n", "", "third\n"):
        run(runs, log, text)
    assert shown(runs.before()) == ""


def test_the_run_before_is_found_when_the_log_began_a_new_file_in_between(log: Path) -> None:
    runs = LogRuns(log)
    run(runs, log, "1" * 40 + "\n", limit=100)
    run(runs, log, "2" * 40 + "\n", limit=100)
    assert log.with_name("c.log.1").exists()
    assert shown(runs.before()) == "1" * 40 + "\n"
    runs.end()
    assert shown(runs.before()) == "2" * 40 + "\n"


def test_a_run_whose_beginning_is_no_longer_kept_is_shown_from_there(log: Path) -> None:
    runs = LogRuns(log)
    run(runs, log, "old\n" + "1" * 119 + "\n", limit=100)
    run(runs, log, "2\n", limit=100)
    kept = shown(runs.before())
    assert kept.endswith("1\n")
    assert "old" not in kept
    assert "2" not in kept


def test_of_a_run_that_is_no_longer_kept_at_all_nothing_is_shown(log: Path) -> None:
    runs = LogRuns(log)
    run(runs, log, "first\n", limit=100)
    run(runs, log, "2" * 500, limit=100)
    assert runs.before() is None


def test_several_logs_are_shown_in_order_with_their_labels(tmp_path: Path) -> None:
    sources = []
    for name in ("a", "b"):
        file = tmp_path / f"{name} '$(x).log"
        file.write_text("".join(f"{name}{number}\n" for number in range(3)))
        sources.append(LogSource(f"pod/{name}/c", file))
    command = show_command(sources, 2, follow=False, labels=True)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[pod/a/c] a1\n[pod/a/c] a2\n[pod/b/c] b1\n[pod/b/c] b2\n"
    plain = subprocess.run(
        show_command(sources, 1, follow=False, labels=False), capture_output=True, text=True, check=True
    )
    assert plain.stdout == "a2\nb2\n"
