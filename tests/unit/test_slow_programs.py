"""Programs that do not end in time are errors with a reason."""

from pathlib import Path

import pytest

from testbed.bench import scale
from testbed.errors import TestbedError
from testbed.graph import png


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Return a program that does not end, for whatever name it is called by."""
    program = tmp_path / "rsvg-convert"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    return program


def test_a_picture_that_is_not_converted_in_time(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "LIMIT_S", 0.2)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    with pytest.raises(TestbedError, match=r"^graph: rsvg-convert: no end after 0.2 s$"):
        png.png("<svg/>")


def test_a_plain_mininet_that_does_not_end_in_time(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "PLAIN_LIMIT_S", 0.2)
    unshare = slow.rename(slow.with_name("unshare"))
    monkeypatch.setenv("PATH", str(unshare.parent), prepend=":")
    with pytest.raises(TestbedError, match=r"^bench scale: plain Mininet: no end after 0.2 s$"):
        scale.plain_mininet(2)
