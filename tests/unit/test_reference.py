"""docs/reference.md says what the code does; the Tab key knows verbs, options and names."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from agent.options.options import FLAGS, Flag
from testbed.cluster.kinds import KINDS
from testbed.command import completion
from testbed.command.cli import main  # registers the verbs
from testbed.command.command_line import SECTIONS, verbs
from testbed.errors import TestbedError
from tests.reference import PAGE, page


def test_the_reference_agrees_with_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/reference.md is old (want: scripts/reference --write)"


@pytest.mark.parametrize("verb", sorted(verbs.commands))
def test_every_verb_is_in_the_reference(verb: str) -> None:
    assert f"\n### testbed {verb}\n" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_flag_of_the_agent_is_in_the_reference_with_its_variable(flag: Flag) -> None:
    assert re.search(rf"\n\| `--{flag.name}[`=].*{flag.variable}", PAGE.read_text(encoding="utf-8"))


def test_help_lists_every_verb_once_in_the_section_of_what_it_is_for() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(verbs.commands)
    shown = CliRunner().invoke(verbs, ["--help"]).output
    rows = [line.split()[0] for line in shown.splitlines() if re.match("  [a-z]+  ", line)]
    assert rows == listed
    assert not [line for line in shown.splitlines() if line.endswith("...") and not line.startswith("Usage")]


def with_paths(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from with_paths((*path, name), inner)


def test_examples_in_a_help_are_shown_line_by_line() -> None:
    """Click joins the lines of a paragraph unless a line before it has its mark, and nothing else."""
    marked = [(path, command.help) for path, command in with_paths((), verbs) if "\b" in (command.help or "")]
    assert len(marked) > 5
    for path, text in marked:
        shown = [line.strip() for line in CliRunner().invoke(verbs, [*path, "--help"]).output.splitlines()]
        for block in str(text).split("\b")[1:]:
            assert block.startswith("\n"), (path, block)
            lines = block.strip("\n").split("\n\n")[0].splitlines()
            assert {line.strip() for line in lines} <= set(shown), path


def offered(*words: str, incomplete: str = "") -> list[str]:
    assert main is not None
    found = BashComplete(verbs, {}, "testbed", "_TESTBED_COMPLETE").get_completions(list(words), incomplete)
    return [item.value for item in found]


def test_verbs_options_kinds_and_clusters_are_completed() -> None:
    assert "trace" in offered(incomplete="tr")
    assert "--rootless" in offered("up", incomplete="--roo")
    assert offered("get", incomplete="no") == ["nodes"]
    assert "nginx_tomcat" in offered("up", incomplete="ng")
    assert "exercise/12" in offered("validate", incomplete="exercise/1")


def test_names_of_nodes_and_pods_are_those_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    status = {"nodes": [{"name": "node1"}], "pods": [{"name": "nginx"}], "etcd": [{"name": "etcd1"}], "services": []}
    monkeypatch.setattr(completion, "find_lab", lambda name: name)
    monkeypatch.setattr(completion, "ask", lambda _lab, _verb, answer_within_s: status)
    assert offered("exec") == ["nginx", "node1"]
    assert offered("trace", "nginx", incomplete="no") == ["node1"]
    assert offered("node", "drain") == ["node1"]
    status["pods"] = [{"name": "nginx"}, {"name": "shop/web"}]
    assert offered("exec", "-n", "shop", incomplete="w") == ["web"]
    assert offered("exec", incomplete="s") == ["shop/web"]


def test_names_of_every_kind_are_those_of_the_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(
        _lab: str, _verb: str, answer_within_s: float, kind: str, namespace: str
    ) -> list[dict[str, dict[str, str]]]:
        return [{"metadata": {"name": f"{kind}-{'1' if namespace == 'default' else namespace}"}}]

    monkeypatch.setattr(completion, "find_lab", lambda name: name)
    monkeypatch.setattr(completion, "ask", answer)
    for kind in KINDS:
        for word in kind.words:
            assert offered("get", word) == [f"{kind.plural}-1"]
    assert offered("describe", "svc") == ["services-1"]
    assert offered("delete", "deploy") == ["deployments-1"]
    assert offered("delete", "po", "one", incomplete="pods") == ["pods-1"]
    assert offered("get", "-n", "shop", "po") == ["pods-shop"]
    assert offered("get", "svc/web", incomplete="po/p") == ["po/pods-1"]
    assert offered("delete", incomplete="po/x") == []
    assert offered("logs", "-n") == ["namespaces-1"]


def test_kinds_are_offered_to_the_verbs_that_take_them() -> None:
    assert offered("get") == [*sorted(kind.plural for kind in KINDS), "all"]
    assert offered("describe") == sorted(kind.plural for kind in KINDS if kind.described)
    assert offered("delete") == sorted(kind.plural for kind in KINDS if kind.manifest)
    assert {"endpoints", "pods"} - set(offered("delete")) == {"endpoints"}


def test_without_a_lab_nothing_is_offered_and_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str | None) -> None:
        raise TestbedError("no lab is running")

    monkeypatch.setattr(completion, "find_lab", none)
    assert offered("exec") == []


def test_the_script_for_bash_is_read_by_bash() -> None:
    script = subprocess.run(
        [sys.executable, "-m", "testbed", "completion", "bash"], capture_output=True, text=True, check=True
    ).stdout
    asked = f"{script}\ncomplete -p testbed"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert "testbed_completion" in done.stdout, done.stderr
