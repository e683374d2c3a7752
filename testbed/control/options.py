"""How a lab is to be made, besides its cluster: written by `up`, read by what runs in the lab."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.plain_files import read_plain, replace_plain

MACHINES = "nodes"
"""In the lab's directory, where it covers what the host has: the machines' files and pods', which end with the lab."""
OPTIONS_FILE = "options.json"
OPTIONS_BYTES = 1_000_000
"""More than the names of all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """Of one lab."""

    name: str
    cluster_file: str
    """Where its cluster comes from, in words."""
    owner_uid: int = 0
    """Who may ask it things, besides root."""
    without_agent: tuple[str, ...] = ()
    """Nodes whose agent somebody runs by hand."""
    timeout_s: float | None = None
    """For each phase of the start; None: each phase's own."""
    datapath: str = "auto"
    """The agents' --datapath."""
    backend: str | None = None
    """The backend type instead of the cluster's own."""

    def write(self, rundir: Path) -> None:
        """For nobody else to read."""
        replace_plain(rundir / OPTIONS_FILE, json.dumps(asdict(self)).encode())


def read_options(rundir: Path) -> LabOptions:
    """What `write` has left there."""
    values = json.loads(read_plain(rundir / OPTIONS_FILE, OPTIONS_BYTES))
    return LabOptions(**{**values, "without_agent": tuple(values["without_agent"])})
