"""A thread in a network namespace: while no thread can be started it is refused as a fork is."""

import threading
from unittest.mock import patch

import pytest

from agent.kernel.namespace import HeldNamespace, NamespaceThread


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_cannot_be_started_is_refused_like_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    with pytest.raises(BlockingIOError, match="can't start new thread"):
        NamespaceThread(None)


def test_work_in_another_namespace_is_refused_like_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = HeldNamespace(None)
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    with patch.object(HeldNamespace, "_is_here", return_value=False), pytest.raises(BlockingIOError, match="start new"):
        namespace.run(lambda: 1)
    namespace.close()


def test_a_closed_thread_runs_nothing() -> None:
    thread = NamespaceThread(None)
    assert thread.run(lambda: 1) == 1
    thread.close()
    thread.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        thread.run(lambda: 1)
