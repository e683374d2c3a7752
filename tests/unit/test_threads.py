"""While no thread can be made, what must happen waits, and what may be tried again is refused as a fork is."""

import subprocess
import threading

import pytest

from testbed.processes.namespaces import in_new_thread
from testbed.processes.process_ends import ProcessEnds
from testbed.processes.threads import start_when_possible


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_must_run_starts_as_soon_as_the_machine_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, list[str]()

    def refuse_twice(thread: threading.Thread) -> None:
        if len(refused) < 2:
            refused.append(thread.name)
            _refuse(thread)
        start(thread)

    ran = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", refuse_twice)
    start_when_possible(threading.Thread(target=ran.set, name="wanted"))
    assert ran.wait(5)
    assert refused == ["wanted", "wanted"]


def test_work_in_a_new_thread_is_refused_like_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        in_new_thread(lambda: 1)


def test_ends_of_processes_are_noticed_as_soon_as_there_can_be_a_thread_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, refused = threading.Thread.start, list[str]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "process ends" and not refused:
            refused.append(thread.name)
            _refuse(thread)
        start(thread)

    ended = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with subprocess.Popen(["true"]) as child:
        ProcessEnds().call(child.pid, "test", ended.set)
        assert ended.wait(5)
    assert refused == ["process ends"]
