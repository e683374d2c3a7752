"""Other agents on this machine, ours or flannel's; in one network namespace they share devices, routes and rules."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.options.command_line import read_flags
from agent.options.options import FLAG_BY_NAME, Options
from agent.options.parsers import prefix

FLANNELD, OURS = "flanneld", "overlay-agent"


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """One agent, and what it must not share with another."""

    program: str
    """`flanneld` or `overlay-agent`."""
    etcd_prefix: str
    subnet_file: Path
    pid: int = 0

    def meets(self, options: Options) -> bool:
        """Return whether an agent with these options would take its lease or its file."""
        return self.etcd_prefix == options.etcd_prefix or self.subnet_file == options.subnet_file


def read_agent(argv: Sequence[str], environ: Mapping[str, str]) -> RunningAgent | None:
    """Return the agent with this command line; None for another program. Pure."""
    names = [os.path.basename(word) for word in argv[:2]]
    if names[:1] == [FLANNELD]:
        program, flags = FLANNELD, argv[1:]
    elif OURS in names:
        program, flags = OURS, argv[names.index(OURS) + 1 :]
    elif list(argv[1:3]) == ["-m", "agent"] or list(argv[1:4]) == ["-P", "-m", "agent"]:
        program, flags = OURS, argv[argv.index("agent", 2) + 1 :]
    else:
        return None
    reading = read_flags(flags, environ)
    if reading.command != "run":
        return None
    etcd_prefix, subnet_file = (
        reading.given[name].texts[-1] if name in reading.given else FLAG_BY_NAME[name].default
        for name in ("etcd-prefix", "subnet-file")
    )
    with contextlib.suppress(ValueError):  # flanneld accepts some that we refuse
        etcd_prefix = prefix(etcd_prefix)
    return RunningAgent(program, etcd_prefix, Path(subnet_file))


def running_flannelds() -> list[int]:
    """Return the process ids of the flannelds in the caller's network namespace."""
    return [other.pid for other in running_agents() if other.program == FLANNELD]


def running_agents() -> Iterator[RunningAgent]:
    """Yield the other agents in the caller's network namespace, as far as we may inspect them."""
    own = os.stat("/proc/thread-self/ns/net").st_ino
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid():
            continue
        try:
            argv = _words(directory / "cmdline")
            if not argv or os.stat(directory / "ns" / "net").st_ino != own:
                continue
            found = read_agent(argv, dict(word.partition("=")[::2] for word in _words(directory / "environ")))
        except OSError:
            continue  # it has ended, or we may not look
        if found is not None:
            yield replace(found, pid=int(directory.name))


def _words(file: Path) -> list[str]:
    return file.read_bytes().decode(errors="replace").rstrip("\0").split("\0")
