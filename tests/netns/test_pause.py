import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.places import PAUSE
from testbed.processes import namespaces as ns
from tests.netns.pods import ended, wait_until

pytestmark = pytest.mark.root

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start pause with arguments as PID 1 of a PID namespace."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes PID namespaces")
    if not PAUSE.exists():
        pytest.skip(f"{PAUSE} is not built (scripts/install builds it)")
    with ExitStack() as undo:

        def start(*arguments: str, pass_fds: tuple[int, ...] = ()) -> "subprocess.Popen[str]":
            def spawn() -> "subprocess.Popen[str]":
                ns.unshare(ns.CLONE_NEWPID)
                return subprocess.Popen(
                    [str(PAUSE), *arguments],
                    stderr=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    pass_fds=pass_fds,
                )

            process = undo.enter_context(ns.in_new_thread(spawn))
            undo.callback(process.kill)
            return process

        yield start


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def waits(process: "subprocess.Popen[str]") -> None:
    """Wait until it sleeps in poll or read, its signals blocked."""
    status = Path(f"/proc/{process.pid}/status")
    wait_until(lambda: "SigBlk:\t0000000000000000" not in status.read_text(), "pause blocks its signals")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_pause_ends_with_success_and_a_reason(start: Start, number: signal.Signals) -> None:
    pause = start()
    waits(pause)
    pause.send_signal(number)
    _, errors = pause.communicate(timeout=30)
    assert (pause.returncode, errors) == (0, f"Shutting down, got signal: {signal.strsignal(number)}\n")


def test_pause_ignores_other_signals_as_pid_1(start: Start) -> None:
    pause = start()
    waits(pause)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        pause.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        pause.wait(timeout=0.2)


def test_pause_prints_its_version_in_any_case() -> None:
    for flag in ("-v", "-V"):
        result = subprocess.run([PAUSE, flag], capture_output=True, text=True, check=True)
        assert result.stdout.startswith("pause ")


def test_pause_warns_when_it_is_not_pid_1_unless_that_is_meant() -> None:
    for arguments, wanted in (([], True), (["--quiet"], False)):
        with subprocess.Popen([PAUSE, *arguments], stderr=subprocess.PIPE, text=True) as pause:
            waits(pause)
            pause.terminate()
            _, errors = pause.communicate(timeout=30)
        assert ("should be the first process" in errors) == wanted


def test_bad_arguments_are_one_line_and_exit_code_2() -> None:
    of_init = (["--init", "3"], ["--init", "x", "--", "true"], ["--init", "3", "true", "true"])
    for arguments in (["--nope"], ["--as"], ["--as", "0"], ["--as", "1x"], *of_init):
        result = subprocess.run([PAUSE, *arguments], capture_output=True, text=True, check=False, timeout=30)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: pause: ")


FREE_PID = 3008
"""In a new PID namespace."""


def test_pause_takes_the_number_that_it_is_given_and_is_a_child_of_whoever_asked(start: Start) -> None:
    script = f"""
        {PAUSE} --as {FREE_PID} || exit 1
        test "$(cut -d ' ' -f 4 /proc/{FREE_PID}/stat)" = $$ || exit 2
        test "$(cat /proc/{FREE_PID}/comm)" = pause || exit 3
        {PAUSE} --as {FREE_PID} && exit 4
        kill -KILL {FREE_PID}
        until {PAUSE} --as {FREE_PID} 2> /dev/null; do :; done
    """
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "error: pause: --as PID: File exists\n"), done


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    """Yield the reading and the writing end; the test may close the writing end itself."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        assert True, "the test closed it"


def test_init_ends_with_the_exit_code_of_its_command(start: Start, lifeline: tuple[int, int]) -> None:
    for script, code in (("exit 7", 7), ("kill -9 $$", 137), ("exit 0", 0)):
        init = start("--init", str(lifeline[0]), "--", "sh", "-c", script, pass_fds=(lifeline[0],))
        assert init.wait(timeout=30) == code


def test_init_reports_a_missing_command(start: Start, lifeline: tuple[int, int]) -> None:
    init = start("--init", str(lifeline[0]), "--", "/no/such/program", pass_fds=(lifeline[0],))
    _, errors = init.communicate(timeout=30)
    assert init.returncode == 127
    assert "/no/such/program" in errors


def test_init_and_everything_in_its_namespace_end_when_the_starter_dies_before_ready(
    start: Start, lifeline: tuple[int, int]
) -> None:
    reading, writing = lifeline
    init = start("--init", str(reading), "--", "sh", "-c", "sleep 1000 & sleep 1000", pass_fds=(reading,))
    wait_until(lambda: bool(children(init.pid)) and len(children(children(init.pid)[0])) == 2, "the command runs")
    family = [*children(init.pid), *children(children(init.pid)[0])]
    os.close(writing)
    assert init.wait(timeout=30) == 1
    wait_until(lambda: all(ended(pid) for pid in family), "everything ended")


def test_init_outlives_its_starter_once_declared_ready(start: Start, lifeline: tuple[int, int]) -> None:
    reading, writing = lifeline
    init = start("--init", str(reading), "--", "sleep", "1000", pass_fds=(reading,))
    os.write(writing, b"r")
    wait_until(lambda: str(reading) not in os.listdir(f"/proc/{init.pid}/fd"), "init let go of its lifeline")
    os.close(writing)
    with pytest.raises(subprocess.TimeoutExpired):
        init.wait(timeout=0.2)
    init.terminate()
    assert init.wait(timeout=30) == 128 + signal.SIGTERM


def test_init_does_not_hand_its_lifeline_to_the_command(start: Start, lifeline: tuple[int, int]) -> None:
    script = f"test ! -e /proc/self/fd/{lifeline[0]}"
    init = start("--init", str(lifeline[0]), "--", "sh", "-c", script, pass_fds=(lifeline[0],))
    assert init.wait(timeout=30) == 0


def test_init_reaps_the_orphans_of_its_command(start: Start, lifeline: tuple[int, int]) -> None:
    script = "i=0; while [ $i -lt 200 ]; do (true &); i=$((i+1)); done; exec sleep 1000"
    init = start("--init", str(lifeline[0]), "--", "sh", "-c", script, pass_fds=(lifeline[0],))
    command = Path(f"/proc/{init.pid}/task/{init.pid}/children")
    wait_until(
        lambda: bool(children(init.pid)) and "sleep" in Path(f"/proc/{children(init.pid)[0]}/comm").read_text(),
        "200 orphans made",
    )
    wait_until(lambda: len(command.read_text().split()) == 1, "0 zombies")
