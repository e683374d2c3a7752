"""`testbed`'s own command line: one line, what was probably meant, exit code 2, nothing begun."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.command.cli import main
from testbed.control import client

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `testbed` with arguments; return the exit code and the lines of standard error. No lab runs."""
    monkeypatch.setattr(client, "RUN_ROOT", tmp_path)
    monkeypatch.delenv("TESTBED_LAB", raising=False)

    def testbed(*words: str) -> tuple[int, list[str]]:
        monkeypatch.setattr("sys.argv", ["testbed", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().err.splitlines()

    return testbed


@pytest.mark.row("B1")
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["upp"], "no such verb: upp - did you mean up?"),
        (["up", "--nodez", "3"], "Did you mean '--nodes'?"),
        (["up", "--nodes"], "'--nodes' requires an argument"),
        (["up", "--nodes", "many"], "'many' is not a valid integer"),
        (["up", "one", "two"], "unexpected extra argument (two)"),
        (["validate"], "Missing argument 'FILE|NAME'"),
        (["exec", "web", "--", ""], "no command"),
        (["up", "--dry-run", "--timeout", "nan"], "nan is not a finite number"),
        (["completion"], "Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"),
        (["exec", "web"], "no command (want: exec POD|NODE -- CMD…; help: testbed exec --help)"),
        (["down", "--zzz"], "error: testbed down: No such option '--zzz' (help: testbed down --help)"),
        (["--lab", "x", "ping"], "--lab goes after the verb (want: testbed VERB … --lab; help: testbed --help)"),
        (["-o", "json", "get", "pods"], "-o goes after the verb (want: testbed VERB … -o; help: testbed --help)"),
        (["--frob", "ping"], "No such option '--frob'"),
        (
            ["get", "podz"],
            "names, leases, routes or all) - did you mean pods?",
        ),
        (["get", "pods", "-o", "xml"], "'xml' is not one of"),
        (["logs", "--tail", "-2", "web"], "-2 is not in the range"),
        (["ping", "web"], "want both SRC and DST, or neither"),
        (["restart", "agnet"], "no such verb: agnet"),
        (["fault", "heal", "--for", "3"], "--for goes with a fault to inject"),
        (["fault", "list", "1"], "fault list takes no more words"),
        (["fault", "list", "--timeout", "3"], "--timeout goes with heal"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(run: Run, words: list[str], part: str) -> None:
    code, (line,) = run(*words)
    assert code == 2
    assert line.startswith("error: testbed")
    assert part in line


@pytest.mark.row("B13")
@pytest.mark.parametrize("name", ["../x", "a b", ";rm", "$(id)", "a\nb", "-x", "grün", "a" * 64, "."])
def test_a_lab_s_name_cannot_lead_out_of_its_directory(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, (line,) = run("up", "two_nodes", f"--lab={name}")
    assert code == 2
    assert line.startswith("error: --lab: not a name (got ")
    assert line.isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.row("B8")
@pytest.mark.parametrize("words", [["up"], ["up", "two_nodes"], ["down"]])
def test_without_root_nothing_is_begun(run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, (line,) = run(*words)
    assert code == 3
    assert line == f"error: testbed {words[0]}: needs root (got uid 1000; want: sudo testbed {words[0]})"


@pytest.mark.row("B9")
def test_every_line_about_a_file_has_its_place(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("kind: Cluster\nmetadata: {}\nunderlay: {cidr: 1}\nnodes: {}\n")
    code, lines = run("validate", str(file))
    assert code == 2
    assert len(lines) > 2
    assert all(line.startswith(f"error: {file}:") for line in lines)
