"""How a lab is to be made, besides its cluster: written by `up`, read by what runs in the lab."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

OPTIONS_FILE = "options.json"


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
        file = rundir / OPTIONS_FILE
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self)))


def read_options(rundir: Path) -> LabOptions:
    """What `write` has left there."""
    values = json.loads((rundir / OPTIONS_FILE).read_text())
    return LabOptions(**{**values, "without_agent": tuple(values["without_agent"])})
