"""Warn of files over 500 lines and functions over 80: places to look at twice, never an error.

Usage: scripts/lengths.py FILE…; Python and C sources.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 80


def warnings(path: Path) -> Iterator[str]:
    """Yield one line for each file or function that is too long."""
    text = path.read_text(encoding="utf-8")
    if (lines := len(text.splitlines())) > FILE_LINES:
        yield f"{path}: {lines} lines"
    if path.suffix in {".c", ".h"}:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for warning in warnings(Path(name)):
            print(f"warning: {warning}")
