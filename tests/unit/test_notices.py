"""Processes report that they are ready by systemd's protocol, from directories that come and go."""

import gc
import os
import socket
from pathlib import Path

from testbed.lab.notices import SOCKET, Notices


def tell(directory: Path, message: bytes = b"READY=1\nSTATUS=serving") -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message, str(directory / SOCKET))


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_who_says_ready_is_known_by_process_id_whatever_else_it_says(tmp_path: Path) -> None:
    notices = Notices()
    notices.reach(tmp_path)
    tell(tmp_path, b"WATCHDOG=1")
    tell(tmp_path)
    assert notices.wait(5) == {os.getpid()}
    assert notices.wait(0) == frozenset()


def test_directories_come_and_go_without_leaving_a_descriptor(tmp_path: Path) -> None:
    notices = Notices()
    notices.reach(tmp_path)
    before = descriptors()
    for number in range(20):
        directory = tmp_path / f"node{number}"
        directory.mkdir()
        notices.reach(directory)
        tell(directory)
        assert notices.wait(5) == {os.getpid()}, number
        notices.forget(directory)
        notices.forget(directory)
    assert descriptors() <= before
    tell(tmp_path)
    assert notices.wait(5) == {os.getpid()}
