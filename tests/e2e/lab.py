"""A lab for tests: its name, its verbs, and questions that many tests ask."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from testbed.testing.lab_handle import LabHandle, find
from tests.e2e.command import Answer, Environment, Terminal, run_verb, running

_numbers = count()
NAME_PREFIX = os.environ.get("TESTBED_TEST_LABS", "test")
"""Labs of tests start with this, so that two people's tests can run on one machine."""


def fresh_name(what: str) -> str:
    """Return a lab name that nobody else has."""
    return f"{NAME_PREFIX}-{os.getpid()}-{next(_numbers)}-{what}"


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that may or may not run; every verb here is about this one."""

    name: str

    @property
    def environment(self) -> Environment:
        """Return what names the lab to any verb."""
        return {"TESTBED_LAB": self.name}

    @property
    def handle(self) -> LabHandle:
        """Return the running lab as the plugin's users have it."""
        return find(self.name)

    def testbed(self, *words: str, stdin: str = "", prefix: Sequence[str] = ()) -> Answer:
        """Run a verb, whatever comes of it."""
        return run_verb(*words, stdin=stdin, prefix=prefix, extra=self.environment)

    def must(self, *words: str, stdin: str = "") -> str:
        """Run a verb that has to succeed; returns its standard output."""
        answer = self.testbed(*words, stdin=stdin)
        if answer.code != 0:
            pytest.fail(str(answer))
        return answer.out

    def json(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Return the answer of a verb with `-o json`."""
        answer = self.testbed(*words, "-o", "json")
        if not answer.out:
            pytest.fail(str(answer))
        return answer.json

    def up(self, *words: str) -> Answer:
        """Run `up` with this lab's name."""
        return run_verb("up", "--lab", self.name, *words, limit_s=110)

    def down(self) -> Answer:
        """Run `down` on this lab; if it is down already, that is an error in the answer and no more."""
        return run_verb("down", "--lab", self.name)

    def exec(self, target: str, *command: str, container: str | None = None, stdin: str = "") -> Answer:
        """Run a command in a pod or on a node, whatever comes of it."""
        chosen = () if container is None else ("-c", container)
        return self.testbed("exec", *chosen, target, "--", *command, stdin=stdin)

    def run(self, target: str, *command: str, container: str | None = None) -> str:
        """Run a command in a pod or on a node that has to succeed; returns its standard output."""
        answer = self.exec(target, *command, container=container)
        if answer.code != 0:
            pytest.fail(str(answer))
        return answer.out

    def terminal(self, *words: str) -> Terminal:
        """Return a verb in a terminal."""
        return Terminal(*words, extra=self.environment)

    def running(self, *words: str, **streams: Any) -> Any:  # noqa: ANN401 - those of `running`
        """Return a verb that runs meanwhile."""
        return running(*words, extra=self.environment, **streams)

    def node(self, name: str) -> dict[str, Any]:
        """Return a node's part of the status."""
        return _named(self.json("status")["nodes"], name)

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod's part of the status."""
        return _named(self.json("status")["pods"], name)

    def container(self, pod: str, container: str) -> dict[str, Any]:
        """Return a container's status, with the id of its first process inside the lab."""
        found = self.json("get", "pods", pod)
        return {**_named(found["status"]["containerStatuses"], container), "pid": found["testbed"]["pids"][container]}

    def pings(self, source: str, destination: str) -> bool:
        """Return whether one ping is answered within two seconds."""
        return self.exec(source, "ping", "-c1", "-W2", destination).code == 0

    def kill_9(self, pid: int) -> None:
        """Kill a process whose id is that inside the lab. Any node sees them all."""
        self.run("node1", "kill", "-9", str(pid))


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


@contextlib.contextmanager
def lab_of(cluster: str | Path, *options: str) -> Iterator[Lab]:
    """Yield a running lab, taken down afterwards."""
    lab = Lab(fresh_name("lab"))
    try:
        answer = lab.up(str(cluster), *options)
        if answer.code != 0:
            pytest.fail(str(answer))
        yield lab
    finally:
        lab.down()


def kernel_has(backend: str) -> bool:
    """Return whether labs with the backend can be made here."""
    checks = {check["name"]: check for check in run_verb("doctor", "-o", "json").json}
    return checks.get(f"kernel: {backend}", {"ok": True})["ok"] is True


def skip_without(backend: str) -> None:
    """Skip the test where the kernel lacks the backend."""
    if not kernel_has(backend):
        pytest.skip(f"this kernel has no {backend}")
