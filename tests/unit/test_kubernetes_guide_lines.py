"""docs/guide/workloads.md says how many lines of Kubernetes' guide work; the table of the test says the same."""

from pathlib import Path

import pytest

from tests.e2e.kubernetes_guide import FILES, PAGES

ROOT = Path(__file__).parents[2]
LINES = [line for page in PAGES for line in page.lines if not line.instead]


@pytest.mark.parametrize("page", ["workloads.md", "workloads.zh-CN.md"])
def test_the_numbers_of_the_page_are_those_of_the_table(page: str) -> None:
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    for number in (len(LINES), sum(not line.refused for line in LINES)):
        assert f" {number} " in text


def test_every_example_is_typed_somewhere() -> None:
    typed = "\n".join(line.typed for page in PAGES for line in page.lines)
    assert [name for name in FILES if name not in typed] == []
