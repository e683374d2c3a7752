"""A lab that another version of the testbed runs, as after `git pull`: every verb says so in a line, `down` works."""

import json
from pathlib import Path

import pytest

from testbed.control.wire import PROTOCOL
from tests.e2e.lab import Lab

VERBS = (
    "status",
    "status -o json",
    "get pods",
    "get nodes -o json",
    "describe node node1",
    "events",
    "logs shell1",
    "ping",
    "check",
    "trace shell1 shell2",
    "graph",
    "exec shell1 -- true",
    "shell",
    "etcdctl -- version",
    "cli",
    "capture all -c 1",
    "fault list",
    "fault agent kill node1",
    "restart agent node1",
    "iperf shell1 shell2",
    "node drain node1",
    "scale deployment web --replicas 1",
    "delete pod shell1",
    "commands",
    "forward shell1:80",
    "ui",
    "up two_nodes",
)


@pytest.mark.parametrize(("protocol", "word"), [(None, "an older"), (PROTOCOL + 1, "a newer")])
def test_every_verb_says_that_the_lab_is_of_another_version_and_down_works(
    no_lab: Lab, protocol: int | None, word: str
) -> None:
    assert no_lab.up("two_nodes").code == 0
    file = Path("/run/testbed") / no_lab.name / "lab.json"
    record = json.loads(file.read_text())
    assert record.pop("protocol") == PROTOCOL
    file.write_text(json.dumps(record if protocol is None else {**record, "protocol": protocol}))
    for verb in VERBS:
        answer = no_lab.testbed(*verb.split())
        (line,) = answer.err.splitlines()
        assert answer.code == 1, answer
        assert line.startswith(f"error: lab {no_lab.name}: runs {word} testbed (protocol "), answer
        assert line.endswith(f"sudo testbed down --lab {no_lab.name}"), answer
    assert no_lab.down().out == f"lab {no_lab.name} is down\n"
    assert not file.exists()
