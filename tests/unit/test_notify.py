"""Readiness for service managers: systemd's datagram, where one listens."""

import errno
import os
import socket
from pathlib import Path

import pytest

from agent.daemon.service_manager import notify_service_manager


@pytest.mark.parametrize("abstract", [False, True])
def test_the_state_arrives_at_the_notify_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    address = f"@overlay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if abstract else address)
        listener.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify_service_manager("READY=1")
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/notify"])
def test_nobody_listening_is_no_error(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify_service_manager("READY=1")


def test_being_out_of_descriptors_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    monkeypatch.setattr(socket, "socket", refuse)
    notify_service_manager("WATCHDOG=1")
