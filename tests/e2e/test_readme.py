"""README.md and docs/guide: each command is run in the lab that its section is about, and says what the page shows."""

import re

import pytest

from testbed.pytest_plugin import NewLab
from tests.documents import IN_ORDER, ON_ONE_LAB, ROOT, blocks
from tests.e2e.lab import Lab
from tests.e2e.pages import missing, run, sessions

pytestmark = pytest.mark.slow
NOT_HERE = {
    "up": "the lab is there already",
    "ui": "desktop: tests/e2e/test_ui.py opens the page",
    "shell": "a terminal: tests/e2e/test_exec.py has one",
    "cli": "a terminal: tests/e2e/test_mininet_prompt.py has one",
    "capture": "until Ctrl-C: tests/e2e/test_capture.py ends it",
    "graph": "writes a file: tests/e2e/test_graph.py reads it",
    "iperf": "takes its time: tests/e2e/test_answers.py runs it",
}
"""Verb → why it is not run here."""
GROWS = {"describe", "logs", "events"}
"""What these show depends on what happened before, so only words that are always there are compared."""
DATE = re.compile(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ")


POD_NAME = re.compile(r"-[a-z0-9]{8}-[a-z0-9]{5}\b")
"""What a Deployment adds to its name."""


def sessions_of(page: str, section: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return every command of a section, or of a page, that can be run in a lab, with what the page shows."""
    found = []
    for block in blocks(ROOT / page):
        if block.mark is None and section in ("", block.section):
            for command, lines in sessions(f"```\n{block.text}```\n"):
                bare = re.sub(r"\s+#.*", "", command).split(" | ")[0]
                words = bare.removeprefix("sudo ").split()
                if words[0] == "testbed" and words[1] not in NOT_HERE:
                    found.append((bare, tuple(line for line in lines if not DATE.match(line))))
    return found


SESSIONS = [session for place in ON_ONE_LAB for session in sessions_of(*place)]


@pytest.mark.parametrize(("command", "lines"), SESSIONS, ids=[command for command, _ in SESSIONS])
def test_a_command_prints_what_the_page_shows(command: str, lines: tuple[str, ...], nginx_tomcat: Lab) -> None:
    said = run(nginx_tomcat, command)
    assert "error:" not in said
    if command.split()[2] in GROWS:
        assert missing([line for line in lines if line.startswith("AT ")], said) == [], said
        assert said.strip()
    else:
        assert missing([line.replace("nginx-tomcat", nginx_tomcat.name) for line in lines], said) == [], said


@pytest.mark.parametrize(("cluster", "place"), IN_ORDER.items(), ids=[" ".join(place) for place in IN_ORDER.values()])
def test_a_section_shows_what_its_title_promises(cluster: str, place: tuple[str, str], new_lab: NewLab) -> None:
    steps = sessions_of(*place)
    assert len(steps) >= 4
    with new_lab(cluster) as handle:
        for command, lines in steps:
            said = POD_NAME.sub("-0", run(Lab(handle.name), command))
            wanted = [POD_NAME.sub("-0", line.replace(cluster, handle.name)) for line in lines]
            assert missing(wanted, said) == [], f"{command}\n{said}"


def test_enough_is_run() -> None:
    assert len(SESSIONS) >= 12
