"""The checker that the end-to-end tests hold real answers against, and the list of answers in the reference."""

from typing import Any

import click
import pytest

from testbed.command import cli
from testbed.command.command_line import verbs
from testbed.control.answers.lab import IperfAnswer, PodLine
from tests.answer_types import mismatches
from tests.reference import ANSWERS

assert cli
POD = {"name": "web", "node": "node1", "address": None, "state": "Running", "ready": True, "restarts": 0}
KUBERNETES = {"get", "events", "describe"}
"""Objects in the shapes of their kinds; headings and values for people."""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"ipv6_address": "fd00::1"}, []),
        ({"restarts": "0"}, ["answer.restarts: '0' is no int"]),
        ({"restarts": True}, ["answer.restarts: True is no int"]),
        ({"address": 5}, ["answer.address: 5 is no str"]),
        ({"more": 1}, ["answer: more is not in PodLine"]),
        ({"ready": None}, ["answer.ready: None is no bool"]),
    ],
)
def test_a_difference_from_the_type_is_named(changed: dict[str, Any], said: list[str]) -> None:
    assert list(mismatches({**POD, **changed}, PodLine)) == said


def test_a_missing_field_and_a_wrong_word_are_named() -> None:
    assert list(mismatches({"protocol": "sctp", "seconds": 1}, IperfAnswer)) == [
        "answer: bits_per_second is missing",
        "answer.protocol: 'sctp' is none of ('tcp', 'udp')",
    ]
    assert list(mismatches([POD, 5], list[PodLine])) == ["answer[1]: 5 is no mapping"]


def printing_json(command: click.Command, path: str = "") -> list[str]:
    """Return every verb with `-o json`."""
    formats = [
        one.type.choices for one in command.params if one.name == "output" and isinstance(one.type, click.Choice)
    ]
    found = [path] if any("json" in choices for choices in formats) else []
    inner = command.commands if isinstance(command, click.Group) else {}
    return found + [one for name, verb in inner.items() for one in printing_json(verb, f"{path} {name}".strip())]


def test_every_verb_that_prints_json_has_its_fields_in_the_reference() -> None:
    group, _, words = next(verb for verb in ANSWERS if "|" in verb).partition(" ")
    spelt = {f"{group} {word}" for word in words.split("|")}
    documented = {verb for verb in ANSWERS if "|" not in verb} | spelt | KUBERNETES
    assert set(printing_json(verbs)) == documented - {"fault heal"}
