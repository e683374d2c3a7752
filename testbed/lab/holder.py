"""A machine's namespaces, and the process by whose number everybody enters them.

nsenter, captures, Mininet's shells and the lines that people paste name a process of the machine. That process does
nothing, and nothing depends on it: the namespaces live on by descriptors of the lab's supervisor. Killed, it is
replaced within milliseconds by one of the same number in the same namespaces, so that nobody has to hear of a change.

Its name must not be one that `mn -c` looks for (mininet/clean.py): `mininet:NAME`, as Mininet calls its own.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from testbed.places import PAUSE
from testbed.pods import kernel_view
from testbed.pods.pod_container import end_processes_in
from testbed.processes import namespaces as ns
from testbed.processes.supervise import Process, RestartPolicy, Supervised
from testbed.processes.warm_parent import ForkedProcess

KINDS = {"net": ns.CLONE_NEWNET, "mnt": ns.CLONE_NEWNS}
AT_ONCE = RestartPolicy(first_delay_s=0.01, max_delay_s=1.0, settled_after_s=1.0)
Report = Callable[[Literal["Normal", "Warning"], str, str], None]
"""Called with an event's type, reason and message, from any thread."""


def title(name: str) -> str:
    """What ps shows for a process that is there for a machine."""
    return f"testbed:{name}"


class NamespaceHolder:
    """Network and mount namespaces of one machine."""

    def __init__(self, name: str, run_directory: Path, lab_files: Path, report: Report) -> None:
        """Make the namespaces and the process in them. Raises OSError.

        /run is `run_directory` there; the file system at `lab_files`, which has it and more, is not seen.
        """
        self.pid = 0
        """The same from the first process to the last."""
        self._title = title(name)
        self._run_directory = run_directory
        self._lab_files = lab_files
        self._report = report
        self._refused = ""
        """Why the last try to start another one failed."""
        self._namespaces: dict[str, int] = {}
        """Descriptors by kind."""
        self._process = Supervised(f"holder of {name}", self._launch, AT_ONCE, self._changed)
        self._process.start()

    @property
    def holds(self) -> bool:
        """Whether there is a process now."""
        return self._process.state == "running"

    @property
    def restarts(self) -> int:
        """How often it was replaced."""
        return self._process.restarts

    def end(self) -> None:
        """End everything that runs in the namespaces, and let go of them."""
        self._process.stop(grace_s=0)
        # The mount namespace is the machine's alone, so this is all that was ever started on it.
        end_processes_in(self._namespaces["mnt"])
        for descriptor in self._namespaces.values():
            os.close(descriptor)

    def _launch(self) -> Process:
        # A thread of its own: the child inherits its namespaces, and is our child all the same.
        return ns.in_new_thread(self._make_again if self._namespaces else self._make)

    def _make(self) -> Process:
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS)
        ns.make_mounts_private()
        # Shows the links of the network namespace that it is mounted in.
        kernel_view.mount_sys("/sys", network=True)
        kernel_view.guard_network_settings()
        run = ns.clone_tree(str(self._run_directory))
        # Other machines' files, pods' volumes and names of namespaces are none of its business.
        for place in (self._lab_files, "/run"):
            ns.umount(str(place), ns.MNT_DETACH)
        ns.attach_tree(run, "/run")
        os.close(run)
        process = self._spawn("--quiet")
        self.pid = process.pid
        self._namespaces = {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in KINDS}
        return process

    def _make_again(self) -> Process:
        # The thread needs a root of its own to enter another mount namespace.
        ns.unshare(ns.CLONE_FS)
        for kind, flag in KINDS.items():
            ns.setns(self._namespaces[kind], flag)
        maker = self._spawn("--as", str(self.pid))
        _, said = maker.communicate()
        if maker.returncode != 0:
            raise self._failure(said.decode(errors="replace").strip())
        return ForkedProcess(self.pid)

    def _failure(self, why: str) -> OSError:
        if why != self._refused:
            self._refused = why
            self._report("Warning", "HolderNotStarted", f"process {self.pid} cannot be started again yet: {why}")
        return OSError(why)

    def _spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [self._title, *arguments],
            executable=PAUSE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if "--as" in arguments else subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )

    def _changed(self, process: Supervised) -> None:
        if process.state == "backoff":
            how = _ended_by(process.exit_code)
            self._report("Warning", "HolderEnded", f"process {self.pid}, which holds its namespaces, {how}")
        elif process.state == "running" and process.restarts:
            self._refused = ""
            what = f"process {self.pid} holds the same namespaces again; nothing else on it was touched"
            self._report("Normal", "HolderStarted", what)


def _ended_by(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with {exit_code}"
