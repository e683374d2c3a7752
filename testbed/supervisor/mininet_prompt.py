"""Mininet's own prompt on the running lab, with our words added.

It runs in a forked copy of the lab's supervisor: Mininet's objects are all there, a crash of the prompt cannot hurt
the lab, and what the prompt changes it changes in the kernel, where everybody sees it.
"""

import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable

from mininet.cli import CLI
from mininet.log import output, setLogLevel

from agent.kernel.journal import Journal
from agent.kernel.kernel import Kernel
from testbed.lab.underlay import LabUnderlay


class LabPrompt(CLI):
    """`nodes`, `net`, `links`, `dump`, `pingall`, `link s1 node1 down`, `node1 CMD` … and pods, leases, status."""

    prompt = "testbed> "

    def _testbed(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "testbed", *arguments], capture_output=True, text=True, check=False
        )
        output(done.stdout + done.stderr)

    def do_pods(self, _line: str) -> None:
        """pods: the pods and their states"""
        self._testbed("get", "pods", "-o", "wide")

    def do_leases(self, _line: str) -> None:
        """leases: who leases which subnet in etcd"""
        self._testbed("get", "leases")

    def do_status(self, _line: str) -> None:
        """status: nodes and pods at a glance"""
        self._testbed("status")


def become_prompt(
    underlay: LabUnderlay, journal_of: Callable[[str], Journal], streams: tuple[int, ...], lab_name: str
) -> None:
    """In a freshly forked child: talk to the client's terminal until it leaves. Never returns."""
    code = 1
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["TESTBED_LAB"] = lab_name
        # Our own standard input was /dev/null when this process's parent was started.
        sys.stdin = os.fdopen(0)
        # The parent's netlink sockets are the parent's: an answer read here would be missing there.
        for name, machine in underlay.machines.items():
            machine.kernel = Kernel(journal_of(name), netns_pid=machine.pid)
        own = Kernel(journal_of("lab"))
        for switch in underlay.net.switches:
            switch.kernel = own
        for node in (*underlay.net.hosts, *underlay.net.switches):
            # So are its shells.
            node.shell = None
        setLogLevel("info")
        LabPrompt(underlay.net, stdin=sys.stdin)
        code = 0
    finally:
        os._exit(code)
