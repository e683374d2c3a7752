"""A clock that jumps is wrong, and nothing else is: sleeps, waits for children and the monotonic clock go on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.errors import WrongEnvironment
from testbed.faults.faked_clock import faked_clock

SLEEPER = """
import subprocess, time
began = time.monotonic()
time.sleep(0.05)
assert 0.05 <= time.monotonic() - began < 5
subprocess.run(["sh", "-c", "exec >&- 2>&-; sleep 0.05"], capture_output=True, timeout=30, check=True)
print(time.time(), time.monotonic())
"""


@pytest.mark.row("F39")
@pytest.mark.parametrize("offset_s", [3600, -3600, 0])
def test_a_process_with_a_wrong_clock_sleeps_and_waits_as_always(offset_s: int, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text(f"{offset_s:+d}\n")
    try:
        environment = {**os.environ, **faked_clock(str(offset))}
    except WrongEnvironment as missing:
        pytest.skip(str(missing))
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    wall, monotonic = map(float, done.stdout.split())
    assert wall - time.time() == pytest.approx(offset_s, abs=10)
    assert monotonic == pytest.approx(time.monotonic(), abs=10)
