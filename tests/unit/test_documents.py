"""What README and docs/ tell people to type is what the command line takes."""

import contextlib

import click
import pytest

from testbed.command.cli import main  # registers the verbs
from testbed.command.command_line import verbs
from tests.documents import ROOT, RUN_BY, blocks, pages, words_of_verb

COMMANDS = sorted(
    {
        (block.page, command)
        for path in pages()
        for block in blocks(path)
        for command in block.commands
        if words_of_verb(command)
    }
)


def parse(group: click.Group, words: list[str], path: str) -> None:
    """Parse as the command line would, without running anything. Raises click.UsageError."""
    name, command, rest = group.resolve_command(click.Context(group, info_name=path), words)
    assert command is not None
    if isinstance(command, click.Group):
        if rest:
            parse(command, rest, f"{path} {name}")
        return
    command.make_context(f"{path} {name}", list(rest))


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}" for page, command in COMMANDS])
def test_a_documented_command_is_one_that_the_command_line_takes(page: str, command: str) -> None:
    assert main is not None
    words = words_of_verb(command)
    assert words is not None, page
    with contextlib.suppress(click.exceptions.Exit):  # --help and --version
        parse(verbs, words, "testbed")


def test_enough_is_looked_at() -> None:
    assert len(COMMANDS) > 120


@pytest.mark.parametrize(("where", "test"), RUN_BY.items())
def test_what_is_said_to_be_run_is_there(where: tuple[str, str], test: str) -> None:
    page, section = where
    assert (ROOT / test).is_file()
    assert [block for block in blocks(ROOT / page) if section in ("", block.section)] or section, where
