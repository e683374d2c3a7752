"""Take labs away: their processes, found by what the kernel says, and their directories."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.control.client import LabRecord, directories_in, read_record, run_roots
from testbed.errors import TestbedError, WrongEnvironment
from testbed.host import bridge_netfilter
from testbed.host.lab_directories import Busy, is_a_labs, locked, remove_directory
from testbed.host.lab_process import end, inits, inits_of, is_init_of

DOWN_LIMIT_S = 10.0
UP_LIMIT_S = 2.0
"""How long `down` waits for an `up` of that lab to notice that it ended."""


@dataclass(frozen=True, slots=True)
class RunningLab:
    """A lab that the caller can end."""

    rundir: Path
    pids: tuple[int, ...]
    """Of its PID 1; several where a directory of that name was removed by hand while its lab ran."""

    @property
    def name(self) -> str:
        """The lab's."""
        return self.rundir.name


def labs_to_end() -> list[RunningLab]:
    """Every lab that the caller can end, by name, whatever its directory says. Raises TestbedError."""
    roots = run_roots()
    found: dict[Path, set[int]] = {}
    for root in roots:
        for rundir in directories_in(root):
            record = read_record(rundir)
            if record is not None and record.alive and is_init_of(record.pid, rundir):
                found[rundir] = {record.pid}
    for pid, rundir in inits():
        if rundir.parent in roots:
            found.setdefault(rundir, set()).add(pid)
    return [RunningLab(rundir, tuple(sorted(pids))) for rundir, pids in sorted(found.items())]


def remove(lab: LabRecord) -> None:
    """Take down the lab that a record is about; one that is down already is success. Raises TestbedError."""
    proven = lab.alive and is_init_of(lab.pid, lab.rundir)
    pids = [lab.pid] if proven else inits_of(lab.rundir)
    if lab.alive and not pids:
        raise TestbedError(
            f"lab {lab.name}: process {lab.pid} is not its first process, so it is not killed (want: look what it is)"
        )
    take_down(RunningLab(lab.rundir, tuple(pids)))


def take_down(lab: RunningLab) -> None:
    """Kill the lab's PID 1, wait until the kernel has taken everything away, and remove its directory.

    Raises TestbedError when something of it is still there after the limit.
    """
    with contextlib.ExitStack() as lock:
        # From before its end on, or another `down` would report a lab that had died.
        is_held = _take_if_free(lock, lab)
        for pid in lab.pids:
            end(pid, lab.rundir, DOWN_LIMIT_S)
        put_the_host_back()
        if is_held:
            remove_directory(lab.rundir)
            return
    # An `up` that has the lock was starting this lab, or makes the next one of that name: the directory is its own.
    with contextlib.suppress(Busy, FileNotFoundError), locked(lab.rundir.parent, lab.name, UP_LIMIT_S):
        remove_directory(lab.rundir)


def _take_if_free(lock: contextlib.ExitStack, lab: RunningLab) -> bool:
    """A lab can be ended where no lock can be had, as on a read-only file system."""
    with contextlib.suppress(Busy, FileNotFoundError, WrongEnvironment):
        lock.enter_context(locked(lab.rundir.parent, lab.name, 0.0))
        return True
    return False


def remove_leftovers() -> Mapping[str, str]:
    """Remove the directories of labs that died, and what they had of the host.

    Returns their names, and why one could not be removed; empty when it was.

    Raises TestbedError (environment) for a directory of labs that is not to be believed.
    """
    removed = {}
    for root in run_roots():
        if not os.access(root, os.W_OK):
            continue
        for rundir in directories_in(root):
            record = read_record(rundir)
            if (record is not None and record.alive) or not is_a_labs(rundir):
                continue
            with contextlib.suppress(Busy), locked(root, rundir.name, 0.0):
                # Another `down` may have been faster.
                if inits_of(rundir) or not os.path.lexists(rundir):
                    continue
                removed[rundir.name] = ""
                try:
                    remove_directory(rundir)
                except TestbedError as failure:
                    removed[rundir.name] = str(failure)
        _remove_free_locks(root)
    put_the_host_back()
    return removed


def put_the_host_back() -> None:
    """Undo what was changed on the host for labs, when none runs any more."""
    if why := bridge_netfilter.put_back():
        print(f"warning: {why}", file=sys.stderr)


def _remove_free_locks(root: Path) -> None:
    """Whoever was killed while it had a lock has left the file."""
    for lock in root.glob(".*.lock"):
        with contextlib.suppress(TestbedError), locked(root, lock.name[1 : -len(".lock")], 0.0):
            pass
