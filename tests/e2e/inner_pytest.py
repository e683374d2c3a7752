"""Runs pytest as a user of the plugin does: a project of its own, in a process of its own, with real labs."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from xml.etree import ElementTree

from testbed.control.client import running_labs
from tests.e2e.lab import NAME_PREFIX

PYTEST = (sys.executable, "-m", "pytest", "-p", "testbed.pytest_plugin", "-p", "no:cacheprovider")
LIMIT_S = 110.0


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of pytest said."""

    project: Path
    code: int
    out: str
    outcomes: dict[str, str]
    """By a test's name: passed, failure, error or skipped."""
    properties: dict[str, dict[str, str]]
    """JUnit's properties of each test."""
    findings: dict[str, list[str]]
    """What stood out in the labs of each test, by the same."""

    def bundle(self, test: str) -> Path:
        """Return the bundle of a failed test, by the path in JUnit's report."""
        return Path(self.properties[test]["lab_bundle"])


class Project:
    """A directory with a user's tests."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.directory = directory
        self.prefix = prefix
        """What the names of its labs start with."""
        (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers --strict-config\n")

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of its pytest."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SUDO_"))}
        return kept | {"TESTBED_TEST_LABS": self.prefix, "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, name: str, text: str) -> Path:
        """Put a file into it."""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def run(self, *options: str, prefix: Sequence[str] = ()) -> Run:
        """Run its tests; `prefix` is put before the command, e.g. to become another user."""
        report = self.directory / "report.xml"
        done = subprocess.run(
            [*prefix, *PYTEST, f"--junit-xml={report}", *options],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            env=self.environment,
            timeout=LIMIT_S,
            check=False,
        )
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        properties = {
            case.attrib["name"]: {entry.attrib["name"]: entry.attrib["value"] for entry in case.iter("property")}
            for case in cases
        }
        findings = {
            case.attrib["name"]: [
                entry.attrib["value"] for entry in case.iter("property") if entry.attrib["name"] == "lab_finding"
            ]
            for case in cases
        }
        out = done.stdout + done.stderr
        return Run(self.directory, done.returncode, out, _outcomes(cases), properties, findings)

    def labs(self) -> list[str]:
        """Return its labs that run."""
        return [lab.name for lab in running_labs() if re.match(rf"{re.escape(self.prefix)}-\d", lab.name)]


def _outcomes(cases: Sequence[ElementTree.Element]) -> dict[str, str]:
    words = ("failure", "error", "skipped")
    return {case.attrib["name"]: next((w for w in words if case.find(w) is not None), "passed") for case in cases}


def prefix_for(name: str) -> str:
    """Return a prefix of lab names that no other test has."""
    return f"{NAME_PREFIX}-{os.getpid()}-{name}"
