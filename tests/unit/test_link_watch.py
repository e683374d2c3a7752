"""Many nodes' link changes are followed by one thread, each as a burst and by itself."""

import threading
from collections.abc import Callable

import pytest

from agent.kernel.monitor import Monitor
from testbed.lab import link_watch
from testbed.lab.link_watch import LinkWatch
from tests.waiting import wait_until


class Changing(Monitor):
    """A real monitor; changes are those that a test makes up, by waking it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = threading.Semaphore(0)

    def fileno(self) -> int:
        return self._wake_up

    def wait(self, timeout_s: float | None = None) -> bool:
        super().wait(timeout_s)
        return self.changes.acquire(blocking=False)

    def change(self) -> None:
        self.changes.release()
        self.wake()


def follow(watch: LinkWatch, wanted: Callable[[], bool] = lambda: True) -> tuple[Changing, threading.Semaphore]:
    monitor, told = Changing(), threading.Semaphore(0)
    watch.follow(monitor, wanted, told.release)
    return monitor, told


def test_each_node_is_told_of_its_own_changes_only_and_goes_on_after_a_failure() -> None:
    watch = LinkWatch()
    watch.start()
    first, first_told = follow(watch)
    second, second_told = follow(watch)

    def fail() -> None:
        raise OSError("its node has trouble")

    failing = Changing()
    watch.follow(failing, lambda: True, fail)
    failing.change()
    first.change()
    assert first_told.acquire(timeout=20)
    first.change()
    assert first_told.acquire(timeout=20)
    assert not second_told.acquire(blocking=False)
    second.change()
    assert second_told.acquire(timeout=20)


def test_a_node_that_has_gone_is_let_go() -> None:
    watch = LinkWatch()
    watch.start()
    gone = threading.Event()
    monitor, told = follow(watch, lambda: not gone.is_set())
    gone.set()
    monitor.change()
    wait_until(lambda: monitor._closed, timeout_s=5, what="its monitor is closed")
    assert not told.acquire(blocking=False)


class Failing(Changing):
    """A monitor that cannot be read, and stays readable."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def wait(self, timeout_s: float | None = None) -> bool:
        self.asked += 1
        raise OSError("no memory")


def test_a_monitor_that_fails_is_a_change_and_neither_ends_the_watch_nor_keeps_it_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_watch, "AFTER_FAILURE_S", 0.05)
    watch = LinkWatch()
    watch.start()
    failing, failing_told, gone = Failing(), threading.Semaphore(0), threading.Event()
    watch.follow(failing, lambda: not gone.is_set(), failing_told.release)
    other, other_told = follow(watch)
    failing.change()
    assert failing_told.acquire(timeout=20)
    asked = failing.asked
    other.change()
    assert other_told.acquire(timeout=20)
    # The other's change is acted on after its burst, which is 0.2 s.
    assert failing.asked - asked < 50
    gone.set()
    wait_until(lambda: failing._closed, timeout_s=5, what="its monitor is closed")
