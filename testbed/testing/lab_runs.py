"""Names for one run of tests: of its labs, so that parallel runs and workers never collide, and of its bundles."""

import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.testing.lab_choice import hand_over

PREFIX_VARIABLE = "TESTBED_TEST_LABS"
"""Environment variable: prefix of the names of all labs of tests."""
DEFAULT_PREFIX = "pytest"
DEFAULT_DIRECTORY = ".lab-bundles"
RUNS_KEPT = 3  # in the default directory, like pytest's temporary directories
LONGEST_TEST_NAME = 120  # characters; a file name may have 255 bytes
_RUN = re.compile(r"\d{8}-\d{6}-(?P<process>\d+)(-gw\d+)?")


@dataclass(frozen=True, slots=True)
class RunName:
    """What distinguishes this run of pytest, and this worker, from others."""

    process: int
    """Of the process started by the user."""
    worker: str | None
    """Name of this pytest-xdist worker: gw0, gw1 …"""
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def of(cls, worker_input: Mapping[str, Any] | None) -> "RunName":
        """Return the name for this process; `worker_input` comes from pytest-xdist, if this is a worker."""
        prefix = os.environ.get(PREFIX_VARIABLE, DEFAULT_PREFIX)
        if worker_input is None:
            return cls(os.getpid(), None, prefix)
        return cls(os.getppid(), str(worker_input["workerid"]), prefix)

    @property
    def lab_prefix(self) -> str:
        """Return the prefix of this worker's lab names."""
        return f"{self.prefix}-{self.process}{'' if self.worker is None else f'-{self.worker}'}"

    def is_ours(self, lab: str) -> bool:
        """Report whether a lab belongs to this run, whichever worker made it."""
        return lab.startswith(f"{self.prefix}-{self.process}-")

    def directory(self, now: float) -> str:
        """Return the name of the directory for this worker's bundles."""
        started = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        return f"{started}-{self.process}{'' if self.worker is None else f'-{self.worker}'}"


class BundleDirectory:
    """The place of this run's bundles: DIRECTORY/RUN/TEST/LAB. Nothing is created before the first bundle."""

    def __init__(self, wanted: Path | None, root: Path, run: RunName) -> None:
        """Take `wanted`, the user's choice; without one, old runs below `root` are removed when new ones come."""
        self._base = (root / DEFAULT_DIRECTORY if wanted is None else wanted).absolute()
        self._forgets = wanted is None
        self._run = self._base / run.directory(time.time())

    @property
    def directory(self) -> Path:
        """Return the directory of this run's bundles, which may not exist yet."""
        return self._run

    def place_for(self, test: str, lab: str) -> Path:
        """Return a new directory for the bundle about a lab after a test. Raises OSError if it cannot be created."""
        if not self._run.exists():
            self._begin()
        place = self._run / file_name_of(test) / lab
        place.mkdir(parents=True, exist_ok=True)
        hand_over(self._run)
        return place

    def _begin(self) -> None:
        new = not self._base.exists()
        self._run.mkdir(parents=True)
        if not self._forgets:
            return
        if new:
            (self._base / ".gitignore").write_text("*\n")
            hand_over(self._base)
        for old in outdated([entry.name for entry in self._base.iterdir()]):
            shutil.rmtree(self._base / old, ignore_errors=True)


def outdated(names: Iterable[str]) -> list[str]:
    """Return directories of all runs but the last ones, with a run's workers together; other names are ignored."""
    runs: dict[str, list[str]] = {}
    for name in sorted(names, reverse=True):
        if found := _RUN.fullmatch(name):
            runs.setdefault(found["process"], []).append(name)
    return [name for group in list(runs.values())[RUNS_KEPT:] for name in group]


def file_name_of(test: str) -> str:
    """Turn a test's id into the name of a directory: its function and parameters first."""
    name = re.sub(r"[^-\w.\[\]]+", "_", test.replace(".py::", "__"))
    return name[-LONGEST_TEST_NAME:].lstrip("._")
