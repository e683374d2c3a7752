"""Standard streams that are closed or full, a terminal that goes, a lab that dies: one line, and nothing left."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from testbed.control.client import RUN_ROOT
from tests.e2e.command import TESTBED, environment_with
from tests.e2e.lab import Lab
from tests.waiting import wait_until

LIMIT_S = 60.0
CLOSED = {"input": "<&-", "output": ">&-", "errors": "2>&-", "all three": "<&- >&- 2>&-"}


def shell(lab: Lab, script: str, *, limit_s: float = LIMIT_S) -> "subprocess.CompletedProcess[str]":
    """Run a script in which `testbed` is this one, for one lab."""
    function = f'testbed() {{ "{TESTBED[0]}" -m testbed "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + script],
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
        env=environment_with({"TESTBED_LAB": lab.name}),
        stdin=subprocess.DEVNULL,
    )


def remains(lab: Lab) -> list[str]:
    """Return what is left of it below /run."""
    return [name for name in os.listdir(RUN_ROOT) if name.strip(".").startswith(lab.name)]


@pytest.mark.parametrize("verb", ["get pods", "status -o json", "ping", "events", "graph -o svg", "--help"])
@pytest.mark.parametrize(("where", "why"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    two_nodes: Lab, verb: str, where: str, why: str
) -> None:
    done = shell(two_nodes, f"testbed {verb} {where}")
    assert done.stderr.splitlines() == [f"error: standard output: cannot be written ({why})"]
    assert done.returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error(two_nodes: Lab) -> None:
    done = shell(two_nodes, "testbed get pods | true; echo ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1")


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(two_nodes: Lab) -> None:
    script = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK | fcntl.fcntl(1, fcntl.F_GETFL))"
    done = shell(two_nodes, f"(python3 -c '{script}'; testbed graph -o html) | (sleep 1; cat) | tail -c 8")
    assert (done.stdout.strip(), done.stderr) == ("</html>", "")


@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_becomes_no_other_file(two_nodes: Lab, closed: str) -> None:
    assert shell(two_nodes, f"testbed exec shell1 -- true {CLOSED[closed]}").returncode == 0
    seen = shell(two_nodes, "testbed exec shell1 -- readlink /proc/self/fd/0 <&-")
    assert seen.stdout.strip() == "/dev/null"
    assert shell(two_nodes, "testbed exec shell1 -- cat <&-").returncode == 0


def test_a_lab_does_not_depend_on_being_looked_at_while_it_starts(no_lab: Lab) -> None:
    done = shell(no_lab, "testbed up two_nodes > /dev/full", limit_s=60)
    assert done.stderr.splitlines() == ["error: standard output: cannot be written (No space left on device)"]
    assert done.returncode == 1
    assert no_lab.json("status")["state"] == "ready"


def test_a_character_that_the_locale_misses_is_no_traceback(two_nodes: Lab) -> None:
    done = shell(two_nodes, "PYTHONIOENCODING=ascii testbed trace shell1 shell2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2192" in done.stdout or "->" in done.stdout


@pytest.mark.parametrize("after_s", [0.4, 0.7, 1.0, 1.4])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_up_that_is_hung_up_leaves_nothing(no_lab: Lab, number: int, after_s: float) -> None:
    with no_lab.running("up", "two_nodes", "--lab", no_lab.name) as up:
        time.sleep(after_s)
        up.send_signal(number)
        code = up.wait(40)
    status = no_lab.testbed("status", "-o", "json")
    if code == 0 or (status.code == 0 and status.json["state"] == "ready"):
        # A lab that is ready outlives its `up`, which may still be printing.
        pytest.skip("it was faster than we")
    # Before it can handle the signal there is nothing to undo.
    assert code in (130, -number)
    assert remains(no_lab) == []


def test_up_below_nohup_outlives_its_terminal(no_lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as output:
        up = subprocess.Popen(
            ["nohup", *TESTBED, "up", "two_nodes", "--lab", no_lab.name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment_with({}),
        )
    wait_until(lambda: "underlay" in log.read_text(), timeout_s=60, what="the lab is starting")
    up.send_signal(signal.SIGHUP)
    assert up.wait(90) == 0
    assert no_lab.json("status")["state"] == "ready"


def test_up_reports_that_its_lab_ended_while_it_started(no_lab: Lab) -> None:
    # So many that the lab is not ready before `down`, which starts a Python of its own, has ended it.
    with no_lab.running("up", "--nodes", "8", "--pods-per-node", "2", "--lab", no_lab.name) as up:
        record = RUN_ROOT / no_lab.name / "lab.json"
        wait_until(record.exists, timeout_s=60, what="the lab is starting")
        assert no_lab.testbed("down", "--lab", no_lab.name).code == 0
        _, said = up.communicate(timeout=60)
    (line,) = said.decode().splitlines()
    assert line.startswith("error: up: the lab ended while it started (")
    assert up.returncode == 1
    assert remains(no_lab) == []


def test_when_memory_ends_the_kernel_ends_a_lab_before_what_reports_it(two_nodes: Lab) -> None:
    pid = json.loads((RUN_ROOT / two_nodes.name / "lab.json").read_text())["pid"]
    inside = two_nodes.run("shell1", "cat", "/proc/self/oom_score_adj")
    own = Path("/proc/self/oom_score_adj").read_text()
    assert int(inside) == int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > int(own)


def test_a_program_that_ignores_the_hang_up_of_its_terminal_ends_with_the_connection(two_nodes: Lab) -> None:
    def sleeping() -> bool:
        return "7777" in two_nodes.run("shell1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    with two_nodes.terminal("exec", "-it", "shell1", "--", "sh", "-c", "trap '' HUP; echo begun; sleep 7777") as client:
        client.expect("begun")
        wait_until(sleeping, timeout_s=20, what="it sleeps")
        client.close()
    wait_until(lambda: not sleeping(), timeout_s=30, what="nothing of it is left in the pod")


def test_a_process_with_a_session_of_its_own_keeps_running_as_a_daemon_does(two_nodes: Lab) -> None:
    begun = two_nodes.run("shell1", "sh", "-c", "setsid sleep 8888 >/dev/null 2>&1 & echo $!")
    assert begun.strip().isdecimal()
    try:
        assert "8888" in two_nodes.run("shell1", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    finally:
        two_nodes.run("shell1", "pkill", "-f", "^sleep 8888")
