"""Processes that a warm parent forks: ours in everything, and not the worse for its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.lab.certificates import Authority
from testbed.processes.warm_parent import ForkedProcess, WarmParent

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, sys
sys.path.insert(0, {root!r})
import socket
from testbed.processes.warm_process import serve
import child
words, descriptors = serve(socket.socket(fileno=int(sys.argv[1])), lambda: [{module!r}])
child.run(words, descriptors)
"""


class Place:
    """A warm parent of `child.py`, which a test may rewrite."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.module = directory / "child.py"
        self.script = directory / "parent.py"
        self.script.write_text(CHILD.format(root=str(ROOT), module=str(self.module)))
        self.warm = WarmParent(
            [sys.executable, "-S", str(self.script)], {"OF": "parent", "PYTHONDONTWRITEBYTECODE": "1"}
        )

    def child(self, body: str) -> None:
        self.module.write_text(f"import os, sys, time\ndef run(words, descriptors):\n    {body}\n")

    def start(self, *words: str, descriptors: tuple[int, ...] = ()) -> ForkedProcess:
        made = self.warm.start(words, {"OF": "child"}, self.log, descriptors)
        assert made is not None
        return made


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.warm.close()


def test_a_fork_is_our_child_with_its_own_words_environment_log_and_session(place: Place) -> None:
    place.child("print(words, os.environ, os.getppid(), os.getsid(0) == os.getpid(), sep='\\n'); sys.exit(7)")
    process = place.start("agent", "--flag")
    assert process.wait() == 7
    assert place.log.read_text().splitlines() == [
        "['agent', '--flag']",
        "environ({'OF': 'child'})",
        str(os.getpid()),
        "True",
    ]


def test_ps_shows_the_fork_by_its_own_words(place: Place) -> None:
    place.child("time.sleep(60)")
    process = place.start("python", "-m", "agent", "--of=this test")
    shown = Path(f"/proc/{process.pid}/cmdline").read_text
    wait_until(lambda: shown().rstrip("\0").split("\0") == ["python", "-m", "agent", "--of=this test"])
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_fork_gets_the_descriptors_that_came_with_the_request_and_no_other(place: Place) -> None:
    place.child("os.write(descriptors[0], ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())")
    reading, writing = os.pipe()
    process = place.start("x", descriptors=(writing,))
    os.close(writing)
    assert process.wait() == 0
    # Standard streams, the one that was given, and the listing itself.
    assert len(os.read(reading, 100).split()) == 5
    assert os.read(reading, 1) == b"", "somebody else has the descriptor too"
    os.close(reading)


def test_new_code_is_used_by_the_next_start(place: Place) -> None:
    place.child("sys.exit(1)")
    assert place.start("x").wait() == 1
    place.child("sys.exit(2)  # another size")
    assert place.start("x").wait() == 2


def test_forks_outlive_a_warm_parent_that_is_killed_and_another_takes_its_place(place: Place) -> None:
    place.child("time.sleep(60)")
    first = place.start("x")
    assert place.warm.pid is not None
    os.kill(place.warm.pid, signal.SIGKILL)
    second = place.start("x")
    for process in (first, second):
        assert Path(f"/proc/{process.pid}").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        process.send_signal(signal.SIGTERM)


ANSWERS_LATE = """
import os, sys, time
sys.path.insert(0, {root!r})
from testbed.processes import warm_process

fork = warm_process.fork_for_parent

def fork_and_answer_late():
    pid = fork()
    if pid and os.path.exists({sign!r}):
        os.unlink({sign!r})
        time.sleep(60)
    return pid

warm_process.fork_for_parent = fork_and_answer_late
"""


def zombies() -> set[int]:
    """Return our children that have ended and are not reaped."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if (state, int(parent)) == ("Z", os.getpid()):
                found.add(int(stat.parent.name))
    return found


def test_a_fork_that_is_reported_too_late_does_nothing_and_is_reaped(place: Place) -> None:
    sign = place.directory / "late"
    place.script.write_text(ANSWERS_LATE.format(root=str(ROOT), sign=str(sign)) + place.script.read_text())
    place.child("print(*words)")
    assert place.start("first").wait() == 0
    before = zombies()
    sign.touch()
    assert place.warm._channel is not None
    place.warm._channel.settimeout(3.0)
    assert place.start("second").wait() == 0
    assert not sign.exists(), "the first fork was not reported in time"
    assert place.log.read_text() == "first\nsecond\n"
    assert zombies() <= before


def test_without_a_warm_parent_nobody_is_started(place: Place) -> None:
    place.module.write_text("this is no Python\n")
    assert place.warm.start(["x"], {}, place.log, ()) is None


def test_a_module_that_starts_a_thread_is_refused(place: Place) -> None:
    place.module.write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    assert place.warm.start(["x"], {}, place.log, ()) is None


READS_A_CERTIFICATE = """
import sys
from pathlib import Path
from testbed.processes.agent_parent import warm_up
warm_up()
before = set(sys.modules)
from agent.node.warnings import read_validity
read_validity(Path(sys.argv[1]))
print(*sorted(set(sys.modules) - before))
"""


def test_a_forked_agent_reads_its_certificate_without_an_import(tmp_path: Path) -> None:
    """Imported after the fork, cryptography takes 7 MB of each agent's own and 26 ms."""
    certificate = Authority("test").issue(tmp_path, str(tmp_path), "node1").certificate
    done = subprocess.run(
        [sys.executable, "-c", READS_A_CERTIFICATE, certificate], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
