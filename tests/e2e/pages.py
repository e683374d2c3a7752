"""Pages of docs/ whose commands are run: what they show, and what has to agree with the real output.

Numbers may differ (times, ports that the kernel chooses, process ids), words may not; `…` stands for anything.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.e2e.lab import Lab

DOCS = Path(__file__).parents[2] / "docs"


def normal(line: str) -> str:
    """Return what has to agree: words and the shape of addresses, no numbers, no widths of columns."""
    return " ".join(re.sub(r"\d+", "0", line).split())


def pattern(line: str) -> re.Pattern[str]:
    """Return the pattern of a documented line."""
    return re.compile(".*".join(re.escape(normal(part)) for part in line.split("…")))


def sessions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command in a code block, with the lines that the page shows below it."""
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


def run(lab: Lab, command: str) -> str:
    """Return what a command of a page says; `<<< TEXT` is its standard input, as in bash."""
    words = shlex.split(command.removeprefix("sudo "))
    assert words[0] == "testbed", command
    stdin = ""
    if "<<<" in words:
        stdin = words[-1] + "\n"
        words = words[: words.index("<<<")]
    answer = lab.testbed(*words[1:], stdin=stdin)
    return answer.out + answer.err


def missing(lines: Sequence[str], output: str) -> list[str]:
    """Return the documented lines that are not in the output."""
    said = [normal(line) for line in output.splitlines()]
    return [
        line for line in lines if normal(line) not in ("", "…") and not any(pattern(line).search(one) for one in said)
    ]
