"""Files in a lab's directory: whatever lies in place of one, nothing elsewhere is read or written, and none waits."""

import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from testbed.plain_files import NotPlain, plain, read_end, read_plain, replace_plain
from testbed.processes.supervise import last_line

LIMIT = 1000
AT_ONCE_S = 5.0
"""Nothing here waits; on a busy machine it may take so long."""
VICTIM = b"nobody else's\n"

Plant = Callable[[Path, Path], None]


def _socket(path: Path, _victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _file_by_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


PLANTS: dict[str, tuple[Plant, str]] = {
    "symbolic link": (lambda path, victim: path.symlink_to(victim), "is a symbolic link"),
    "dangling link": (lambda path, victim: path.symlink_to(victim.with_name("new")), "is a symbolic link"),
    "FIFO": (lambda path, _: os.mkfifo(path), "is a FIFO"),
    "directory": (lambda path, _: path.mkdir(), "is a directory"),
    "socket": (_socket, "is a socket"),
}


def at_once(work: Callable[[], object]) -> object:
    """Return what `work` returns, or the OSError that it raises; fails when it waits."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except OSError as failure:
            outcome.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(AT_ONCE_S)
    assert not thread.is_alive(), "it waits"
    return outcome[0]


def append(path: Path) -> None:
    with open(path, "ab", opener=plain) as file:
        file.write(b"more\n")


def overwrite(path: Path) -> None:
    with open(path, "wb", opener=plain) as file:
        file.write(b"new\n")


OPERATIONS: dict[str, Callable[[Path], object]] = {
    "read": lambda path: read_plain(path, LIMIT),
    "read its end": lambda path: read_end(path, LIMIT),
    "append": append,
    "overwrite": overwrite,
}


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return what belongs to another directory."""
    victim = tmp_path / "elsewhere" / "victim"
    victim.parent.mkdir()
    victim.write_bytes(VICTIM)
    return victim


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("plant", PLANTS)
def test_a_special_file_is_named_and_neither_followed_nor_waited_for(
    plant: str, operation: str, tmp_path: Path, victim: Path
) -> None:
    path = tmp_path / "file"
    make, said = PLANTS[plant]
    make(path, victim)
    failure = at_once(lambda: OPERATIONS[operation](path))
    assert isinstance(failure, NotPlain)
    assert str(failure) == f"{path}: {said} (want a plain file of our own; remove it)"
    assert victim.read_bytes() == VICTIM
    assert os.listdir(victim.parent) == ["victim"]


def test_a_fifo_that_somebody_reads_is_not_written_either(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for operation in (append, overwrite):
            assert isinstance(at_once(partial(operation, path)), NotPlain)
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("operation", [append, overwrite])
def test_a_file_that_has_another_name_elsewhere_is_not_written(
    operation: Callable[[Path], None], tmp_path: Path, victim: Path
) -> None:
    path = tmp_path / "file"
    path.hardlink_to(victim)
    with pytest.raises(NotPlain, match="another name too"):
        operation(path)
    assert victim.read_bytes() == VICTIM


def test_no_more_is_read_than_is_expected(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * LIMIT)
    assert len(read_plain(path, LIMIT)) == LIMIT
    os.truncate(path, 1 << 40)
    with pytest.raises(NotPlain, match="larger than 1000 bytes"):
        read_plain(path, LIMIT)
    assert read_end(path, LIMIT) == bytes(LIMIT)


@pytest.mark.parametrize("plant", [*PLANTS, "hard link", "huge file"])
def test_replacing_puts_a_new_file_in_place_of_anything_but_a_directory(
    plant: str, tmp_path: Path, victim: Path
) -> None:
    path = tmp_path / "file"
    for name in (path, path.with_name(".file.new")):
        if plant == "huge file":
            name.touch()
            os.truncate(name, 1 << 40)
        else:
            (_file_by_link if plant == "hard link" else PLANTS[plant][0])(name, victim)
    outcome = at_once(lambda: replace_plain(path, b"new\n"))
    if plant == "directory":
        assert isinstance(outcome, OSError)
    else:
        assert outcome is None
        assert path.read_bytes() == b"new\n"
        assert path.lstat().st_mode & 0o777 == 0o600
        assert sorted(os.listdir(tmp_path)) == ["elsewhere", "file"]
    assert victim.read_bytes() == VICTIM
    assert os.listdir(victim.parent) == ["victim"]


def test_new_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        append(tmp_path / "log")
        replace_plain(tmp_path / "record", b"x")
        replace_plain(tmp_path / "hosts", b"x", 0o644)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"log": 0o600, "record": 0o600, "hosts": 0o644}


def test_the_descriptor_handed_to_a_program_is_an_ordinary_one(tmp_path: Path) -> None:
    descriptor = plain(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        assert os.get_blocking(descriptor)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_last_line_of_a_missing_log_is_empty(tmp_path: Path, victim: Path) -> None:
    assert last_line(victim) == VICTIM.decode().strip()
    (tmp_path / "log").symlink_to(victim)
    assert last_line(tmp_path / "log") == ""
