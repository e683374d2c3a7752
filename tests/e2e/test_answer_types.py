"""What a real lab answers is what the types say: every field there, none besides, each of its kind."""

from pathlib import Path
from typing import Any

import pytest

from testbed.control.answers.lab import ApplyAnswer, DeleteAnswer, EventLine, NodeAnswer, ScaleAnswer
from testbed.control.answers.trace import TraceAnswer
from testbed.control.questions import EVENTS
from tests.answer_types import mismatches
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab
from tests.reference import ANSWERS

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: echo, image: echo}]}}
"""


def differences(found: Any, answer: Any) -> list[str]:  # noqa: ANN401 - JSON, a type
    """Return the differences of a value, or of each in a list of several."""
    values = found if isinstance(found, list) else [found]
    assert values
    return [line for value in values for line in mismatches(value, answer)]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("status", ""),
        ("ping", ""),
        ("iperf", "nginx tomcat -t 1"),
        ("iperf", "nginx tomcat -t 1 -u"),
        ("trace", "client tomcat:8080"),
        ("trace", "client 10.0.77.5"),
        ("trace", "client tomcat:9"),
        ("graph", ""),
        ("commands", ""),
        ("check", ""),
    ],
)
def test_the_answer_of_a_verb_is_of_its_type(verb: str, words: str, nginx_tomcat: Lab) -> None:
    found = nginx_tomcat.json(verb, *words.split())
    assert differences(found, ANSWERS[verb]) == []


def test_trace_with_a_capture_is_of_its_type(nginx_tomcat: Lab, tmp_path: Path) -> None:
    found = nginx_tomcat.json("trace", "client", "tomcat", "--pcap", str(tmp_path / "one.pcapng"))
    assert differences(found, TraceAnswer) == []


def test_events_on_the_socket_are_of_their_type(nginx_tomcat: Lab) -> None:
    assert differences(nginx_tomcat.handle.ask(EVENTS), EventLine) == []


@pytest.mark.parametrize(("verb", "words"), [("doctor", ""), ("topologies", ""), ("validate", "nginx_tomcat")])
def test_an_answer_without_a_lab_is_of_its_type(verb: str, words: str) -> None:
    assert differences(run_verb(verb, *words.split(), "-o", "json").json, ANSWERS[verb]) == []


def test_answers_about_changes_are_of_their_types(own_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(WEB)
    for answer, words in (
        (ApplyAnswer, ("apply", "-f", str(file), "--wait")),
        (ScaleAnswer, ("scale", "deployment", "web", "--replicas", "2")),
        (NodeAnswer, ("node", "add", "node3")),
        (NodeAnswer, ("node", "drain", "node3")),
        (NodeAnswer, ("node", "uncordon", "node3")),
        (ANSWERS["status"], ("status",)),
        (ANSWERS["graph"], ("graph",)),
        (NodeAnswer, ("node", "delete", "node3")),
        (DeleteAnswer, ("delete", "deployment", "web", "--ignore-not-found")),
        (ANSWERS["fault"], ("fault", "agent", "stop", "node2")),
        (ANSWERS["fault"], ("fault", "list")),
        (ANSWERS["status"], ("status",)),
        (ANSWERS["graph"], ("graph",)),
        (ANSWERS["fault heal"], ("fault", "heal")),
    ):
        assert differences(own_lab.json(*words), answer) == [], words
