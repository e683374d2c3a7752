"""Work in a network namespace: while no thread can be started it is refused as a fork is."""

import threading
from unittest.mock import patch

import pytest

from agent.kernel.namespace import HeldNamespace


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_work_in_another_namespace_is_refused_like_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = HeldNamespace(None)
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    with patch.object(HeldNamespace, "_is_here", return_value=False), pytest.raises(BlockingIOError, match="start new"):
        namespace.run(lambda: 1)
    namespace.close()
