"""What README and docs/ tell people to type is what the command line takes."""

import contextlib
import re

import click
import pytest

from testbed.command.cli import main  # registers the verbs
from testbed.command.command_line import verbs
from tests.documents import ROOT, RUN_BY, TRANSLATED, blocks, pages, words_of_verb

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


@pytest.mark.parametrize(("page", "original"), TRANSLATED.items())
def test_a_translation_has_no_command_that_the_original_has_not(page: str, original: str) -> None:
    def commands(of: str) -> set[str]:
        return {re.sub(r"\s+#.*", "", command) for block in blocks(ROOT / of) for command in block.commands}

    assert commands(page) - commands(original) == set()


def test_every_session_is_run_or_says_why_not() -> None:
    neither = [block for path in pages() for block in blocks(path) if block.run_by is None and block.mark is None]
    assert [f"{block.page}:{block.line} {block.commands[0]}" for block in neither] == []
