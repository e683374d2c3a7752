"""Objects on their way from a client's JSON to the lab, which reads YAML."""

import re

import pytest

from testbed.api.lab import REQUEST_BODY, yaml_of
from testbed.cluster.yaml_source import read_documents

ODD = ("\x00", "\x1f", "\x7f", "\x80", "\x85", "\x9f", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ufffe", "\uffff")
EVERYDAY = (
    "",
    " a ",
    "é",
    "网络",
    "\U0001f600",
    "\U0010ffff",
    '"',
    "\\",
    "\\ud83d",
    "a\nb\tc",
    "- x: {y}",
    "\U0001f468\u200d\U0001f469",
)


@pytest.mark.parametrize("text", [*ODD, *EVERYDAY], ids=ascii)
def test_the_lab_reads_every_character_as_the_client_wrote_it(text: str) -> None:
    item = {"text": f"a {text} b", text: [text], "number": 1, "nothing": None, "is": True}
    documents, problems = read_documents(yaml_of(item), REQUEST_BODY)
    assert ([one.value for one in documents], problems) == ([item], [])


@pytest.mark.parametrize("half", ["\ud83d", "\ude00\ud83d"], ids=ascii)
def test_half_a_surrogate_pair_is_refused_in_a_line(half: str) -> None:
    documents, (problem,) = read_documents(yaml_of({"text": half}), REQUEST_BODY)
    assert not documents
    assert re.fullmatch(r"the request's body:1:\d+", problem.where)
    assert "Unicode" in problem.what
