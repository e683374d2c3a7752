import contextlib
import os
import threading

import pytest

from agent.daemon.watchdog import Watchdog, WatchedClock


class Loop(threading.Thread):
    """A loop that beats only when told to."""

    def __init__(self, name: str, watchdog: Watchdog) -> None:
        super().__init__(name=name, daemon=True)
        self._go, self._done, self._over = threading.Event(), threading.Event(), False
        self._watchdog = watchdog
        self.start()

    def beat(self) -> None:
        self._go.set()
        assert self._done.wait(5)
        self._done.clear()

    def end(self) -> None:
        self._over = True
        self._go.set()
        self.join(5)

    def run(self) -> None:
        while self._go.wait(5) and not self._over:
            self._go.clear()
            WatchedClock(self._watchdog).now()
            self._done.set()


@pytest.fixture
def exits() -> list[int]:
    return []


@pytest.fixture
def watchdog(exits: list[int]) -> Watchdog:
    return Watchdog({"steady": 3, "other": 30}, exits.append, tick_s=1)


def test_a_loop_that_beats_lives_and_one_that_stops_ends_the_process(
    watchdog: Watchdog, exits: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    loop = Loop("steady", watchdog)
    for _ in range(10):
        loop.beat()
        assert watchdog.tick()
    ticks = [watchdog.tick() for _ in range(3)]
    assert ticks == [True, True, False]
    assert exits == [1]
    said = capfd.readouterr().err
    assert "steady loop stalled for 4 s; exiting" in said
    assert "in run" in said  # where it stands
    loop.end()


def test_a_stalled_process_ends_although_nothing_reads_its_log(
    watchdog: Watchdog, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop("steady", watchdog)
    loop.beat()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as unread:
        monkeypatch.setattr("sys.stderr", unread)
        ticks = [watchdog.tick() for _ in range(4)]
        monkeypatch.undo()
    assert ticks == [True, True, True, False]
    assert exits == [1]
    loop.end()


def test_a_stalled_process_ends_although_the_reader_of_its_log_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    watchdog = Watchdog({threading.current_thread().name: 3}, lambda _: ended.set(), tick_s=1)
    watchdog.beat()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    with open(writer, "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        threading.Thread(target=lambda: [watchdog.tick() for _ in range(4)], daemon=True).start()
        assert ended.wait(10)
        monkeypatch.undo()
        os.close(reader)


def test_each_loop_has_its_own_limit(watchdog: Watchdog, exits: list[int]) -> None:
    loop = Loop("other", watchdog)
    loop.beat()
    for _ in range(30):
        watchdog.tick()
    assert exits == []
    watchdog.tick()
    assert exits == [1]
    loop.end()


def test_nobody_is_watched_before_his_first_beat_nor_when_he_is_not_named(watchdog: Watchdog, exits: list[int]) -> None:
    watchdog.beat()  # the main thread has no limit here
    for _ in range(100):
        watchdog.tick()
    assert exits == []


def test_it_ticks_in_a_thread_of_its_own_until_it_is_stopped() -> None:
    ended = threading.Event()
    watchdog = Watchdog({threading.current_thread().name: 0.02}, lambda _: ended.set(), tick_s=0.01)
    watchdog.beat()
    watchdog.start()
    assert ended.wait(5)
    watchdog.stop()
