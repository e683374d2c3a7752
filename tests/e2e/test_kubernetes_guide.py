"""Six pages of Kubernetes' guide, typed as they stand: what works, what is refused, and that the advice works."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.command import Terminal, environment_with
from tests.e2e.kubernetes_guide import EXAMPLES, FILES, PAGES, Line, Page
from tests.e2e.lab import Lab
from tests.e2e.web_site import web_site
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KUBECTL = f'kubectl() {{ "{sys.executable}" -m testbed "$@"; }}\n'
SITE = "https://kubernetes.io/examples"
LINE_LIMIT_S = 60.0
SOON_S = 30.0
"""A reader looks again until pods are there."""
LOOKS = re.compile(r"^(kubectl (get|describe|logs|exec)|for p in)")


@pytest.fixture
def reader(tmp_path: Path, two_nodes: Lab) -> Iterator[Mapping[str, str]]:
    """Yield the environment of a reader of the guide: the lab, and the web with the pages' examples."""
    for name, text in FILES.items():
        if "/" not in name:
            (tmp_path / name).write_text(text)
    pages = {f"{SITE}/{name}": text for name, text in FILES.items()}
    moved = {f"{EXAMPLES}/{name}": f"-> {SITE}/{name}" for name in FILES}
    (tmp_path / "site").mkdir()
    with web_site(tmp_path / "site", {**pages, **moved}) as web:
        yield {**two_nodes.environment, **web, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PWD": str(tmp_path)}


def type_in(line: Line, reader: Mapping[str, str]) -> tuple[int, str]:
    """Return the line's exit code, and all that it says."""
    if " -ti " in line.typed:
        with Terminal("-c", KUBECTL + line.typed, extra=reader, program=("bash",)) as screen:
            code = screen.end(timeout_s=LINE_LIMIT_S)
            return code, screen.seen.replace("\r\n", "\n")
    done = subprocess.run(
        ["bash", "-c", KUBECTL + line.typed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=reader["PWD"],
        env=environment_with(reader),
        timeout=LINE_LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout


def is_as_expected(line: Line, code: int, said: str) -> bool:
    return (code != 0) is line.refused and re.search(line.says, said, re.MULTILINE) is not None


@pytest.mark.timeout(280)
@pytest.mark.parametrize("page", PAGES, ids=[page.path for page in PAGES])
def test_page_is_typed_as_it_stands(page: Page, reader: Mapping[str, str]) -> None:
    wrong = []
    for line in page.lines:
        code, said = type_in(line, reader)
        if LOOKS.match(line.typed) and not line.refused and not is_as_expected(line, code, said):
            seen: list[tuple[int, str]] = []

            def again(line: Line = line, seen: list[tuple[int, str]] = seen) -> bool:
                seen[:] = [type_in(line, reader)]
                return is_as_expected(line, *seen[0])

            with contextlib.suppress(pytest.fail.Exception):
                wait_until(again, timeout_s=SOON_S, what=line.typed)
            code, said = seen[0]
        if not is_as_expected(line, code, said):
            wrong.append(
                f"$ {line.typed}\n(want {'an error' if line.refused else 'exit code 0'}, {line.says!r})\n{code}: {said}"
            )
        if os.environ.get("GUIDE_SAYS"):
            print(f"$ {line.typed}\n{said}[{code}]")
    assert not wrong, "\n".join(wrong)
