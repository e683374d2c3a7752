"""Identifies PID 1 of a lab by what the kernel reports, not by a number in a file.

A lab's PID 1 is a `pause --init` that is the first process of a PID namespace directly below ours, belongs to the
caller, and names the lab's run directory on its command line. Without a record of root's that identifies it, it must
also see that very directory in its mount namespace.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import TestbedError

PROGRAM = "pause"
SUPERVISOR = "testbed.supervisor.lab_init"
SUPERVISORS = (SUPERVISOR, "testbed.lab.lab_init", "testbed.lab_init")
"""This one and those of older versions, whose labs `down` ends too."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The kernel's facts about a process."""

    uid: int
    program: str
    """Name of its executable."""
    argv: tuple[str, ...]
    pids: tuple[int, ...]
    """Its number in each PID namespace, from ours to its own."""


def init_command(
    pause: Path, lifeline: int, python: str, rundir: Path, progress: int, gate: int | None = None
) -> list[str]:
    """Return the command line of a lab's PID 1; `gate` is a descriptor of the gate to an existing etcd cluster."""
    supervisor = [python, "-m", SUPERVISOR, str(rundir), str(progress), *([] if gate is None else [str(gate)])]
    return [str(pause), "--init", str(lifeline), "--", *supervisor]


def rundir_of(facts: ProcessFacts, uid: int) -> Path | None:
    """Return the run directory of the lab with this PID 1; None for any other process. `uid`: owner of the labs."""
    rundir = _rundir_named(facts)
    return None if rundir is None or facts.uid != uid or len(facts.pids) > 2 else Path(rundir)


def _rundir_named(facts: ProcessFacts) -> str | None:
    """Return the directory that a lab's PID 1 names; None for other processes and other command lines."""
    if facts.program != PROGRAM or facts.pids[-1:] != (1,):
        return None
    if facts.argv[1:2] != ("--init",) or facts.argv[3:4] != ("--",):
        return None
    words = facts.argv[4:]
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word in SUPERVISORS), None)


def read_facts(pid: int) -> ProcessFacts | None:
    """Read the current facts; None if there is no such process, or the caller may not see it."""
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
        if program != PROGRAM:
            return None
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    pids = tuple(int(number) for number in fields["NSpid"].split())
    uid = int(fields["Uid"].split()[1])
    return ProcessFacts(uid, program, tuple(os.fsdecode(word) for word in argv), pids)


def is_init_of(pid: int, rundir: Path) -> bool:
    """Report whether a process is PID 1 of a lab started in this directory."""
    facts = read_facts(pid)
    return facts is not None and rundir_of(facts, os.geteuid()) == rundir


def inits() -> Iterator[tuple[int, Path]]:
    """Yield PID 1 of each of the caller's labs whose run directory is the one that we see, with that directory."""
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (facts := read_facts(int(entry))) is not None:
            rundir = rundir_of(facts, os.geteuid())
            if rundir is not None and _has(int(entry), rundir):
                yield int(entry), rundir


def any_lab_runs() -> bool:
    """Report whether any lab runs on this machine, including other users' and those in containers."""
    found = (read_facts(int(entry)) for entry in os.listdir("/proc") if entry.isdecimal())
    return any(facts is not None and _rundir_named(facts) is not None for facts in found)


def inits_of(rundir: Path) -> list[int]:
    """Return PID 1 of the lab in this directory; several if an earlier directory of that name was removed by hand."""
    return [pid for pid, of in inits() if of == rundir]


def end(pid: int, rundir: Path, limit_s: float) -> bool:
    """Kill the PID 1 of the lab in this directory; return False if the process is another one.

    Everything in the lab ends with it. Raises TestbedError if it still exists after the limit.
    """
    try:
        # Before checking the process, so that the checked process is the one killed.
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_init_of(pid, rundir):
            return False
        if pid == 1:
            raise TestbedError(f"lab {rundir.name}: cannot be taken down from inside (want: on the host)")
        kill(process, rundir.name, limit_s)
    finally:
        os.close(process)
    return True


def kill(process: int, lab: str, limit_s: float) -> None:
    """Kill a pidfd's process and wait for its end; one that has ended already is success. Raises TestbedError."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    ended = select.poll()
    ended.register(process, select.POLLIN)
    if not ended.poll(limit_s * 1000):
        raise TestbedError(f"lab {lab}: its first process is still there after {limit_s:g} s")


def _has(pid: int, rundir: Path) -> bool:
    """Report whether the process sees the same directory as we do, or a removed one.

    This excludes labs of another mount namespace, as in a container.
    """
    try:
        its = os.stat(f"/proc/{pid}/root{rundir}")
        return its.st_nlink == 0 or os.path.samestat(its, os.lstat(rundir))
    except OSError:
        return False
