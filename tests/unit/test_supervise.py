import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.processes.supervise import RestartPolicy, Supervised

QUICK = RestartPolicy(first_delay_s=0.01)


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def supervise() -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def supervise(
        argv: list[str], policy: RestartPolicy = QUICK, on_change: Callable[[Supervised], None] = lambda _: None
    ) -> Supervised:
        process = Supervised("test", lambda: subprocess.Popen(argv), policy, on_change)
        made.append(process)
        return process

    yield supervise
    for process in made:
        process.stop(grace_s=0.0)


def test_delays_double_up_to_the_maximum() -> None:
    policy = RestartPolicy(first_delay_s=0.2, max_delay_s=10.0)
    delays = [policy.delay_s(failures) for failures in (1, 2, 3, 4, 7, 100)]
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 10.0, 10.0])


def test_a_killed_process_starts_again(supervise: Callable[..., Supervised]) -> None:
    process = supervise(["sleep", "100"])
    process.start()
    first = process.pid
    process.kill()
    wait_until(lambda: process.restarts == 1 and process.pid is not None)
    assert process.pid != first
    assert process.exit_code == -signal.SIGKILL


def test_a_process_has_just_started_when_it_is_reported_as_running(supervise: Callable[..., Supervised]) -> None:
    ran: list[float] = []
    process = supervise(["sleep", "100"], QUICK, lambda changed: ran.append(changed.running_for_s))
    process.start()
    assert ran[0] < 5


@pytest.mark.parametrize(
    ("when", "code", "again"), [("Never", 1, False), ("OnFailure", 0, False), ("OnFailure", 1, True)]
)
def test_the_policy_decides(supervise: Callable[..., Supervised], when: str, code: int, again: bool) -> None:
    states: list[str] = []
    policy = RestartPolicy(when, first_delay_s=60.0)  # type: ignore[arg-type]  # one of the three words
    process = supervise(["sh", "-c", f"exit {code}"], policy, lambda changed: states.append(changed.state))
    process.start()
    wait_until(lambda: len(states) == 2)
    assert states == ["running", "backoff" if again else "exited"]


def test_stop_ends_a_process_that_ignores_term_after_the_grace(supervise: Callable[..., Supervised]) -> None:
    process = supervise(["python3", "-S", "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"])
    process.start()
    status = Path(f"/proc/{process.pid}/status")

    def ignores_term() -> bool:
        ignored = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
        return bool(int(ignored.split()[1], 16) & 1 << signal.SIGTERM - 1)

    wait_until(ignores_term)
    process.stop(grace_s=0.02)
    assert (process.state, process.exit_code) == ("stopped", -signal.SIGKILL)


def test_stop_does_not_wait_out_a_back_off(supervise: Callable[..., Supervised]) -> None:
    process = supervise(["false"], RestartPolicy(first_delay_s=60.0, max_delay_s=60.0))
    process.start()
    wait_until(lambda: process.state == "backoff")
    begun = time.monotonic()
    process.stop()
    assert process.state == "stopped"
    assert time.monotonic() - begun < 5


def test_a_stop_during_a_restart_leaves_no_process_behind() -> None:
    made: list[subprocess.Popen[bytes]] = []
    restarting, go_on = threading.Event(), threading.Event()

    def start() -> subprocess.Popen[bytes]:
        if made:
            restarting.set()
            go_on.wait(30)
        made.append(subprocess.Popen(["sleep", "100"]))
        return made[-1]

    process = Supervised("test", start, QUICK)
    process.start()
    process.kill()
    assert restarting.wait(30)
    stopper = threading.Thread(target=process.stop)
    stopper.start()
    go_on.set()
    stopper.join(30)
    assert not stopper.is_alive()
    assert [each.poll() for each in made] == [-signal.SIGKILL, -signal.SIGTERM]


def test_a_held_process_stays_away_until_it_is_resumed(supervise: Callable[..., Supervised]) -> None:
    process = supervise(["sleep", "100"])
    process.start()
    process.hold(grace_s=0.0)
    wait_until(lambda: process.state == "stopped")
    assert (process.pid, process.exit_code, process.restarts) == (None, -signal.SIGKILL, 0)
    process.resume()
    wait_until(lambda: process.state == "running")
    assert process.restarts == 1
    process.kill()
    wait_until(lambda: process.restarts == 2)


def test_hold_ends_a_back_off_and_stop_ends_a_hold(supervise: Callable[..., Supervised]) -> None:
    process = supervise(["false"], RestartPolicy(first_delay_s=60.0, max_delay_s=60.0))
    process.start()
    wait_until(lambda: process.state == "backoff")
    process.hold()
    wait_until(lambda: process.state == "stopped")
    begun = time.monotonic()
    process.stop()
    assert time.monotonic() - begun < 5
