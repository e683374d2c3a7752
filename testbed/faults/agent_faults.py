"""Faults of agents: killed, kept away, stopped, hanging."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.lab.lab import Lab
from testbed.lab.node import LabNode

FREEZER = Path(__file__).with_name("freeze_thread.py")


class AgentFaults:
    """See the catalogue."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def injectors(self) -> Mapping[str, Injector]:
        """By name of the kind."""
        return {
            "agent kill": self.kill,
            "agent stop": self.stop,
            "agent pause": self.pause,
            "agent hang": self.hang,
        }

    def kill(self, request: FaultRequest) -> Injected:
        """SIGKILL."""
        node, pid = self._running(request)
        node.agent.kill()
        return Injected(
            f"SIGKILL to process {pid}, the agent of {node.name}", "by the lab, which starts it again with back-off"
        )

    def stop(self, request: FaultRequest) -> Injected:
        """SIGTERM, and no new start."""
        node, pid = self._running(request)
        node.agent.hold()

        def start() -> str:
            node.agent.resume()
            return f"the agent of {node.name} is started again"

        return Injected(f"SIGTERM to process {pid}, the agent of {node.name}; it stays away", "by a new start", start)

    def pause(self, request: FaultRequest) -> Injected:
        """SIGSTOP."""
        node, pid = self._running(request)
        node.agent.kill(signal.SIGSTOP)

        def go_on() -> str:
            if node.agent.pid != pid:
                return f"process {pid} has ended meanwhile; nothing to do"
            node.agent.kill(signal.SIGCONT)
            return f"SIGCONT to process {pid}"

        return Injected(f"SIGSTOP to process {pid}, the agent of {node.name}", "by SIGCONT", go_on)

    def hang(self, request: FaultRequest) -> Injected:
        """A debugger's hold on the main thread alone."""
        node, pid = self._running(request)
        command = [sys.executable, "-I", "-S", str(FREEZER), str(pid)]
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert holder.stdout is not None  # a pipe was asked for
        said = holder.stdout.readline().decode().strip()
        if said != "held":
            holder.wait()
            raise FaultImpossible(f"{request.text}: thread {pid} cannot be held: {said}")

        def let_go() -> str:
            ended = holder.poll() is not None
            holder.kill()
            holder.wait()
            return f"process {pid} has ended meanwhile; nothing to do" if ended else f"thread {pid} goes on"

        return Injected(
            f"the main thread of process {pid}, the agent of {node.name}, is held with ptrace", "by letting go", let_go
        )

    def _running(self, request: FaultRequest) -> tuple[LabNode, int]:
        node = node_of(self._lab, request)
        pid = node.agent.pid
        if pid is None:
            raise FaultImpossible(f"{request.text}: the agent of {node.name} does not run (state {node.agent.state})")
        return node, pid


def node_of(lab: Lab, request: FaultRequest) -> LabNode:
    """The node that is the fault's first word. Raises FaultImpossible."""
    name = request.values[0]
    node = lab.nodes.get(str(name))
    if node is None:
        raise FaultImpossible(f"{request.text}: no node named {name} (there are: {', '.join(lab.nodes)})")
    if not node.expected and request.kind.name.startswith("agent"):
        raise FaultImpossible(f"{request.text}: the agent of {name} is run by hand (up --no-agent)")
    return node
