"""Mininet's own prompt on the running lab, with additional commands.

It runs in a forked copy of the lab's supervisor: all of Mininet's objects exist, a crash of the prompt cannot harm the
lab, and its changes are made in the kernel, visible to every process.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mininet.cli import CLI
from mininet.log import error, output, setLogLevel

from agent.kernel.journal import Journal
from agent.kernel.kernel import Kernel
from testbed.cluster.kinds import NODE, POD
from testbed.cluster.object_key import key_of_object
from testbed.control.client import ask, find_lab
from testbed.control.questions import GET, IPERF
from testbed.errors import TestbedError
from testbed.lab.underlay import LabUnderlay

ANSWER_LIMIT_S = 5.0
IPERF_S = 5
DEFAULT_UDP_RATE = "10M"


class LabPrompt(CLI):
    """Mininet's `nodes`, `net`, `links`, `dump`, `pingall`, `link s1 node1 down`, `node1 CMD` …; pods are hosts too.

    A failing command is reported, and the prompt continues.
    """

    prompt = "testbed> "
    identchars = f"{CLI.identchars}-"
    """Characters of names: those of pods contain dashes."""

    def onecmd(self, line: str) -> Any:  # noqa: ANN401 - cmd's own
        """Run a command; report its exception in one line."""
        try:
            return super().onecmd(line)
        except TestbedError as failure:
            error(f"error: {failure}\n")
        except Exception as failure:
            error(f"error: {line.split(' ')[0]}: {type(failure).__name__}: {failure}\n")
        return None

    def default(self, line: str) -> None:
        """Run a command in a pod or on a machine; replace both's names in it by their addresses, as Mininet does."""
        first, _, rest = line.strip().partition(" ")
        pods = self._pods()
        rest = " ".join(pods.get(word) or word for word in rest.split(" "))
        if first not in pods:
            super().default(f"{first} {rest}".rstrip())
        elif not rest:
            error(f"*** Please enter a command for pod: {first} <cmd>\n")
        else:
            rest = " ".join(self._address(word) if word in self.mn else word for word in rest.split(" "))
            self._run_in_pod(first, rest)

    def _pods(self) -> dict[str, str]:
        """Return every pod's address by its name; none while the lab does not answer, since machines work without."""
        with contextlib.suppress(TestbedError):
            found = ask(find_lab(None), GET, answer_within_s=ANSWER_LIMIT_S, kind=POD.plural)
            return {str(key_of_object(pod)): str(pod.get("status", {}).get("podIP") or "") for pod in found}
        return {}

    def _address(self, machine: str) -> str:
        return str(self.mn[machine].defaultIntf().updateIP() or machine)

    def _run_in_pod(self, pod: str, command: str) -> None:
        terminal = ["-it"] if self.isatty() else []
        # The rest of a script after this command belongs to us, not to the program.
        stdin = None if terminal else subprocess.DEVNULL
        words = [sys.executable, "-m", "testbed", "exec", *terminal, pod, "--", "sh", "-c", command]
        # Ctrl-C is for the program.
        former = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            subprocess.run(words, stdin=stdin, check=False)
        finally:
            signal.signal(signal.SIGINT, former)

    def _testbed(self, *arguments: str) -> None:
        words = [sys.executable, "-m", "testbed", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        output(done.stdout + done.stderr)

    def do_nodes(self, line: str) -> None:
        """nodes: machines and pods"""
        super().do_nodes(line)
        output(f"pods are: \n{' '.join(sorted(self._pods())) or 'none'}\n")

    def do_pods(self, _line: str) -> None:
        """pods: the pods and their states"""
        self._testbed("get", "pods", "-o", "wide")

    def do_leases(self, _line: str) -> None:
        """leases: who leases which subnet in etcd"""
        self._testbed("get", "leases")

    def do_status(self, _line: str) -> None:
        """status: nodes and pods at a glance"""
        self._testbed("status")

    def do_trace(self, line: str) -> None:
        """trace SRC DST: the path of a packet between pods or nodes"""
        self._testbed("trace", *line.split())

    def do_dpctl(self, line: str) -> None:
        """dpctl COMMAND: ovs-ofctl on every switch, where the switches are Open vSwitch's"""
        if not all(hasattr(switch, "dpctl") for switch in self.mn.switches):
            error("error: dpctl: the switches are Linux bridges and have no OpenFlow (want underlay: {switch: ovs})\n")
            return
        super().do_dpctl(line)

    def do_source(self, line: str) -> None:
        """source FILE: run the commands of a file"""
        try:
            text = Path(line.strip() or ".").read_text(errors="replace")
        except OSError as failure:
            error(f"error: source: {line.strip() or 'no file'}: {failure.strerror}\n")
            return
        for command in text.splitlines():
            if self.onecmd(self.precmd(command)):
                return

    def do_iperf(self, line: str) -> None:
        """iperf [SRC DST]: TCP throughput between two machines or pods, by default the first node and the last"""
        self._iperf("iperf", line.split())

    def do_iperfudp(self, line: str) -> None:
        """iperfudp [RATE SRC DST]: the same by UDP at a rate such as 10M, its default"""
        rate, *ends = line.split() or [DEFAULT_UDP_RATE]
        self._iperf("iperfudp", ends, rate)

    def _iperf(self, command: str, ends: Sequence[str], udp_rate: str | None = None) -> None:
        """Measure through the lab with iperf3; Mininet's own method parses iperf's text and kills every
        iperf by name.
        """
        if not ends:
            nodes = [node["metadata"]["name"] for node in ask(find_lab(None), GET, kind=NODE.plural)]
            ends = (nodes[0], nodes[-1])
        if len(ends) != 2:
            usage = "iperf SRC DST" if command == "iperf" else "iperfudp RATE SRC DST"
            error(f"error: {command}: not two names (got {len(ends)}; want {usage})\n")
            return
        from testbed.output.tables import rate as rate_text

        source, destination = ends
        output(f"*** Iperf: testing bandwidth between {source} and {destination}\n")
        answer = ask(
            find_lab(None),
            IPERF,
            source=source,
            destination=destination,
            seconds=IPERF_S,
            udp=udp_rate is not None,
            bitrate=udp_rate,
        )
        output(f"*** Results: {rate_text(answer['bits_per_second'])}\n")


def become_prompt(
    underlay: LabUnderlay, journal_of: Callable[[str], Journal], streams: tuple[int, ...], lab_name: str
) -> None:
    """Talk to the client's terminal until it leaves, in a freshly forked child. Never returns."""
    code = 1
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        _release_inherited()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["TESTBED_LAB"] = lab_name
        # Our own standard input has been /dev/null since this process's parent was started.
        sys.stdin = os.fdopen(0, errors="replace")
        # The parent's netlink sockets belong to the parent: an answer read here would be missing there.
        for name, machine in underlay.machines.items():
            machine.kernel = Kernel(journal_of(name), netns_pid=machine.pid)
        own = Kernel(journal_of("lab"))
        for switch in underlay.net.switches:
            switch.kernel = own
        for node in (*underlay.net.hosts, *underlay.net.switches):
            # The same goes for its shells, and for commands that run there now.
            node.shell, node.waiting = None, False
        setLogLevel("info")
        LabPrompt(underlay.net, stdin=sys.stdin)
        code = 0
    finally:
        os._exit(code)


def _release_inherited() -> None:
    """Release every inherited descriptor but the three streams: other clients' pipes end only without our copies.

    The numbers stay in use, by /dev/null: objects of the parent's may still close theirs, and must not meet a new one.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number not in (0, 1, 2, nothing):
            os.dup2(nothing, number, inheritable=False)
