"""No shell ever sees a name, a key or a value: nothing here starts one with a text that is not fixed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}
FIXED = {
    "testbed/faults/node_faults.py": "a script without anything from outside; TINY_DISK is a constant of the module",
    "testbed/cluster/images.py": "what a pod of the image shell runs, a constant",
    "testbed/supervisor/mininet_prompt.py": "the line that a person types for a pod, as for Mininet's hosts",
    "testbed/supervisor/log_verbs.py": "a constant script; files, labels and numbers are words of their own, as $1 …",
    "testbed/testing/lab_capture.py": "a constant script; the device is a word of its own, which it sees as $0",
}
"""Where `sh -c` is, and why it may be."""


def files() -> list[Path]:
    return [path for package in ("agent", "testbed", "topologies") for path in sorted((ROOT / package).rglob("*.py"))]


def shells(tree: ast.AST) -> Iterator[str]:
    """Yield what of the file starts a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"):
                yield called
            if any(word.arg == "shell" for word in node.keywords):
                yield f"{called}(shell=…)"
        if isinstance(node, ast.List | ast.Tuple):
            words = [item.value for item in node.elts if isinstance(item, ast.Constant)]
            if SHELLS & {word for word in words if isinstance(word, str)} and "-c" in words:
                yield "sh -c"


def test_only_fixed_scripts_are_given_to_a_shell() -> None:
    found = {str(path.relative_to(ROOT)): list(shells(ast.parse(path.read_text(encoding="utf-8")))) for path in files()}
    assert {name for name, what in found.items() if what} == set(FIXED), {k: v for k, v in found.items() if v}
    assert all(what == ["sh -c"] for what in found.values() if what)


@pytest.mark.parametrize(
    "text",
    ["import os\nos.system(x)", "subprocess.run(x, shell=True)", "run(['sh', '-c', x])", "Popen(('bash', '-c', x))"],
)
def test_the_search_finds_them(text: str) -> None:
    assert list(shells(ast.parse(text)))
