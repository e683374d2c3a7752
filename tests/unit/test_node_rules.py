"""Rules of nodes: which failures become events, and which are forgotten."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import NetlinkError
from testbed.lab.events import Events
from testbed.lab.kept_table import TableRefused
from testbed.lab.node import LabNode
from testbed.lab.node_rules import NodeRules, RepairableRules
from testbed.lab.nodes import Nodes
from tests.waiting import wait_until


class Rules:
    """The rules of one node: what the next repairs do."""

    def __init__(self, *repairs: bool | Exception) -> None:
        self.left = list(repairs)
        self.written = 0

    def repair(self) -> bool:
        """Do the next one; False behind the last."""
        now = self.left.pop(0) if self.left else False
        if isinstance(now, Exception):
            raise now
        return now

    def write(self) -> None:
        """Write."""
        self.written += 1


def refuse(failure: Exception) -> Callable[[], None]:
    def write() -> None:
        raise failure

    return write


class Lab:
    """Two nodes, their events and one kind of rules."""

    def __init__(self, directory: Path) -> None:
        self.nodes = Nodes()
        self.nodes.add(cast("LabNode", SimpleNamespace(name=name)) for name in ("node1", "node2"))
        self._events = Events(directory / "events.jsonl")
        self.rules = NodeRules(self.nodes, self._events, "it was changed", restored="Restored", failed="Failed")

    def check(self, rules: Iterable[tuple[str, RepairableRules]], write_again: Callable[[], Any] = int) -> None:
        """Check once."""
        self.rules.check(rules, write_again)

    @property
    def events(self) -> list[tuple[str, str, str]]:
        """Return object, reason and message of each event."""
        return [(one["object"], one["reason"], one["message"]) for one in self._events]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_another_program_changed_is_restored_and_reported(lab: Lab) -> None:
    lab.check([("node1", Rules(False)), ("node2", Rules(True))])
    assert lab.events == [("node/node2", "Restored", "it was changed; restored them")]


@pytest.mark.parametrize("failure", [OSError("no such process"), TableRefused("no such process")])
def test_a_failure_that_lasts_is_reported_once_although_writing_succeeds(lab: Lab, failure: OSError) -> None:
    one = Rules(failure, failure, failure)

    def write_again() -> None:
        lab.rules.write([("node1", one.write)])

    for _ in range(3):
        lab.check([("node1", one)], write_again)
        assert lab.rules.failures == {"node1": "node1: no such process"}
    assert one.written == 2
    assert lab.events == [("node/node1", "Failed", "node1: no such process")]
    lab.check([("node1", one)], write_again)
    assert lab.rules.failures == {}


def test_a_failure_that_comes_back_is_reported_again(lab: Lab) -> None:
    one = Rules(OSError("a"), False, OSError("a"))
    for _ in range(3):
        lab.check([("node1", one)])
    assert len(lab.events) == 2


def test_one_family_of_a_node_that_is_right_does_not_hide_the_other(lab: Lab) -> None:
    lab.check([("node1", Rules(OSError("IPv4"))), ("node1", Rules(True))])
    assert lab.rules.failures == {"node1": "node1: IPv4"}


def test_writing_reports_each_machine_that_failed_and_goes_on(lab: Lab) -> None:
    one = Rules()
    failing = [("node1", refuse(TableRefused("full"))), ("gw", refuse(NetlinkError("no route")))]
    lab.rules.write([*failing, ("node2", one.write)])
    assert one.written == 1
    assert lab.rules.failures == {"node1": "node1: full", "gw": "gw: no route"}
    assert [subject for subject, _, _ in lab.events] == ["node/node1", "node/gw"]
    lab.rules.write([])
    assert lab.rules.failures == {}


def test_a_write_for_which_no_thread_can_be_started_is_a_failure_and_made_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    one = Rules()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse_thread)
        lab.rules.write([("node1", one.write)])
    assert lab.rules.failures == {"node1": "node1: can't start new thread"}
    lab.rules.write([("node1", one.write)])
    assert (lab.rules.failures, one.written) == ({}, 2)


def test_a_node_that_is_being_deleted_is_no_failure(lab: Lab) -> None:
    lab.nodes.forget(lab.nodes["node1"])
    lab.rules.write([("node1", refuse(OSError("gone")))])
    lab.check([("node1", Rules(OSError("gone")))])
    assert (lab.rules.failures, lab.events) == ({}, [])


def test_the_watch_outlives_a_check_that_fails_in_an_unexpected_way(lab: Lab) -> None:
    turns: SimpleQueue[list[tuple[str, Rules]]] = SimpleQueue()  # an empty one stops the thread
    turns.put([("node1", Rules(KeyError("nftables")))])
    turns.put([("node1", Rules(True))])
    lab.rules.start(0.01, turns.get)
    wait_until(lambda: lab.events, timeout_s=10, what="an event")
    assert [reason for _, reason, _ in lab.events] == ["Restored"]
