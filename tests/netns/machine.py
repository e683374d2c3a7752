"""Somebody's computer in a test: a network namespace with a /run of its own, on which people type commands."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from typing import Any

from tests.netns.agents import ENDPOINT, ROOT, Underlay, run, wait_until

ETCD = f"--etcd-endpoints={ENDPOINT}"
FLAGS = (ETCD, "--iface=eth0", "--subnet-lease-ttl=60s")


class Machine:
    """Somebody's computer: a network of its own, and a /run of its own for what programs leave there."""

    def __init__(self, underlay: Underlay, name: str, address: str) -> None:
        self.name, self.address, self.directory = name, address, underlay.directory
        self._log = underlay.directory / f"{name}.log"
        netns = underlay.host(name, address)
        own_run = "mount -t tmpfs tmpfs /run && echo up && exec sleep infinity"
        holder = subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{netns}",
                "unshare",
                "--mount",
                "--propagation=private",
                "sh",
                "-c",
                own_run,
            ],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        underlay.undo.callback(self._end, holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        self.enter = ["nsenter", "--target", str(holder.pid), "--mount", "--net", f"--wd={ROOT}"]
        self.joined: subprocess.Popen[bytes] | None = None

    def _end(self, holder: subprocess.Popen[bytes]) -> None:
        for process in (self.joined, holder):
            if process is not None and process.poll() is None:
                # The agent goes with the one that started it; both are in a session of their own.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        assert holder.stdout is not None
        holder.stdout.close()

    @property
    def said(self) -> str:
        return self._log.read_text()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*self.enter, *command, check=check)

    def bash(self, command: str) -> str:
        """Return the output of a command typed in the clone; `sudo` and `testbed` work there."""
        words = f'sudo() {{ "$@"; }}; testbed() {{ {sys.executable} -m testbed "$@"; }}\n{command}'
        done = self.run("bash", "-c", words, check=False)
        return done.stdout + done.stderr

    def start(self, command: str, ready: str) -> subprocess.Popen[bytes]:
        """Type a command that keeps running, and wait until it has printed `ready`; see `said`."""
        with self._log.open("wb") as log:
            self.joined = subprocess.Popen(
                [*self.enter, "bash", "-c", f"exec {command}"], stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: ready in self.said, 60, f"{command} says {ready}", lambda: self.said)
        return self.joined

    def testbed(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "testbed", *words, check=check)

    def join(self, *flags: str) -> None:
        """Join in the foreground of a terminal of its own; return when the machine has joined."""
        self.start(shlex.join([sys.executable, "-m", "testbed", "join", *(flags or FLAGS)]), "Ctrl-C stops the agent")

    def interrupt(self) -> int:
        """Press Ctrl-C in that terminal."""
        assert self.joined is not None
        os.killpg(self.joined.pid, signal.SIGINT)
        return self.joined.wait(20)

    def make_the_pod_that_join_shows(self) -> str:
        """Make it with the printed commands; return its address."""
        commands = re.findall(r"^  sudo (ip .*)$", self.said, re.MULTILINE)
        assert len(commands) == 6, self.said
        for command in commands:
            self.run(*shlex.split(command))
        found = re.search(r"address add ([0-9.]+)/", self.said)
        assert found is not None
        return found[1]

    def machines(self, *flags: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.testbed("machines", "-o", "json", *(flags or FLAGS), check=False).stdout
        )
        return found
