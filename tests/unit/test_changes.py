"""Subscribers hear of every change, bursts are one call, and one can wait until all have acted."""

import threading

from testbed.lab.changes import Changes
from tests.waiting import wait_until


def test_a_subscriber_is_called_at_once_and_after_every_change() -> None:
    changes, calls = Changes(), []
    changes.subscribe("one", lambda: calls.append(1))
    wait_until(lambda: len(calls) == 1, timeout_s=5, what="the first look")
    assert changes.notify_and_wait(5) == []
    assert len(calls) == 2


def test_a_burst_during_a_call_is_one_more_call() -> None:
    changes, calls, gate, entered = Changes(), [], threading.Event(), threading.Event()

    def slow() -> None:
        calls.append(1)
        entered.set()
        gate.wait(5)

    changes.subscribe("slow", slow)
    assert entered.wait(5)
    for _ in range(20):
        changes.notify()
    gate.set()
    assert changes.notify_and_wait(5) == []
    assert 2 <= len(calls) <= 3


def test_waiting_means_a_call_that_began_after_the_change() -> None:
    """A call that is under way may have looked too early."""
    changes, seen, value, gate, entered = Changes(), [], [0], threading.Event(), threading.Event()

    def look() -> None:
        seen.append(value[0])
        entered.set()
        gate.wait(5)

    changes.subscribe("look", look)
    assert entered.wait(5)
    value[0] = 1
    assert changes.notify_and_wait(0.05) == ["look"], "the call under way has not seen the change"
    gate.set()
    assert changes.notify_and_wait(5) == []
    assert seen[-1] == 1


def test_a_callback_that_raises_is_called_again() -> None:
    changes, calls = Changes(), []

    def wrong() -> None:
        calls.append(1)
        raise ValueError

    changes.subscribe("wrong", wrong)
    assert changes.notify_and_wait(5) == []
    assert changes.notify_and_wait(5) == []
    assert len(calls) >= 2
