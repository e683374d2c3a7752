"""The tree of errors: drawn as it is, with an exit code for each."""

import ast
import re
from pathlib import Path

import testbed.errors
from testbed.errors import EtcdFailed, InvalidInput, TestbedError, WrongEnvironment

ROOT = Path(__file__).resolve().parents[2]


def classes(package: str) -> list[tuple[str, tuple[str, ...], str]]:
    """Name, bases and module of every class that is defined at the top of a module."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        module = str(path.relative_to(ROOT).with_suffix(""))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
                found.append((node.name, bases, module))
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    parents = {name: bases[0] for name, bases, _ in classes("testbed") if bases}

    def path(name: str) -> tuple[str, ...]:
        return (*path(parents[name]), name) if name in parents else (name,)

    real = {path(name)[1:] for name in parents if path(name)[0] == "Exception" and "TestbedError" in path(name)}
    drawn, above = set(), [""] * 9
    for line in (testbed.errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z][A-Za-z]+)  +", line):
            depth = len(found[1]) // 4
            above[depth] = found[2]
            drawn.add(tuple(above[: depth + 1]))
    assert drawn == real


def test_what_can_reach_the_user_has_the_codes_of_the_command_line() -> None:
    codes = {kind: kind("what").exit_code for kind in (TestbedError, InvalidInput, WrongEnvironment, EtcdFailed)}
    assert list(codes.values()) == [1, 2, 3, 4]
    assert TestbedError("of another process", 3).exit_code == 3
    where = EtcdFailed("no answer").within("fault")
    assert (str(where), where.exit_code) == ("fault: no answer", 4)
