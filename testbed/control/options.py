"""The options of a lab besides its cluster: one value from the command line to the lab."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.errors import TestbedError
from testbed.plain_files import read_plain, replace_plain

MACHINES = "nodes"
"""In the lab's directory, hidden inside the lab: files of machines and pods, which end with the lab."""
OPTIONS_FILE = "options.json"
OPTIONS_BYTES = 1_000_000
"""More than the names of all nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """The options of `up`, which completes them; the lab reads the same value."""

    name: str = ""
    """The lab's name; empty: from TESTBED_LAB or the cluster."""
    cluster_file: str = ""
    """FILE or NAME; once it is read, a description of the cluster's source."""
    nodes: int | None = None
    """Generate a cluster of this many nodes instead of reading a file."""
    topo: str | None = None
    """Generate a cluster from a topology, with its parameters."""
    pods_per_node: int | None = None
    """Of a generated cluster; None: the default."""
    without_agent: tuple[str, ...] = ()
    """Nodes whose agent the user runs by hand."""
    images: tuple[str, ...] = ()
    """Recipes for images, each PATTERN=RECIPE; they take precedence over those of the cluster file."""
    strict: bool = False
    """Refuse what otherwise causes a warning."""
    datapath: str = "auto"
    """The agents' --datapath."""
    backend: str | None = None
    """The backend type instead of the cluster's own."""
    timeout_s: float | None = None
    """For each phase of the start; None: each phase's own."""
    cleanup_on_failure: bool = False
    """Remove a lab that did not become ready."""
    rootless: bool = False
    """Started by an ordinary user, in a user namespace."""
    dry_run: bool = False
    """Only report what would be done."""
    owner_uid: int = 0
    """The only user besides root who may query the lab; an id in its own user namespace."""

    def write(self, rundir: Path) -> None:
        """Write it to the lab's directory, readable only by root."""
        replace_plain(rundir / OPTIONS_FILE, json.dumps(asdict(self)).encode())


def read_options(rundir: Path) -> LabOptions:
    """Return the value that `write` stored there. Raises OSError, and TestbedError if it is something else."""
    data = read_plain(rundir / OPTIONS_FILE, OPTIONS_BYTES)
    try:
        values = json.loads(data)
        return LabOptions(**{**values, **{key: tuple(values[key]) for key in ("without_agent", "images")}})
    except (ValueError, TypeError, KeyError, RecursionError) as failure:
        want = "want what up wrote; sudo testbed down, then up"
        raise TestbedError(f"{rundir / OPTIONS_FILE}: not the options of a lab ({want})") from failure
