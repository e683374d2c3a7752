"""What a browser hears from the feed of `testbed ui`."""

import threading
from pathlib import Path
from typing import Any

import pytest

from testbed.control.client import LabRecord
from testbed.ui import feed as feed_module
from testbed.ui.feed import Feed


def test_a_look_at_the_lab_that_fails_is_shown_and_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, looks = threading.Event(), list[bool]()

    def look() -> None:
        looks.append(True)
        if len(looks) == 1:
            raise KeyError("node3")
        assert shown.wait(10)

    feed = Feed(LabRecord("one", 0, 0, Path("/nonexistent"), 0))
    monkeypatch.setattr(feed, "_look", look)
    monkeypatch.setattr(feed_module, "PERIOD_S", 0.01)
    feed.start()
    messages = feed.messages()
    assert next(messages) == ("problem", {"text": "internal error: KeyError('node3')"})
    shown.set()
    assert next(messages) == ("problem", {"text": ""})


def test_services_are_offered_by_the_names_that_a_trace_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"ports": [{"port": 80}], "type": "ClusterIP", "clusterIP": "10.96.1.1"}
    services = [
        {"metadata": {"name": "web", "namespace": namespace}, "spec": spec, "status": {}, "testbed": {}}
        for namespace in ("default", "shop")
    ]
    feed = Feed(LabRecord("one", 0, 0, Path("/nonexistent"), 0))
    monkeypatch.setattr(feed, "_ask", lambda _, kind: services if kind == "services" else [])
    facts: Any = {"services": []}
    feed._look_at_etcd(facts)
    _, message = feed._messages["services"]
    assert message["names"] == ["web", "shop/web"]
