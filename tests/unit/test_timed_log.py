"""The times of a log's lines, by the real program that shows them."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from testbed.pods.container_log import CappedLog
from testbed.pods.log_runs import LogRuns
from testbed.pods.timed_log import TimedLogs, TimedSource
from tests.waiting import wait_until

SECOND = 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the time that logs are written at, which a test sets."""
    now = [1_700_000_000 * SECOND]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    return now


def command(*logs: tuple[str, Path], lines: int | None = None, since: int = 0, follow: bool = False) -> list[str]:
    sources: list[TimedSource] = [(label, [str(log)], 0, None) for label, log in logs]
    return TimedLogs(sources=sources, lines=lines, since_ns=since, timestamps=True, follow=follow).command()


def shown(argv: list[str]) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def test_each_line_has_the_time_when_its_first_byte_was_written(tmp_path: Path, clock: list[int]) -> None:
    path = tmp_path / "c.log"
    log = CappedLog(str(path), 10_000)
    for text in (b"one\ntwo\nth", b"ree\n", b"four"):
        log.write(text)
        clock[0] += SECOND
    assert shown(command(("", path))) == [
        "2023-11-14T22:13:20.000000000Z one",
        "2023-11-14T22:13:20.000000000Z two",
        "2023-11-14T22:13:20.000000000Z three",
        "2023-11-14T22:13:22.000000000Z four",
    ]
    assert [line[-4:] for line in shown(command(("", path), since=clock[0] - SECOND))] == ["four"]
    assert [line[-4:] for line in shown(command(("", path), lines=2))] == ["hree", "four"]


def test_several_logs_have_their_labels(tmp_path: Path, clock: list[int]) -> None:
    for name in ("a", "b"):
        CappedLog(str(tmp_path / f"{name}.log"), 10_000).write(name.encode() + b"\n")
    logs = [(f"pod/{name}/c", tmp_path / f"{name}.log") for name in ("a", "b")]
    assert [re.sub(r" \S+Z ", " ", line) for line in shown(command(*logs))] == ["[pod/a/c] a", "[pod/b/c] b"]


def test_times_survive_a_new_file_and_a_new_run_and_take_little(tmp_path: Path, clock: list[int]) -> None:
    path = tmp_path / "c.log"
    runs = LogRuns(path)
    for run in range(4):
        runs.begin()
        log = CappedLog(str(path), 100_000)
        for line in range(300):
            log.write(b"%d %09d %s\n" % (run, clock[0] // SECOND - 1_700_000_000, b"x" * 40 if line % 2 else b""))
            clock[0] += SECOND
    assert path.with_name("c.log.1").exists()
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert len(sizes) == 4, sizes
    assert sum(size for name, size in sizes.items() if name.endswith("times")) <= 100_000 // 8
    before = runs.before()
    assert before is not None
    source = ("", list(map(str, before.files)), before.first_byte, before.bytes)
    lines = shown(TimedLogs(sources=[source], lines=None, since_ns=0, timestamps=True, follow=False).command())
    assert {line.split()[1] for line in lines} == {"2"}
    for text in lines:
        written_at, _, second, *_ = text.split()
        minutes, seconds = divmod(int(second) + 20, 60)
        hours, minutes = divmod(minutes + 13, 60)
        assert written_at == f"2023-11-14T{22 + hours}:{minutes:02d}:{seconds:02d}.000000000Z"


def test_a_followed_log_shows_new_lines_also_of_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    log = CappedLog(str(path), 20_000)
    log.write(b"first\n")
    out = tmp_path / "out"
    with (
        out.open("wb") as output,
        subprocess.Popen(command(("", path), follow=True), stdout=output) as following,
    ):
        try:
            for number in range(3):
                wait_until(lambda: b"\n" in out.read_bytes(), timeout_s=60, what="the first line is shown")
                inode = os.stat(path).st_ino
                while os.stat(path).st_ino == inode:
                    log.write(b"x" * 99 + b"\n")
                log.write(b"last of %d\n" % number)
                wait_until(
                    lambda number=number: b"last of %d\n" % number in out.read_bytes(),  # type: ignore[misc] # mypy infers no default of a lambda
                    timeout_s=60,
                    what=f"line {number} is shown",
                )
        finally:
            following.kill()
    assert out.read_bytes().count(b" first\n") == 1
