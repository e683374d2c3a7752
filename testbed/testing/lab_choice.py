"""How a test chooses its cluster, and how labs of tests are brought up and taken down. Independent of pytest."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from testbed.control.client import RUN_ROOT, read_record
from testbed.errors import TestbedError
from testbed.host.lab_directories import give_to_sudo_user
from testbed.host.removal import remove
from testbed.testing.lab_handle import LabHandle

START_LIMIT_S = 300.0
ELSEWHERE = "/"
"""A directory where `-m testbed` does not find one of that name in the tests' directory."""
_numbers = count(1)


class LabNotUp(TestbedError):
    """`up` failed; `lab` is what it left for inspection, if anything."""

    def __init__(self, message: str, exit_code: int, lab: LabHandle | None) -> None:
        super().__init__(message, exit_code)
        self.lab = lab


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """A cluster that ships with the testbed, a file, or YAML text; equal choices share a lab."""

    cluster: str
    """A name or an absolute path; with `text` only its label."""
    text: str | None = None


def choose(wanted: object, beside: Path) -> ClusterChoice:
    """Interpret a test's choice: a name, a path relative to the directory `beside`, YAML text, or its documents as
    dicts.

    Raises ValueError with the problem.
    """
    if isinstance(wanted, ClusterChoice):
        return wanted
    if isinstance(wanted, Mapping):
        wanted = [wanted]
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not wanted or not all(isinstance(document, Mapping) for document in wanted):
            raise ValueError("a list that is not one of documents (got something else than dicts in it)")
        from testbed.cluster.yaml_source import dump_documents

        return ClusterChoice("spec", dump_documents([dict(document) for document in wanted]))
    if isinstance(wanted, str) and "\n" in wanted:
        return ClusterChoice("spec", wanted)
    if isinstance(wanted, Path) or (isinstance(wanted, str) and ("/" in wanted or wanted.endswith((".yaml", ".yml")))):
        file = (beside / wanted).resolve()
        if not file.is_file():
            raise ValueError(f"no such cluster file (got {wanted}; want a path relative to {beside})")
        return ClusterChoice(str(file))
    if isinstance(wanted, str) and wanted:
        return ClusterChoice(wanted)
    raise ValueError(f"not a cluster (got {wanted!r}; want a name, a path, YAML text or dicts)")


def fresh_name(prefix: str) -> str:
    """Return a lab name that is unused in this process."""
    return f"{prefix}-{next(_numbers)}"


def start_lab(choice: ClusterChoice, name: str, directory: Path, *options: str) -> LabHandle:
    """Bring a lab up as `testbed up` does, `options` included.

    YAML text is written to a file below `directory`. Raises LabNotUp with the output of `up`.
    """
    cluster = choice.cluster
    if choice.text is not None:
        file = directory / f"{name}.yaml"
        file.write_text(choice.text)
        cluster = str(file)
    environment = {key: value for key, value in os.environ.items() if key != "TESTBED_LAB"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "testbed", "up", cluster, "--lab", name, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=ELSEWHERE,
            env=environment,
            timeout=START_LIMIT_S,
            check=False,
        )
        code, how, output = done.returncode, f"exit code {done.returncode}", done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        code, how, output = 1, f"no end after {START_LIMIT_S:g} s", (late.stdout or b"") + (late.stderr or b"")
    record = read_record(RUN_ROOT / name)
    if code == 0 and record is not None:
        return LabHandle(record)
    said = f"testbed up {cluster} --lab {name}: {how}\n{output.decode(errors='replace')}"
    raise LabNotUp(said.strip(), code, None if record is None else LabHandle(record))


def stop_lab(lab: LabHandle) -> None:
    """Take a lab down; one that is gone already is success. Raises TestbedError if something is left."""
    # The test may have ended it and brought up another of that name, which now owns the directory.
    with contextlib.suppress(FileNotFoundError):
        remove(read_record(lab.record.rundir) or lab.record)


def hand_over(path: Path) -> None:
    """Give a file or directory tree that root created to the user who ran sudo."""
    give_to_sudo_user(path, *path.rglob("*"))


def open_shell(lab: LabHandle) -> None:
    """Open a shell in the lab's own namespaces on this process's terminal; return when it exits."""
    subprocess.run([sys.executable, "-m", "testbed", "shell", "--lab", lab.name], cwd=ELSEWHERE, check=False)
