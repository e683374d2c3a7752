"""Which process is taken for a lab's PID 1: nothing that an ordinary user, another lab or a pod can pretend."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.host.lab_process import (
    SUPERVISOR,
    SUPERVISORS,
    ProcessFacts,
    end,
    init_command,
    inits_of,
    is_init_of,
    read_facts,
    rundir_of,
)
from testbed.places import PAUSE
from tests.waiting import wait_until

RUNDIR = Path("/run/testbed/two-nodes")
COMMAND = tuple(init_command(Path("/clone/pause"), 5, "/clone/.venv/bin/python", RUNDIR, 8))
INIT = ProcessFacts(uid=0, program="pause", argv=COMMAND, pids=(4711, 1))


def test_first_process_of_a_lab_is_recognised_from_outside_and_from_inside() -> None:
    assert rundir_of(INIT, 0) == RUNDIR
    assert rundir_of(replace(INIT, pids=(1,)), 0) == RUNDIR


@pytest.mark.parametrize("supervisor", SUPERVISORS)
def test_labs_of_older_versions_are_recognised(supervisor: str) -> None:
    older = tuple(supervisor if word == SUPERVISOR else word for word in COMMAND)
    assert rundir_of(replace(INIT, argv=older), 0) == RUNDIR


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (replace(INIT, uid=1000), "a user's own copy of pause, in namespaces of the user's"),
        (replace(INIT, program="sleep"), "a program that only calls itself so"),
        (replace(INIT, pids=(4711,)), "not the first of a PID namespace"),
        (replace(INIT, pids=(4711, 7)), "in a lab, but not its first"),
        (replace(INIT, pids=(4711, 33, 1)), "a lab in a container, or a pod in a lab"),
        (replace(INIT, pids=()), "nothing is known"),
        (replace(INIT, argv=("/clone/pause",)), "Kubernetes' pause"),
        (replace(INIT, argv=COMMAND[:4]), "no supervisor"),
        (replace(INIT, argv=(*COMMAND[:4], "sleep", str(RUNDIR))), "another supervisor"),
        (replace(INIT, argv=(COMMAND[0], "--quiet", *COMMAND[2:])), "a pod's"),
        (replace(INIT, argv=COMMAND[: COMMAND.index("testbed.supervisor.lab_init") + 1]), "no directory"),
        (replace(INIT, argv=()), "a kernel thread"),
    ],
)
def test_other_processes_are_no_lab(facts: ProcessFacts, what: str) -> None:
    assert rundir_of(facts, 0) is None, what


def test_another_labs_first_process_is_not_this_labs() -> None:
    assert (
        rundir_of(replace(INIT, argv=tuple(init_command(PAUSE, 5, "python", Path("/run/testbed/b"), 8))), 0) != RUNDIR
    )


def test_a_process_that_is_no_labs_survives_the_attempt_to_end_it(tmp_path: Path) -> None:
    # Of our own user and with all the words of a lab's, but not the first process of a PID namespace.
    lifeline, other = os.pipe()
    command = [str(PAUSE), "--init", "0", "--", "sh", "-c", "exec sleep 60", "-m", SUPERVISOR, str(tmp_path), "8"]
    with subprocess.Popen(command, stdin=lifeline, stdout=subprocess.DEVNULL) as process:
        try:
            # The kernel shows the words of a program a moment after the program.
            wait_until(
                lambda: _would_be(process.pid) == tmp_path, timeout_s=30, what="it looks like a lab's but for that"
            )
            assert not end(process.pid, tmp_path, 1.0)
            assert inits_of(tmp_path) == []
            assert process.poll() is None
        finally:
            process.terminate()
            os.close(lifeline)
            os.close(other)


def _would_be(pid: int) -> Path | None:
    facts = read_facts(pid)
    return None if facts is None else rundir_of(replace(facts, pids=(pid, 1)), os.geteuid())


def test_ended_and_foreign_processes_are_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert read_facts(process.pid) is None
    assert not is_init_of(process.pid, tmp_path)
    assert not end(process.pid, tmp_path, 1.0)
    assert not end(os.getpid(), tmp_path, 1.0), "this very process"
