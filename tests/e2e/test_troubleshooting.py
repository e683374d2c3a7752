"""docs/troubleshooting.md, «Packets do not arrive»: each symptom is made by its command and looks as the page shows."""

import re
from collections.abc import Iterator
from functools import partial

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.e2e.pages import DOCS, missing, run, sessions
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SECTION = "## Packets do not arrive\n"
LOOKING = re.compile(r"(get|status|trace|logs|ping|fault list|exec \S+ -- (ping|ip route get))\b")
"""What only looks may be asked again until it shows what there is to see: a lease ends after 30 s."""


def cases() -> dict[str, str]:
    """Return each subsection by its heading."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def lab(new_lab: NewLab) -> Iterator[Lab]:
    with new_lab("nginx_tomcat") as handle:
        yield Lab(handle.name)


def shown(lab: Lab, command: str, lines: list[str]) -> bool:
    return not missing(lines, run(lab, command))


@pytest.mark.parametrize("heading", cases())
def test_symptom_looks_as_the_page_shows_and_ends_with_its_cause(heading: str, lab: Lab) -> None:
    for command, lines in sessions(cases()[heading]):
        said = run(lab, command)
        lines = [line.replace("nginx-tomcat", lab.name) for line in lines]
        if missing(lines, said) and LOOKING.match(command.removeprefix("sudo testbed ")):
            wait_until(
                partial(shown, lab, command, lines),
                timeout_s=50,
                what=f"{command} shows {missing(lines, said)}; it said {said}",
            )
        else:
            assert missing(lines, said) == [], said
    wait_until(lambda: lab.json("check")["well"], timeout_s=50, what="all is well again")
