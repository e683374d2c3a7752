"""docs/walkthrough.md keeps its word, in every language: each command is run, and what the page shows is looked for."""

import re

import pytest

from tests.e2e.lab import Lab, fresh_name
from tests.e2e.pages import DOCS, missing, normal, pattern, run, sessions
from tests.waiting import wait_until

PAGES = ("walkthrough.md", "walkthrough.zh-CN.md")
NOT_RUN = {"up"}
"""The lab is there already."""
NAME = "nginx-tomcat"


def parts(page: str) -> tuple[str, str]:
    """Return what only looks, and the last section, which breaks its lab and takes it down."""
    looking, _, breaking = (DOCS / page).read_text(encoding="utf-8").rpartition("\n## ")
    return looking, breaking


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


CLAIMS = list(dict.fromkeys(row for page in PAGES for row in claims(page)))
SESSIONS = list(
    dict.fromkeys(
        (command, tuple(lines))
        for page in PAGES
        for command, lines in sessions(parts(page)[0])
        if command.split()[2] not in NOT_RUN
    )
)
_said: dict[tuple[str, str], str] = {}


def output(lab: Lab, command: str, anew: bool = False) -> str:
    """Return what a command says; asked once for all tests unless `anew`."""
    if anew or (lab.name, command) not in _said:
        _said[lab.name, command] = run(lab, command)
    return _said[lab.name, command]


@pytest.mark.parametrize(("command", "proof"), CLAIMS, ids=[proof for _, proof in CLAIMS])
def test_each_sentence_has_its_proof(command: str, proof: str, nginx_tomcat: Lab) -> None:
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
        wait_until(lambda: proven(anew=True), timeout_s=20, what=f"{command} says {proof}")


@pytest.mark.parametrize(("command", "lines"), SESSIONS, ids=[command.split(" ", 2)[2] for command, _ in SESSIONS])
def test_each_command_prints_what_the_page_shows(command: str, lines: tuple[str, ...], nginx_tomcat: Lab) -> None:
    said = output(nginx_tomcat, command)
    assert missing(lines, said) == [], said


@pytest.mark.slow
def test_what_the_last_section_breaks_is_lost_and_found_again() -> None:
    lab = Lab(fresh_name("walkthrough"))
    steps = [("sudo testbed up", []), *sessions(parts(PAGES[0])[1])]
    assert len(steps) >= 7
    try:
        for command, lines in steps:
            said = run(lab, command)
            assert missing([line.replace(NAME, lab.name) for line in lines], said) == [], f"{command}\n{said}"
    finally:
        lab.down()


def test_every_page_has_as_many_claims_and_sessions() -> None:
    """A translation leaves nothing out."""
    first = PAGES[0]
    assert len(claims(first)) >= 20
    for page in PAGES[1:]:
        assert claims(page) == claims(first)
        for text, original in zip(parts(page), parts(first), strict=True):
            assert [command for command, _ in sessions(text)] == [command for command, _ in sessions(original)]
