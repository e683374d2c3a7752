"""A pod uses every process that the lab's control group allows: the lab says so, and goes on when it ends."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import run_verb
from tests.e2e.lab import Lab, fresh_name
from tests.waiting import wait_until

TREES = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
"""Of version 1, and of version 2."""
ROOM = 40
"""Processes and threads that the lab may have more than at its start."""
GREEDY = f"""\
import os, time
left = {5 * ROOM}
while left:
    try:
        child = os.fork()
    except OSError:
        time.sleep(0.05)
        continue
    if not child:
        break
    left -= 1
time.sleep(600)
"""
"""Takes all there is, and what others give back; it is satisfied once the limit is gone."""
VICTIM_S = "77123"
"""A word by which its process is found."""


def pod(name: str, *command: str) -> str:
    container = {"name": "c", "image": "shell", "command": command}
    spec = {"nodeName": "node1", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


class Group:
    """A control group that limits processes."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError where none can be made."""
        self.directory = directory
        directory.mkdir()
        if not (directory / "pids.max").exists():
            directory.rmdir()
            raise OSError("its tree has no limit of processes")

    @property
    def joining(self) -> list[str]:
        """Return what is put before a command that runs in the group."""
        return ["sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(self.directory)]

    @property
    def current(self) -> int:
        return int((self.directory / "pids.current").read_text())

    def limit(self, most: str) -> None:
        (self.directory / "pids.max").write_text(most)


@pytest.fixture
def group() -> Iterator[Group]:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a control group")
    tree = TREES[0] if TREES[0].is_dir() else TREES[1]
    try:
        made = Group(tree / fresh_name("processes"))
    except OSError as failure:
        pytest.skip(f"no control group limits processes here: {failure}")
    yield made
    wait_until(lambda: made.current == 0, timeout_s=10, what="nothing is left in the group")
    made.directory.rmdir()


@pytest.fixture
def limited_lab(group: Group) -> Iterator[Lab]:
    lab = Lab(fresh_name("many"))
    try:
        up = run_verb("up", "two_nodes", prefix=group.joining, extra=lab.environment, limit_s=110)
        assert up.code == 0, up
        yield lab
    finally:
        group.limit("max")
        lab.down()


def victims(group: Group) -> list[int]:
    """Return the processes of the pod victim."""
    found = []
    for pid in (group.directory / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{VICTIM_S}\0".encode():
                found.append(int(pid))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lab_that_had_no_process_left_goes_on_as_before(limited_lab: Lab, group: Group) -> None:
    lab = limited_lab
    lab.must("apply", "-f", "-", "--wait", stdin=pod("victim", "sleep", VICTIM_S))
    (victim,) = victims(group)
    group.limit(str(group.current + ROOM))
    lab.must("apply", "-f", "-", stdin=pod("greedy", "python3", "-c", GREEDY))

    def refused() -> str:
        answer = lab.testbed("status")
        return answer.err if answer.code == 1 else ""

    said = wait_until(refused, timeout_s=30, what="the lab says that it can start no thread")
    assert said.startswith("error: the lab can start no thread: a limit of processes is reached"), said
    assert len(said.splitlines()) == 1
    os.kill(victim, signal.SIGKILL)
    wait_until(refused, timeout_s=10, what="it says so again")
    group.limit("max")
    wait_until(lambda: lab.testbed("status").code == 0, timeout_s=20, what="the lab answers again")
    lab.must("delete", "pod", "greedy")
    wait_until(lambda: lab.json("status")["state"] == "ready", timeout_s=60, what="the lab is ready")
    wait_until(lambda: victims(group) not in ([], [victim]), timeout_s=30, what="the killed container runs again")
    lab.must("apply", "-f", "-", "--wait", stdin=pod("later", "sleep", "600"))
    assert ", 0 lost" in lab.must("ping")
    assert lab.down().code == 0
