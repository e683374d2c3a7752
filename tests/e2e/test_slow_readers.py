"""Clients that ask for much and read nothing leave no memory behind in the lab's supervisor."""

import contextlib
import json
import socket
import time
from pathlib import Path

import pytest

from testbed.control.client import RUN_ROOT
from testbed.control.wire import CONTROL_SOCKET, PROTOCOL
from tests.e2e.lab import Lab
from tests.waiting import wait_until

CLIENTS, AT_ONCE = 250, 50
ROUNDS = 3
MAY_STAY_KIB = 24_000
"""It is 9 to 15 MB however many rounds there are; without giving memory back it is 56 MB after these, and grows."""


def supervisor(lab: Lab) -> int:
    """Return its process."""
    first = json.loads((RUN_ROOT / lab.name / "lab.json").read_text())["pid"]
    return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])


def resident_kib(pid: int) -> int:
    """Return the resident set of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def ask_and_do_not_read(lab: Lab) -> None:
    """Read only the beginning of every client's answer, and close it."""
    with contextlib.ExitStack() as undo:
        clients = []
        for number in range(CLIENTS):
            client = undo.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(60)
            # The queue of those that are not accepted yet is short.
            time.sleep(0.005)
            client.connect(str(RUN_ROOT / lab.name / CONTROL_SOCKET))
            request = {"verb": "commands", "arguments": {"node": None}, "protocol": PROTOCOL}
            client.sendall(json.dumps(request).encode() + b"\n")
            clients.append(client)
            if number % AT_ONCE == AT_ONCE - 1:
                time.sleep(1)
        for client in clients:
            assert client.recv(1) == b"{"


@pytest.mark.slow
def test_slow_readers_leave_no_memory_behind(no_lab: Lab) -> None:
    assert no_lab.up("--nodes", "10", "--pods-per-node", "3").code == 0
    pid = supervisor(no_lab)
    assert len(no_lab.must("commands", "-o", "json")) > 100_000
    before = resident_kib(pid)
    for _ in range(ROUNDS):
        ask_and_do_not_read(no_lab)
    wait_until(
        lambda: resident_kib(pid) < before + MAY_STAY_KIB, timeout_s=20, what=f"{before} KiB again, or little more"
    )
