"""Command blocks of README and docs/: which there are, which a test runs, which only a person can.

A block without a language that has lines beginning with `$ ` is a session. It is run by the test of its page or
section (RUN_BY), or the line above the block says why not:

    <!-- not run: vm, it takes a machine of its own -->

    scripts/check-docs          python -m tests.documents            lists every block that is not run, and why
                                python -m tests.documents --tests    lists the tests that run the others
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- not run: (?P<kind>vm|desktop|root|long|by hand), (?P<why>.+) -->")
GUIDE = "docs/guide"
ON_ONE_LAB = (("README.md", "The proof"), (f"{GUIDE}/look.md", ""))
"""(page, section or the whole page) about the lab of README's two commands; its commands only look."""
IN_ORDER = {"guestbook": (f"{GUIDE}/services.md", ""), "nginx_tomcat": (f"{GUIDE}/faults.md", "Faults on command")}
"""Cluster → (page, section or the whole page) whose commands build on each other."""
TYPED_IN_ORDER = {
    (f"{GUIDE}/workloads.md", ""): "two_nodes",
    (f"{GUIDE}/policies.md", ""): "nginx_tomcat",
    (f"{GUIDE}/faults.md", "By hand"): "nginx_tomcat",
    (f"{GUIDE}/cluster-file.md", "A whole file"): "",
    (f"{GUIDE}/cluster-file.md", "Topologies"): "",
    (f"{GUIDE}/cluster-file.md", "IPv6 beside IPv4"): "dual_stack",
    (f"{GUIDE}/labs.md", "Several labs"): "",
    ("docs/exercises.md", ""): "",
    ("docs/trace.md", ""): "nginx_tomcat",
    ("docs/troubleshooting.md", "`up` fails"): "",
    ("docs/troubleshooting.md", "A pod is in CrashLoopBackOff"): "",
    ("docs/troubleshooting.md", "`ping: local error: message too long, mtu=1472`"): "nginx_tomcat",
}
"""(page, section or the whole page) → the cluster in whose lab its sessions are typed, one after the other; empty: they
begin without a lab."""
RUN_BY = {
    **dict.fromkeys(TYPED_IN_ORDER, "tests/e2e/test_pages.py"),
    **dict.fromkeys((*ON_ONE_LAB, *IN_ORDER.values()), "tests/e2e/test_readme.py"),
    ("docs/exercises-solutions.md", ""): "tests/e2e/test_exercises.py",
    ("docs/walkthrough.md", ""): "tests/e2e/test_walkthrough.py",
    ("docs/walkthrough.zh-CN.md", ""): "tests/e2e/test_walkthrough.py",
    ("docs/troubleshooting.md", "Packets do not arrive"): "tests/e2e/test_troubleshooting.py",
    (f"{GUIDE}/agent.md", ""): "tests/netns/test_machine_pages.py",
    **{
        ("docs/real-machines.md", section): "tests/netns/test_machine_pages.py"
        for section in (
            "The network config",
            "What it makes on a node",
            "Stop, restart, remove",
            "Beside real flannelds",
        )
    },
    ("docs/cni.md", ""): "tests/netns/test_cni.py",
    ("docs/docker.md", ""): "tests/netns/test_docker.py",
    (f"{GUIDE}/kubectl.md", "What works"): "tests/e2e/test_kubectl.py",
    (f"{GUIDE}/kubectl.md", "What is refused"): "tests/e2e/test_kubectl.py",
    ("docs/real-machines.md", "Join: two machines, one command each"): "tests/netns/test_join.py",
    (f"{GUIDE}/labs.md", "Without root"): "tests/e2e/test_rootless.py",
}
"""(page, section or the whole page) → the test that runs its sessions."""
CHINESE = ".zh-CN.md"
NOT_A_TRANSLATION = ("docs/walkthrough.zh-CN.md",)
"""Its own test runs it."""


@dataclass(frozen=True, slots=True)
class Block:
    """One session in a page."""

    page: str
    """Relative to the clone."""
    line: int
    section: str
    """The `##` heading above it."""
    heading: str
    """The nearest heading above it."""
    commands: tuple[str, ...]
    mark: str | None
    """Why it is not run, as its mark says."""
    text: str = ""
    """What is between the fences."""

    @property
    def run_by(self) -> str | None:
        """Return the test that runs it."""
        if self.mark is not None:
            return None
        if original_of(self.page):
            return f"as {original_of(self.page)}, which has the same commands"
        places = (RUN_BY.get((self.page, part)) for part in ("", self.heading, self.section))
        return next(filter(None, places), None)


def original_of(page: str) -> str | None:
    """Return the page whose commands this one has in Chinese; None for a page that is not a translation."""
    if page in NOT_A_TRANSLATION or not page.endswith(CHINESE):
        return None
    return page.removesuffix(CHINESE) + ".md"


def pages() -> list[Path]:
    """Return README and every page of docs/, in both languages."""
    return [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> Iterator[Block]:
    """Yield the sessions of a page."""
    section, heading, above, opened, body = "", "", "", 0, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not opened and line.startswith(("## ", "### ")):
            heading = line.lstrip("#").strip()
            section = section if line.startswith("###") else heading
        if line.startswith("```") and not opened:
            opened, body, language = number, [], line[3:]
            mark = MARK.fullmatch(above)
        elif line.startswith("```"):
            commands = tuple(_commands(body))
            if commands and not language:
                why = None if mark is None else f"{mark['kind']}: {mark['why']}"
                page, shown = str(path.relative_to(ROOT)), "".join(f"{each}\n" for each in body)
                yield Block(page, opened, section, heading, commands, why, shown)
            opened = 0
        elif opened:
            body.append(line)
        above = line


def _commands(body: list[str]) -> Iterator[str]:
    """Yield each command after its `$ `, lines that end in a backslash joined."""
    lines = iter(body)
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command = command[:-1] + next(lines, "")
            yield command


def words_of_verb(command: str) -> list[str] | None:
    """Return the words behind `testbed` up to a pipe or redirection; None for another program's command."""
    try:
        words = shlex.split(command, comments=True)
    except ValueError:
        return None
    words = words[1:] if words[:1] == ["sudo"] else words
    if words[:1] != ["testbed"]:
        return None
    end = next((number for number, word in enumerate(words) if word in ("|", "<<<", ">", "<<END")), len(words))
    return words[1:end]


def main(arguments: list[str]) -> int:
    """List what no test runs. A block that is neither run nor marked is parsed all the same (tests/unit)."""
    if arguments == ["--tests"]:
        print("\n".join(sorted(set(RUN_BY.values()))))
        return 0
    found = [block for path in pages() for block in blocks(path)]
    unmarked = [block for block in found if block.run_by is None and block.mark is None]
    for block in found:
        if block.run_by is None:
            print(f"{block.page}:{block.line}: {block.mark or 'only parsed'}: {block.commands[0][:70]}")
    run = sum(block.run_by is not None for block in found)
    print(f"{len(found)} blocks: {run} run, {len(found) - run - len(unmarked)} marked, {len(unmarked)} only parsed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
