"""What a browser hears from the feed of `testbed ui`."""

import threading
from pathlib import Path

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
