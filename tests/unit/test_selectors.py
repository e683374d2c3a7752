"""Label selectors mean what they mean to kubectl."""

from typing import Any

import pytest

from testbed.cluster.selectors import parse_selector, selected

OBJECTS: list[dict[str, Any]] = [
    {"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}},
    {"metadata": {"name": "b", "labels": {"app": "web"}}},
    {"metadata": {"name": "c", "labels": {"app": "db"}}},
    {"metadata": {"name": "d"}},
]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=web", "ab"),
        ("app==web", "ab"),
        ("app!=web", "cd"),
        ("app", "abc"),
        ("!app", "d"),
        ("app=web,tier=front", "a"),
        ("app=web,!tier", "b"),
        ("app in (web, db)", "abc"),
        ("app notin (web)", "cd"),
        ("app in (web,db),tier", "a"),
        ("app=", ""),
        ("example.org/x=1", ""),
    ],
)
def test_a_selector_chooses(selector: str, names: str) -> None:
    assert "".join(item["metadata"]["name"] for item in selected(OBJECTS, parse_selector(selector))) == names


@pytest.mark.parametrize("selector", ["", ",", "app=web,", "=web", "app in web", "app in (web", "a b", "a=b=c"])
def test_an_invalid_selector_is_refused_with_a_reason(selector: str) -> None:
    with pytest.raises(ValueError, match=r"not a selector \(got .*; want KEY=VALUE"):
        parse_selector(selector)
