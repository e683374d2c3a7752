"""The file that the recorder writes."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from testbed.capture import recorder
from testbed.capture.plan import CapturePlan, CapturePoint
from testbed.capture.recorder import Recorder


class _Overrun:
    """A packet socket that lost everything."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def listen(self, _program: object) -> None:
        pass

    def fileno(self) -> int:
        return self._reading

    def has_link_header(self, _interface: str) -> bool:
        return True

    def waiting(self, _most: int) -> Iterator[object]:
        return iter(())

    def lost(self) -> int:
        return 7


def test_losses_are_noted_at_a_switchs_port_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "PacketSocket", _Overrun)
    monkeypatch.setattr(recorder, "await_stamps", lambda: None)
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "s1-eth1")])
    switch = CapturePoint("lab", None, ("s1-eth1",), (("s1-eth1", "s1:s1-eth1"),))
    ended, writing = os.pipe()
    os.close(writing)
    with tempfile.TemporaryFile() as file:
        recording = Recorder(CapturePlan((switch,)), file.fileno())
        assert recording.open() == []
        recording.run(ended)
        file.seek(0)
        text = file.read()
    os.close(ended)
    assert b"s1:s1-eth1" in text
    assert b"7 packets in this network namespace were lost by the capture" in text
    assert ", 7 lost because" in recording.summary()
