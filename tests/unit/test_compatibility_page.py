"""docs/compatibility.md names tests: they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/[a-z0-9_/]+\.py)`", PAGE))))
def test_each_file_is_there(file: str) -> None:
    assert (ROOT / file).exists()
