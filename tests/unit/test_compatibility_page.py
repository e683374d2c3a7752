"""docs/compatibility.md names tests: they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")


def named() -> list[tuple[str, str]]:
    """File and test of every row of the table of what users ask for."""
    found = []
    for line in PAGE.split("## What flannel's users ask for")[1].split("\n## ")[0].splitlines():
        file = ""
        for word in re.findall(r"`([^`]+)`", line):
            file = word if word.endswith(".py") else file
            if word.startswith("test_"):
                found.append((file, word))
    return found


def test_the_table_has_its_rows() -> None:
    assert len(named()) > 20


@pytest.mark.parametrize(("file", "test"), named())
def test_each_test_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(tests/[a-z0-9_/]+\.py)`", PAGE))))
def test_each_file_is_there(file: str) -> None:
    assert (ROOT / file).exists()
