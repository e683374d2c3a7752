"""Every table that the command line can print, found in the code, so that a new one cannot be forgotten."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.cluster.kinds import KINDS
from tests.documents import ROOT

PRINTERS = frozenset({"columns", "plain_columns", "matrix"})
"""Functions of testbed.output.tables that print one."""
OWN = ROOT / "testbed" / "output" / "tables.py"
ANY_NUMBER = 6
"""Columns that stand for a part of a heading that only a lab knows: pods, paths, sizes."""


@dataclass(frozen=True, slots=True)
class KnownTable:
    """One table of the product."""

    where: str
    """File and line, or the kind that `get` shows."""
    headings: tuple[str | None, ...]
    """None: known in a lab alone."""

    def __str__(self) -> str:
        return self.where


def every_table() -> list[KnownTable]:
    """Return the tables of `get`, plain and wide, and all that other verbs print."""
    found = [
        KnownTable(f"get {kind.plural}{' -o wide' if wide else ''}", tuple(column.heading for column in shown))
        for kind in KINDS
        for wide in (False, True)
        if (shown := [column for column in kind.columns if wide or not column.wide])
    ]
    for file in sorted((ROOT / "testbed").rglob("*.py")):
        found += _tables_in(file)
    return found


def _tables_in(file: Path) -> Iterator[KnownTable]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if not isinstance(node, ast.Call) or name not in PRINTERS:
            continue
        headings: ast.expr | None = node.args[0]
        if isinstance(headings, ast.Name):
            headings = constants.get(headings.id)
        if isinstance(headings, ast.Tuple):
            yield KnownTable(f"{file.relative_to(ROOT)}:{node.lineno}", tuple(_headings(headings.elts)))
        elif file != OWN:
            # Its own functions hand headings on, and are tried with those of their callers.
            raise AssertionError(f"{file}:{node.lineno}: the headings of a table are not a tuple that a test can read")


def _headings(elements: Sequence[ast.expr]) -> Iterator[str | None]:
    for element in elements:
        if isinstance(element, ast.Constant):
            yield str(element.value)
        elif isinstance(element, ast.Starred):
            yield from [None] * ANY_NUMBER
        else:
            yield None
