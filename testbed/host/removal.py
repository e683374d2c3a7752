"""Removes labs: their processes, identified by the kernel, and their directories."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.cgroups.groups import remove_groups_of_dead_labs
from testbed.control.client import LabRecord, directories_in, read_record, run_roots
from testbed.errors import TestbedError, WrongEnvironment
from testbed.host import bridge_netfilter
from testbed.host.gate import leave_existing
from testbed.host.lab_directories import Busy, is_a_labs, locked, remove_directory
from testbed.host.lab_process import end, inits, inits_of, is_init_of

DOWN_LIMIT_S = 10.0
UP_LIMIT_S = 2.0
"""How long `down` waits for an `up` of that lab to notice its end."""


@dataclass(frozen=True, slots=True)
class RunningLab:
    """A lab that the caller can end."""

    rundir: Path
    pids: tuple[int, ...]
    """Process ids of its PID 1; several if a directory of that name was removed by hand while its lab ran."""

    @property
    def name(self) -> str:
        """Return the lab's name."""
        return self.rundir.name


def labs_to_end() -> list[RunningLab]:
    """Return every lab that the caller can end, by name, whatever its directory contains. Raises TestbedError."""
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
    """Take down the lab of a record; one that is down already is success. Raises TestbedError."""
    proven = lab.alive and is_init_of(lab.pid, lab.rundir)
    pids = [lab.pid] if proven else inits_of(lab.rundir)
    if lab.alive and not pids:
        raise TestbedError(
            f"lab {lab.name}: process {lab.pid} is not its first process, so it was not killed (want: check what it is)"
        )
    take_down(RunningLab(lab.rundir, tuple(pids)))


def take_down(lab: RunningLab) -> None:
    """Kill the lab's PID 1, wait until the kernel has removed everything, and remove its directory.

    Raises TestbedError if something is left after the limit.
    """
    with contextlib.ExitStack() as lock:
        # From before its end, or another `down` would report a lab that had died.
        is_held = _take_if_free(lock, lab)
        leave_existing(lab.rundir)
        for pid in lab.pids:
            end(pid, lab.rundir, DOWN_LIMIT_S)
        put_the_host_back()
        if is_held:
            remove_directory(lab.rundir)
            return
    # A running `up` holds the lock: it was starting this lab, or makes the next one of that name, and owns the
    # directory.
    with contextlib.suppress(Busy, FileNotFoundError), locked(lab.rundir.parent, lab.name, UP_LIMIT_S):
        remove_directory(lab.rundir)


def _take_if_free(lock: contextlib.ExitStack, lab: RunningLab) -> bool:
    """Take the lock if possible: a lab can be ended without one, as on a read-only file system."""
    with contextlib.suppress(Busy, FileNotFoundError, WrongEnvironment):
        lock.enter_context(locked(lab.rundir.parent, lab.name, 0.0))
        return True
    return False


def remove_leftovers() -> Mapping[str, str]:
    """Remove the directories of labs that died, and their changes to the host.

    Returns their names, each with the reason if it could not be removed, else "". Raises TestbedError (environment) for
    an untrustworthy directory of labs.
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
                leave_existing(rundir)
                try:
                    remove_directory(rundir)
                except TestbedError as failure:
                    removed[rundir.name] = str(failure)
        _remove_free_locks(root)
    put_the_host_back()
    return removed


def put_the_host_back() -> None:
    """Undo changes made on the host for labs that run no more."""
    for why in (bridge_netfilter.put_back(), *remove_groups_of_dead_labs()):
        if why:
            print(f"warning: {why}", file=sys.stderr)


def _remove_free_locks(root: Path) -> None:
    """Remove unused locks: a process that was killed while holding one leaves the file."""
    for lock in root.glob(".*.lock"):
        with contextlib.suppress(TestbedError), locked(root, lock.name[1 : -len(".lock")], 0.0):
            pass
