"""What README and docs/ tell people to type is what the command line takes."""

import contextlib
import re

import click
import pytest

from testbed.cluster.spec import read_cluster
from testbed.command.cli import main  # registers the verbs
from testbed.command.command_line import verbs
from tests.documents import ROOT, RUN_BY, blocks, original_of, pages, words_of_verb

PAGES = [str(path.relative_to(ROOT)) for path in pages()]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
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
def test_commands_named_in_messages_exist(where: tuple[str, str], test: str) -> None:
    page, section = where
    assert (ROOT / test).is_file()
    assert [block for block in blocks(ROOT / page) if section in ("", block.section)] or section, where


@pytest.mark.parametrize("page", [page for page in PAGES if original_of(page)])
def test_a_translation_has_the_commands_of_the_original(page: str) -> None:
    def commands(of: str) -> list[str]:
        return [re.sub(r"\s+#.*", "", command) for block in blocks(ROOT / of) for command in block.commands]

    original = original_of(page)
    assert original is not None
    assert commands(page) == commands(original)


def test_every_session_is_run_or_has_a_reason_not_to_be() -> None:
    neither = [block for path in pages() for block in blocks(path) if block.run_by is None and block.mark is None]
    assert [f"{block.page}:{block.line} {block.commands[0]}" for block in neither] == []


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_pages_and_headings_that_exist(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in LINK.findall(text):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """Return what GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_a_readme_is_short_and_narrow(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 210
    assert [line for line in lines if len(line) > 140] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_a_readme_names_every_verb_and_its_cluster_file_is_valid(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [verb for verb in verbs.commands if f"`{verb}`" not in text and f"testbed {verb}" not in text] == []
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    cluster = read_cluster(example.encode(), "small.yaml")
    assert (list(cluster.nodes), [pod.name for pod in cluster.pods]) == (["left", "right"], ["web", "visitor"])
