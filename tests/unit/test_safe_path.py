"""Root's programs import nothing from the directory in which a verb was called: it may be another user's."""

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.options.options import Options
from testbed.join.joined import JoinedMachine

ROOT = Path(__file__).parents[2]
ON_THE_HOST = ("bench", "command", "host", "join", "output")
"""Rooms whose programs begin in the caller's directory; what a lab runs begins in /."""


def modules_run(tree: ast.AST) -> Iterator[ast.List | ast.Tuple]:
    """Yield the command lines with which a file has our Python run a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
            yield node


def unsafe(directory: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{words.lineno}"
        for path in sorted(directory.rglob("*.py"))
        for words in modules_run(ast.parse(path.read_text(encoding="utf-8")))
        if len(words.elts) < 2 or ast.unparse(words.elts[1]) not in ("'-P'", "'-I'")
    ]


@pytest.mark.parametrize("room", ON_THE_HOST)
def test_a_module_run_on_the_host_is_not_searched_in_the_callers_directory(room: str) -> None:
    assert unsafe(ROOT / "testbed" / room) == []


@pytest.fixture
def _signals() -> Iterator[None]:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_a_file_of_the_callers_directory_does_not_run_in_the_agents_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("agent.py", "logging.py"):
        (tmp_path / name).write_text("print('another program'); raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    with JoinedMachine(["--version"], Options(), {}) as machine:
        assert machine.wait() == 0
    assert "another program" not in capfd.readouterr().out
