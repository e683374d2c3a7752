"""When the main loop looks at links: a backend's call is never lost, and other programs' rules are no hurry."""

import math
import threading
from types import SimpleNamespace
from typing import cast

import pytest

from agent.agent import PARTS, Agent
from agent.daemon.watchdog import Watchdog
from agent.kernel.monitor import Monitor
from agent.node.health import Readiness
from agent.node.setup import NodeSetup
from agent.node.underlay_watch import UnderlayWatch
from agent.options.options import Options


class SetAfterTheLook(threading.Event):
    """Another thread sets it right after it was found clear."""

    def is_set(self) -> bool:
        found = super().is_set()
        self.set()
        return found


def test_trouble_that_comes_while_the_main_loop_looks_is_kept_for_its_next_round() -> None:
    agent = Agent.__new__(Agent)
    agent._trouble = SetAfterTheLook()
    assert not agent._trouble_came()
    assert agent._trouble_came()


def test_trouble_is_reported_once() -> None:
    agent = Agent.__new__(Agent)
    agent._trouble = threading.Event()
    agent._trouble.set()
    assert agent._trouble_came()
    assert not agent._trouble_came()


class WokenAllTheTime:
    """A monitor that another program's rules wake a hundred times a second, and the clock."""

    def __init__(self, stop: threading.Event, end_s: float) -> None:
        self.now = 0.0
        self._stop = stop
        self._end_s = end_s

    def monotonic(self) -> float:
        return self.now

    def wait(self, _timeout_s: float) -> bool:
        self.now += 0.01
        if self.now >= self._end_s:
            self._stop.set()
        return False


class CountedSetup:
    """Only counts."""

    links = 0

    def converge_links(self) -> None:
        self.links += 1

    def converge_unreported(self) -> None:
        """Rules and files are no matter here."""


def test_while_something_is_not_ready_links_are_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent.__new__(Agent)
    agent._options, agent._readiness, agent._watchdog = Options(), Readiness(PARTS), Watchdog({})
    agent._stop, agent._trouble, agent._lock = threading.Event(), threading.Event(), threading.Lock()
    agent._fenced_at, agent._broken, agent._announced = None, None, False
    monitor, setup = WokenAllTheTime(agent._stop, end_s=5.5), CountedSetup()
    monkeypatch.setattr("agent.agent.time", monitor)
    underlay = cast("UnderlayWatch", SimpleNamespace(due_at_s=math.inf))
    assert agent._keep_up(cast("NodeSetup", setup), cast("Monitor", monitor), None, underlay) == 0
    assert setup.links == 5
