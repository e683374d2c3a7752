"""A terminal of 80 columns shows what a pipe shows: each word of each table, whole, with the longest names."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cluster.kinds import KINDS
from tests.e2e.command import SIZE
from tests.e2e.lab import Lab, lab_of

pytestmark = pytest.mark.slow

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHORTENED = "\N{HORIZONTAL ELLIPSIS}"
WAITS_S = 60.0
POD = "a-pod-with-a-name-as-long-as-kubernetes-takes-it-and-not-longer"
OTHER = "another-pod-with-as-long-a-name-in-which-an-echo-server-listens"
SERVICE = "a-service-with-a-name-as-long-as-kubernetes-takes-it-not-longer"
TABLES = [
    *(f"get {kind.plural}{wide}" for kind in KINDS for wide in ("", " -o wide")),
    *("get all", "status", "events", "ping", "check", "fault list", "topologies", "doctor"),
    *(f"trace {what}" for what in (f"{POD} {OTHER}:8080", f"-6 {POD} {OTHER}", f"{POD} svc/{SERVICE}:80")),
    *(f"describe {what}" for what in ("node node1", f"pod {POD}")),
]


@pytest.fixture(scope="module")
def lab(_as_root: None) -> Iterator[Lab]:
    with lab_of(Path(__file__).with_name("long_names.yaml")) as lab:
        lab.must("fault", "link", "delay", "node1", "s1", "1ms")
        yield lab


def words(text: str) -> Counter[str]:
    """Return the words of a text; a number is any number, for the lab goes on."""
    return Counter(re.sub(r"\d+(\.\d+)?", "0", text).split())


@pytest.mark.parametrize("verb", TABLES)
def test_a_terminal_shows_all_that_a_pipe_shows(verb: str, lab: Lab) -> None:
    answer = lab.testbed(*verb.split())
    piped = answer.out + answer.err
    with lab.terminal(*verb.split()) as terminal:
        terminal.end(timeout_s=WAITS_S)
        shown = COLOUR.sub("", terminal.seen)
    assert piped.strip(), verb
    assert not words(piped) - words(shown), shown
    assert SHORTENED not in shown
    if verb.startswith("describe"):
        return
    too_long = [
        line for line in shown.splitlines() if len(line) > SIZE[1] and len(line.split()) > 1 and "testbed" not in line
    ]
    assert too_long == []
