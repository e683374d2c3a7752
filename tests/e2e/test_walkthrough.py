"""docs/walkthrough.md keeps its word: every command is run, and what it shows is looked for in the real output.

Numbers may differ (times, ports that the kernel chooses, process ids), words may not; `…` stands for anything.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab
from tests.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("walkthrough.md",)
NOT_RUN = {"up"}
"""The lab is there already."""


def normal(line: str) -> str:
    """What has to agree: words and addresses' shape, no numbers, no widths of columns."""
    return " ".join(re.sub(r"\d+", "0", line).split())


def pattern(line: str) -> re.Pattern[str]:
    """Of a documented line."""
    return re.compile(".*".join(re.escape(normal(part)) for part in line.split("…")))


def claims(page: str) -> list[tuple[str, str]]:
    """Command and line of each row of the first table."""
    rows = []
    for text in (DOCS / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        if len(cells) == 3 and (found := re.match(r"`([^`]+)`", cells[1])):
            proof = re.match(r"`([^`]+)`", cells[2])
            assert proof is not None, text
            rows.append((found[1], proof[1]))
    return rows


def sessions(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command in a code block, with the lines that the page shows below it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


_said: dict[tuple[str, str], str] = {}


def output(lab: Lab, command: str, anew: bool = False) -> str:
    """What a command of the page says; asked once for all tests unless `anew`."""
    if anew or (lab.name, command) not in _said:
        _said[lab.name, command] = _run(lab, command)
    return _said[lab.name, command]


def _run(lab: Lab, command: str) -> str:
    program, verb, *words = shlex.split(command)[1:] if command.startswith("sudo ") else shlex.split(command)
    assert program == "testbed", command
    answer = lab.testbed(verb, *words)
    return answer.out + answer.err


CLAIMS = [(page, *row) for page in PAGES for row in claims(page)]
SESSIONS = [
    (page, command, lines) for page in PAGES for command, lines in sessions(page) if command.split()[2] not in NOT_RUN
]


@pytest.mark.parametrize(("page", "command", "proof"), CLAIMS, ids=[f"{c[0]}: {c[2]}" for c in CLAIMS])
def test_each_sentence_has_its_proof(page: str, command: str, proof: str, nginx_tomcat: Lab) -> None:
    wanted = pattern(proof)
    # Exact where the page is exact: addresses of the shipped cluster are pinned.
    exact = [part.strip() for part in proof.split("…") if "icmp" not in part and "→" not in part and part.strip()]

    def proven(anew: bool) -> bool:
        lines = output(nginx_tomcat, command, anew).splitlines()
        squeezed = [" ".join(line.split()) for line in lines]
        return any(wanted.search(normal(line)) for line in lines) and all(
            any(part in line for line in squeezed) for part in exact
        )

    if not proven(anew=False):
        wait_until(lambda: proven(anew=True), timeout_s=5, what=f"{command} says {proof}")


@pytest.mark.parametrize(
    ("page", "command", "lines"), SESSIONS, ids=[f"{s[0]}: {s[1].removeprefix('sudo testbed ')}" for s in SESSIONS]
)
def test_each_command_says_what_the_page_shows(page: str, command: str, lines: list[str], nginx_tomcat: Lab) -> None:
    said = [normal(line) for line in output(nginx_tomcat, command).splitlines()]
    missing = [
        line for line in lines if normal(line) not in ("", "…") and not any(pattern(line).search(one) for one in said)
    ]
    assert missing == [], "\n".join(said)
