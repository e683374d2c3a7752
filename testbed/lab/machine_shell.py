"""Mininet nodes that start their shell on demand.

Mininet starts a bash with its own terminal for every host and switch, which takes 20 ms and 2 MiB each, and is used
only by Mininet's prompt and `Node.cmd`. Here it starts with the first command; a killed one is replaced at the next
command.
"""

import codecs
import contextlib
import os
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

from mininet.node import Node

from testbed.lab.holder import title

END_OF_COMMAND = b"\x7f"
"""The prompt of Mininet's shells."""


class ShellOnDemand(Node):
    """A Mininet node whose shell starts with its first command."""

    pid: int
    inNamespace: bool
    shell: Any
    _held = False
    _starting = False

    def startShell(self, mnopts: str | None = None) -> None:
        """Create the node's namespaces at the first call; afterwards start its shell."""
        if not self._held:
            self.pid, self._held = self.hold(), True
            return
        # Mininet's own stops at the first byte that is not UTF-8.
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        holder, inside = self.pid, self.inNamespace
        # mnexec: detached, without our descriptors, in the namespaces of that process instead of new ones.
        self.inNamespace = False
        try:
            super().startShell(f"-cda{holder}")
        finally:
            self.pid, self.inNamespace = holder, inside

    def hold(self) -> int:
        """Return the process with the node's namespaces: here the lab's own."""
        return os.getpid()

    def cmd(self, *args: object, **kwargs: object) -> str:
        """Run a command in the node's shell and return its output. Raises OSError if no shell can be started."""
        self._have_shell()
        return str(super().cmd(*args, **kwargs))

    def sendCmd(self, *args: object, **kwargs: object) -> None:
        """Type a command into the node's shell. Raises OSError if no shell can be started."""
        self._have_shell()
        super().sendCmd(*args, **kwargs)

    def cleanup(self) -> None:
        """Forget the shell."""
        for known in (self.inToNode, self.outToNode) if self.shell is not None else ():
            known.pop(self.stdin.fileno(), None)
        super().cleanup()
        self.waiting, self.readbuf = False, ""

    def _have_shell(self) -> None:
        if self._starting:
            # Mininet's initial commands to a new shell.
            return
        if self.shell is not None and self.shell.poll() is not None:
            self.cleanup()
        if self.shell is None:
            self._start()

    def _start(self) -> None:
        self._starting = True
        try:
            self.startShell()
        finally:
            self._starting = False
        code = self.shell.poll()
        if code is not None:
            raise OSError(f"{self.name}: its shell exited with {code} right after its start")

    def _popen(self, cmd: Sequence[str], **params: Any) -> "subprocess.Popen[Any]":  # noqa: ANN401 - Popen's own
        """Start a program; the shell under a name that `mn -c` does not look for."""
        shell = f"mininet:{self.name}"
        words = [title(self.name) if word == shell else word for word in cmd]
        process: subprocess.Popen[Any] = super()._popen(words, **params)
        if shell in cmd:
            watch = threading.Thread(
                target=_end_command, args=(process, os.dup(self.slave)), name=f"shell of {self.name}"
            )
            watch.daemon = True
            watch.start()
        return process


def _end_command(shell: "subprocess.Popen[Any]", terminal: int) -> None:
    """Report the end of the current command when the shell ends: otherwise Mininet would wait indefinitely."""
    shell.wait()
    with contextlib.suppress(OSError):
        os.write(terminal, END_OF_COMMAND)
    os.close(terminal)
