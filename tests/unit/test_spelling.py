"""What a message names: slips of the finger and never a guess across meaning; never more than ten names."""

import pytest

from testbed.command.command_line import SECTIONS
from testbed.spelling import listed, meant, one_slip_apart

VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]


@pytest.mark.parametrize(
    ("typed", "verb"),
    [("upp", "up"), ("pign", "ping"), ("dwon", "down"), ("statsu", "status"), ("trac", "trace"), ("log", "logs"),
     ("topologis", "topologies"), ("desc", "describe"), ("exce", "exec"), ("STATUS", "status")],
)  # fmt: skip
def test_a_slip_of_the_finger_is_understood(typed: str, verb: str) -> None:
    assert meant(typed, VERBS) == [verb]


@pytest.mark.parametrize("typed", ["cordon", "heal", "destroy", "inspect", "u", "xx", "list", "", "reload"])
def test_a_word_of_another_meaning_is_no_slip(typed: str) -> None:
    assert meant(typed, VERBS) == []


def test_two_slips_and_other_words_are_apart() -> None:
    assert one_slip_apart("abc", "abd")
    assert one_slip_apart("abc", "acb")
    assert one_slip_apart("abc", "abcd")
    assert not one_slip_apart("abc", "cba")
    assert not one_slip_apart("abcd", "badc")
    assert not one_slip_apart("abc", "abcde")


def test_at_most_ten_names_are_listed_and_the_nearest_first() -> None:
    names = [f"web-{number:02}" for number in range(30)]
    assert listed(names[:10]) == ", ".join(names[:10])
    assert listed(names, "web29") == f"web-29, {', '.join(names[:9])} and 20 more"
    assert listed([]) == "none"
