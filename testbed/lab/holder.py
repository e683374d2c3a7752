"""A machine's namespaces, and the process through which they are entered.

nsenter, captures, Mininet's shells and pasted commands name a process of the machine. That process does nothing, and
nothing depends on it: descriptors of the lab's supervisor keep the namespaces. If killed, it is replaced within
milliseconds by one with the same id in the same namespaces, so that no user of the id needs an update. Its name must
not be one that `mn -c` looks for (mininet/clean.py): `mininet:NAME`, like Mininet's own.
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
    """Return the name that ps shows for a machine's process."""
    return f"testbed:{name}"


class NamespaceHolder:
    """Network and mount namespaces of one machine."""

    def __init__(self, name: str, run_directory: Path, lab_files: Path, report: Report) -> None:
        """Create the namespaces and the process in them.

        Raises OSError. /run is `run_directory` there; the file system at `lab_files`, which contains it, is hidden.
        """
        self.pid = 0
        """The same for all of its processes."""
        self._title = title(name)
        self._run_directory = run_directory
        self._lab_files = lab_files
        self._report = report
        self._refused = ""
        """Why the last attempt to restart it failed."""
        self._namespaces: dict[str, int] = {}
        """Descriptors by kind."""
        self._process = Supervised(f"holder of {name}", self._launch, AT_ONCE, self._changed)
        self._process.start()

    @property
    def holds(self) -> bool:
        """Return whether the process exists now."""
        return self._process.state == "running"

    @property
    def restarts(self) -> int:
        """Return how often it was replaced."""
        return self._process.restarts

    def end(self) -> None:
        """End everything that runs in the namespaces, and release them."""
        self._process.stop(grace_s=0)
        # The mount namespace belongs to the machine alone, so this is everything that was ever started on it.
        end_processes_in(self._namespaces["mnt"])
        for descriptor in self._namespaces.values():
            os.close(descriptor)

    def _launch(self) -> Process:
        # In a new thread: the child inherits its namespaces, and is our child all the same.
        return ns.in_new_thread(self._make_again if self._namespaces else self._make)

    def _make(self) -> Process:
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS)
        ns.make_mounts_private()
        # Shows the links of the network namespace in which it is mounted.
        kernel_view.mount_sys("/sys", network=True)
        kernel_view.guard_network_settings()
        run = ns.clone_tree(str(self._run_directory))
        # Other machines' files, pods' volumes and namespaces' names must not be visible here.
        for place in (self._lab_files, "/run"):
            ns.umount(str(place), ns.MNT_DETACH)
        ns.attach_tree(run, "/run")
        os.close(run)
        process = self._spawn("--quiet")
        self.pid = process.pid
        self._namespaces = {kind: os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in KINDS}
        return process

    def _make_again(self) -> Process:
        # The thread needs its own root to enter another mount namespace.
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
            self._report("Warning", "HolderNotStarted", f"process {self.pid} cannot be restarted yet: {why}")
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
            how = ending(process.exit_code)
            self._report("Warning", "HolderEnded", f"process {self.pid}, which holds its namespaces, {how}")
        elif process.state == "running" and process.restarts:
            self._refused = ""
            what = f"process {self.pid} holds the same namespaces again; nothing else on it was touched"
            self._report("Normal", "HolderStarted", what)


def ending(exit_code: int | None) -> str:
    """Return how a process ended, in words; below 0: by that signal. Pure."""
    if exit_code is None or exit_code >= 0:
        return f"exited with {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        # A real-time signal has no name.
        return f"was ended by signal {-exit_code}"
