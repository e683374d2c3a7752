"""`up` may be ended at any moment and in any way: the host is as before, and the next `up` works."""

import os
import random
import signal
import time
from functools import partial

import pytest

from tests.e2e.host import Footprint, footprint, network_state
from tests.e2e.lab import Lab
from tests.waiting import wait_until

KILLS = 20
LONGEST_START_S = 2.5
"""About as long as two_nodes takes to get ready, so that every phase is hit."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def _inits_of(lab: Lab) -> list[int]:
    """Return the first processes of labs with this name, seen from the host."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if b"--init" in words and f"/run/testbed/{lab.name}".encode() in words:
                found.append(int(name))
    return found


def _is_ready(lab: Lab) -> bool:
    answer = lab.testbed("status", "-o", "json")
    return answer.code == 0 and answer.json["state"] == "ready"


class _Gone:
    """True once nothing of the lab is left; says what is when printed."""

    def __init__(self, left: list[str]) -> None:
        self.left = left

    def __bool__(self) -> bool:
        return not self.left

    def __repr__(self) -> str:
        return f"still there: {self.left}"


def _gone(lab: Footprint) -> _Gone:
    return _Gone([f"{left} {_command_of(left)}" for left in lab.remains()])


def _command_of(left: str) -> str:
    try:
        with open(f"/proc/{left.split()[1]}/status") as file:
            return " ".join(line.strip() for line in file.readlines()[:7])
    except (OSError, IndexError):
        return ""


@pytest.mark.row("F46")
@pytest.mark.slow
def test_twenty_random_kills_of_up_leave_the_host_as_it_was(no_lab: Lab) -> None:
    seed = int(os.environ.get("TESTBED_SEED") or random.SystemRandom().randrange(2**32))
    chance = random.Random(seed)
    before = network_state()
    for turn in range(KILLS):
        after_s, number = chance.uniform(0.0, LONGEST_START_S), chance.choice(SIGNALS)
        where = f"seed {seed}, turn {turn}: signal {number} after {after_s:.2f} s"
        with no_lab.running("up", "two_nodes", "--lab", no_lab.name) as up:
            deadline = time.monotonic() + after_s
            while up.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            inits = _inits_of(no_lab)
            prints = [footprint(init) for init in inits]
            up.send_signal(number)
            up.wait(10)
        if _inits_of(no_lab) and _is_ready(no_lab):
            # It was faster than we: a lab that is ready outlives its `up`.
            no_lab.down()
        wait_until(lambda: not _inits_of(no_lab), timeout_s=2, what=f"no lab is left ({where})")
        for taken in prints:
            wait_until(partial(_gone, taken), timeout_s=2, what=f"nothing is left ({where})")
        assert network_state() == before, where
    assert no_lab.up("two_nodes").code == 0, f"seed {seed}"
    assert no_lab.json("ping")[0]["received"] == 1
