"""docs/tutorial.md from its first command to its last, in one lab and in that order."""

import pytest

from tests.e2e.lab import Lab, fresh_name
from tests.e2e.pages import DOCS, missing, run, sessions

pytestmark = pytest.mark.slow
NAME = "nginx-tomcat"


def test_the_tutorial_shows_what_it_announces() -> None:
    lab = Lab(fresh_name("tutorial"))
    steps = list(sessions((DOCS / "tutorial.md").read_text(encoding="utf-8")))
    assert len(steps) >= 10
    assert [steps[0][0], steps[-1][0]] == ["sudo testbed up", "sudo testbed down"]
    try:
        for command, lines in steps:
            said = run(lab, command)
            assert missing([line.replace(NAME, lab.name) for line in lines], said) == [], f"{command}\n{said}"
    finally:
        lab.down()
