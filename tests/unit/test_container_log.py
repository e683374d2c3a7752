import contextlib
import errno
import os
from pathlib import Path

import pytest

from testbed.lab.log_keeper import shorten
from testbed.pods.container_log import LOG_BYTES, LOG_BYTES_WHEN_CROWDED, CappedLog, times_of


def sizes(directory: Path) -> int:
    """Return the bytes of a log and its predecessor; the times of their lines come on top."""
    return sum(file.stat().st_size for file in directory.iterdir() if file.suffix != ".times")


@pytest.mark.row("B43")
def test_log_and_predecessor_never_exceed_the_limit_and_keep_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = CappedLog(str(path), limit_bytes=100)
    for number in range(100):
        log.write(b"%09d\n" % number)
        assert sizes(tmp_path) <= 100
    text = (tmp_path / "log.1").read_bytes() + path.read_bytes()
    assert text.endswith(b"%09d\n" % 99)
    assert len(text) > 50


@pytest.mark.row("B43")
def test_one_piece_larger_than_the_limit_is_capped_too(tmp_path: Path) -> None:
    log = CappedLog(str(tmp_path / "log"), limit_bytes=100)
    log.write(b"x" * 1000)
    assert sizes(tmp_path) <= 100


def test_a_restarted_container_goes_on_where_the_log_ended(tmp_path: Path) -> None:
    CappedLog(str(tmp_path / "log"), limit_bytes=100).write(b"before\n")
    CappedLog(str(tmp_path / "log"), limit_bytes=100).write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a file system with only ten free blocks."""
    real = os.fstatvfs

    def nearly_full(descriptor: int) -> os.statvfs_result:
        fields = list(real(descriptor))
        fields[4] = 10  # f_bavail, in blocks
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "fstatvfs", nearly_full)


@pytest.mark.usefixtures("crowded")
def test_where_space_is_scarce_a_log_and_its_predecessor_take_a_quarter_of_a_megabyte(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n" * 1_000_000)
    log = CappedLog(str(tmp_path / "log"), limit_bytes=LOG_BYTES)
    for _ in range(1000):
        log.write(b"x" * 1000)
    assert sizes(tmp_path) <= LOG_BYTES_WHEN_CROWDED


def test_a_log_that_a_program_writes_itself_is_emptied_under_it_and_its_end_kept(tmp_path: Path) -> None:
    log, before = tmp_path / "log", tmp_path / "log.1"
    with log.open("ab", buffering=0) as program:
        for number in range(40):
            program.write(b"%09d\n" % number)
            shorten(log, limit_bytes=200)
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 200
            kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert b"%09d\n" % number in kept
        program.write(b"end\n")
    assert log.read_bytes() == b"end\n"
    assert before.read_bytes() == b"".join(b"%09d\n" % number for number in range(30, 40))


@pytest.mark.usefixtures("crowded")
def test_the_log_is_short_where_space_is_scarce(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 1_000_000)
    shorten(log, LOG_BYTES)
    assert (log.stat().st_size, (tmp_path / "log.1").stat().st_size) == (0, LOG_BYTES_WHEN_CROWDED // 2)


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 1000)
    (tmp_path / "log").symlink_to("other")
    with pytest.raises(OSError, match="symbolic link"):
        shorten(tmp_path / "log", 100)
    assert (tmp_path / "other").stat().st_size == 1000


@pytest.mark.parametrize("failing", [1, 2], ids=["the new log", "its times"])
def test_a_rotation_that_failed_half_way_is_completed_by_the_next_one(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CappedLog(str(tmp_path / "log"), limit_bytes=100)
    log.write(b"x" * 50)
    opened, real = list[str](), os.open

    def without_inodes(path: str, *rest: int) -> int:
        opened.append(path)
        if len(opened) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *rest)

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as short, contextlib.suppress(OSError):
        short.setattr(os, "open", without_inodes)
        log.write(b"y" * 50)
    assert len(opened) == failing
    assert len(os.listdir("/proc/self/fd")) == before
    for number in range(100):
        log.write(b"%09d\n" % number)
        assert sizes(tmp_path) <= 100
    assert (tmp_path / "log").read_bytes().endswith(b"%09d\n" % 99)


def test_who_finds_a_rotated_log_finds_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen, real = str(tmp_path / "log"), list[bool](), os.replace

    def replace(source: str, target: str) -> None:
        if target == path:
            seen.append(os.path.exists(times_of(path, os.stat(source).st_ino)))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    CappedLog(path, limit_bytes=100).write(b"x" * 1000)
    assert seen
    assert all(seen)
