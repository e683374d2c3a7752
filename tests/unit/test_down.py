"""Which labs `down` takes down."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from testbed.command import check_command, lab_commands
from testbed.command.command_line import verbs
from testbed.host import removal
from testbed.host.removal import RunningLab


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Simulate two running labs, one of them chosen by TESTBED_LAB; return the names of those taken down."""
    assert {lab_commands.down.name, check_command.check.name} <= verbs.commands.keys()
    ended: list[str] = []
    labs = [RunningLab(Path("/nonexistent") / name, ()) for name in ("one", "two")]
    monkeypatch.setattr(removal, "labs_to_end", lambda: labs)
    monkeypatch.setattr(removal, "take_down", lambda lab: ended.append(lab.name))
    monkeypatch.setattr(removal, "remove_leftovers", dict)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("TESTBED_LAB", "two")
    return ended


@pytest.mark.parametrize(
    ("words", "names"),
    [((), ["two"]), (("--lab", "one"), ["one"]), (("--all",), ["one", "two"])],
)
def test_all_takes_every_lab_down_whichever_the_variable_chooses(
    words: Sequence[str], names: Sequence[str], ended: list[str]
) -> None:
    CliRunner().invoke(verbs, ["down", *words], standalone_mode=False, catch_exceptions=False)
    assert ended == names


@pytest.mark.parametrize("verb", ["down", "check"])
def test_all_beside_one_lab_is_wrong_usage(verb: str, ended: list[str]) -> None:
    with pytest.raises(click.UsageError, match=r"--all .*\(got --lab one too; want one of them\)"):
        CliRunner().invoke(verbs, [verb, "--all", "--lab", "one"], standalone_mode=False, catch_exceptions=False)
    assert ended == []
