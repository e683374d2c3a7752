"""Faults of agents: killed, kept down, stopped, hanging."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.spelling import listed

POLL_S = 0.05
FREEZER = Path(__file__).with_name("freeze_thread.py")


class AgentFaults:
    """See the catalogue."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {
            "agent kill": self.kill,
            "agent crashloop": self.kill_again_and_again,
            "agent stop": self.stop,
            "agent pause": self.pause,
            "agent hang": self.hang,
        }

    def kill(self, request: FaultRequest) -> Injected:
        """Send SIGKILL."""
        node, pid = self._running(request)
        node.agent.kill()
        return Injected(
            f"SIGKILL to process {pid}, the agent of {node.name}", "by the lab, which starts it again with back-off"
        )

    def kill_again_and_again(self, request: FaultRequest) -> Injected:
        """Send SIGKILL, and again to each successor."""
        node, pid = self._running(request)
        times, period_s = request.values[1], request.values[2]
        assert isinstance(times, float)  # the catalogue guarantees it
        assert isinstance(period_s, float)
        over = threading.Event()
        killed = 0

        def work() -> None:
            nonlocal killed
            due = time.monotonic()
            while killed < times:
                due += period_s
                if over.wait(max(0.0, due - time.monotonic())):
                    return
                # One that waits for its restart cannot be killed: its turn comes when it runs.
                while node.agent.pid is None:
                    if over.wait(POLL_S):
                        return
                node.agent.kill()
                killed += 1

        thread = threading.Thread(target=work, name=f"kill {node.agent.name}", daemon=True)
        thread.start()

        def stop() -> str:
            over.set()
            thread.join()
            return f"the agent of {node.name} was killed {killed} times; no more kills"

        did = f"SIGKILL to process {pid}, the agent of {node.name}, and to its successors"
        often = f"{times:g} times in all, one in {period_s:g} s"
        return Injected(f"{did}: {often}", "by ending the kills", stop, lasts_s=(times + 1) * period_s)

    def stop(self, request: FaultRequest) -> Injected:
        """Send SIGTERM, without a restart."""
        node, pid = self._running(request)
        node.agent.hold()

        def start() -> str:
            node.agent.resume()
            return f"the agent of {node.name} is restarted"

        did = f"SIGTERM to process {pid}, the agent of {node.name}; it stays down"
        return Injected(did, "by a restart", unless_gone(self._nodes, node, start))

    def pause(self, request: FaultRequest) -> Injected:
        """Send SIGSTOP."""
        node, pid = self._running(request)
        node.agent.kill(signal.SIGSTOP)

        def go_on() -> str:
            if node.agent.pid != pid:
                return f"process {pid} already ended; nothing to do"
            node.agent.kill(signal.SIGCONT)
            return f"SIGCONT to process {pid}"

        return Injected(f"SIGSTOP to process {pid}, the agent of {node.name}", "by SIGCONT", go_on)

    def hang(self, request: FaultRequest) -> Injected:
        """Hold only the main thread, as a debugger would."""
        node, pid = self._running(request)
        command = [sys.executable, "-I", "-S", str(FREEZER), str(pid)]
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert holder.stdout is not None  # Popen was given a pipe
        said = holder.stdout.readline().decode().strip()
        if said != "held":
            holder.wait()
            raise FaultImpossible(f"{request.text}: thread {pid} cannot be held: {said}")

        def let_go() -> str:
            ended = holder.poll() is not None
            holder.kill()
            holder.wait()
            return f"process {pid} already ended; nothing to do" if ended else f"thread {pid} continues"

        return Injected(
            f"the main thread of process {pid}, the agent of {node.name}, is held with ptrace",
            "by releasing it",
            let_go,
        )

    def _running(self, request: FaultRequest) -> tuple[LabNode, int]:
        node = node_of(self._nodes, request)
        pid = node.agent.pid
        if pid is None:
            raise FaultImpossible(f"{request.text}: the agent of {node.name} is not running (state {node.agent.state})")
        return node, pid


def node_of(nodes: Nodes, request: FaultRequest) -> LabNode:
    """Return the node that is the fault's first word. Raises FaultImpossible."""
    name = request.values[0]
    node = nodes.get(str(name))
    if node is None:
        raise FaultImpossible(f"{request.text}: no node named {name} (there are: {listed(nodes, str(name))})")
    if not node.expected and request.kind.name.startswith("agent"):
        raise FaultImpossible(f"{request.text}: the agent of {name} is run by hand (up --no-agent)")
    return node


def unless_gone(nodes: Nodes, node: LabNode, undo: Callable[[], str]) -> Callable[[], str]:
    """Return an undo that does `undo`, unless the node was deleted meanwhile: then nothing is left to restore."""
    # Another node may have its name by then.
    return lambda: undo() if nodes.get(node.name) is node else f"{node.name} is gone; nothing to restore"
