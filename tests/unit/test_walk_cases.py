"""The walk through every verb (tests/e2e/test_every_verb_at_its_edges.py) knows every verb."""

import testbed.command.cli  # noqa: F401 - registers the verbs
from testbed.command.command_line import verbs
from tests.e2e.walk_cases import EXAMPLES, cases, leaves


def test_every_verb_has_an_example() -> None:
    assert {verb for verb, _ in leaves(verbs)} == set(EXAMPLES)


def test_there_are_more_than_five_hundred_cases() -> None:
    assert len(cases(verbs, everything=False)) > 500
