"""Mininet nodes without a shell until somebody wants one: their namespaces are held by `pause`, a small static program.

Mininet starts a bash on a terminal of its own for every host and switch, which takes 20 ms and 2 MiB each, and which
only Mininet's prompt and `Node.cmd` ever talk to.
"""

import os
import subprocess
from pathlib import Path

from mininet.node import Node

from testbed.places import PAUSE
from testbed.pods import kernel_view
from testbed.pods import namespaces as ns


class ShellOnDemand(Node):
    """A Mininet node whose shell starts with the first command for it."""

    pid: int
    inNamespace: bool
    _held = False

    def startShell(self, mnopts: str | None = None) -> None:
        """The first time make the node's namespaces; from then on start its shell."""
        if not self._held:
            self.pid, self._held = self.hold(), True
            return
        holder, inside = self.pid, self.inNamespace
        # mnexec: detached, without our descriptors, in the namespaces of that process instead of new ones.
        self.inNamespace = False
        super().startShell(f"-cda{holder}")
        self.pid, self.inNamespace = holder, inside

    def hold(self) -> int:
        """The process whose namespaces are the node's: here the lab's own."""
        return os.getpid()

    def cmd(self, *args: object, **kwargs: object) -> str:
        """Run a command in the node's shell and wait for its output."""
        self._have_shell()
        return str(super().cmd(*args, **kwargs))

    def sendCmd(self, *args: object, **kwargs: object) -> None:
        """Type a command into the node's shell."""
        self._have_shell()
        super().sendCmd(*args, **kwargs)

    def _have_shell(self) -> None:
        if self.shell is None:
            self.startShell()


def hold_machine(name: str, run_directory: Path) -> "subprocess.Popen[bytes]":
    """A process in network and mount namespaces of its own, where /run is `run_directory`; ps shows it as Mininet's
    shells, `mininet:NAME`. Raises OSError.
    """

    def make() -> "subprocess.Popen[bytes]":
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS)
        ns.make_mounts_private()
        # Shows the links of the network namespace that it is mounted in.
        kernel_view.mount_sys("/sys", network=True)
        ns.mount(str(run_directory), "/run", flags=ns.MS_BIND)
        null = subprocess.DEVNULL
        return subprocess.Popen(
            [f"mininet:{name}", "--quiet"],
            executable=PAUSE,
            stdin=null,
            stdout=null,
            stderr=null,
            cwd="/",
            env={},
            start_new_session=True,
        )

    # A thread of its own: the child inherits its namespaces, and is our child all the same.
    return ns.in_new_thread(make)
