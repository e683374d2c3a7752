"""What a lab is to be like, besides its cluster: one value from the command line to the lab."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.errors import TestbedError
from testbed.plain_files import read_plain, replace_plain

MACHINES = "nodes"
"""In the lab's directory, where it covers what the host has: the machines' files and pods', which end with the lab."""
OPTIONS_FILE = "options.json"
OPTIONS_BYTES = 1_000_000
"""More than the names of all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """The options of `up`, which fills in what follows from them; the lab reads the same value."""

    name: str = ""
    """Of the lab; empty: as TESTBED_LAB or the cluster says."""
    cluster_file: str = ""
    """FILE or NAME; once it is read, where the cluster came from, in words."""
    nodes: int | None = None
    """Make a cluster of so many nodes instead of reading a file."""
    topo: str | None = None
    """Make a cluster out of a topology, with its parameters."""
    pods_per_node: int | None = None
    """Of a cluster that is made; None: the usual number."""
    without_agent: tuple[str, ...] = ()
    """Nodes whose agent the user runs by hand."""
    images: tuple[str, ...] = ()
    """What runs for images, each PATTERN=RECIPE; before those of the cluster file."""
    strict: bool = False
    """Refuse what is accepted with a warning otherwise."""
    datapath: str = "auto"
    """The agents' --datapath."""
    backend: str | None = None
    """The backend type instead of the cluster's own."""
    timeout_s: float | None = None
    """For each phase of the start; None: each phase's own."""
    cleanup_on_failure: bool = False
    """Remove a lab that did not get ready."""
    rootless: bool = False
    """By an ordinary user, in a user namespace."""
    dry_run: bool = False
    """Only say what would be done."""
    owner_uid: int = 0
    """Who may ask the lab, besides root; of its own user namespace."""

    def write(self, rundir: Path) -> None:
        """Leave it in the lab's directory, for root alone to read."""
        replace_plain(rundir / OPTIONS_FILE, json.dumps(asdict(self)).encode())


def read_options(rundir: Path) -> LabOptions:
    """Return what `write` has left there. Raises OSError, and TestbedError when it is something else."""
    data = read_plain(rundir / OPTIONS_FILE, OPTIONS_BYTES)
    try:
        values = json.loads(data)
        return LabOptions(**{**values, **{key: tuple(values[key]) for key in ("without_agent", "images")}})
    except (ValueError, TypeError, KeyError, RecursionError) as failure:
        want = "want what up wrote; sudo testbed down, then up"
        raise TestbedError(f"{rundir / OPTIONS_FILE}: not the options of a lab ({want})") from failure
