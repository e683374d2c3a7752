"""Starts every node's agent and waits until all are ready: those that say so are asked, others now and then."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from testbed.lab.node import LabNode
from testbed.lab.notices import Notices

if TYPE_CHECKING:
    from testbed.lab.lab import Lab, Progress

MAKERS = 4
"""Nodes that are prepared at the same time: each waits for an nft of its own."""
ASK_ALL_S = 1.0
"""Between two looks at agents that have not said that they are ready."""
PATIENCE = 5
"""So many times as long as asking all takes nobody is asked, who then needs the processor to start."""


class Unready:
    """The nodes that are not ready yet; `wait` and `reasons` take turns."""

    def __init__(self, nodes: Iterable[LabNode], notices: Notices) -> None:
        self._reasons = {node: f"agent {node.agent.state}, no answer yet" for node in nodes}
        self._notices = notices
        self._promising: set[LabNode] = set()
        self._ask_all_at = time.monotonic() + ASK_ALL_S

    def wait(self, limit_s: float) -> None:
        """Until one more agent says that it is ready, at the latest until the limit."""
        heard = self._notices.wait(limit_s)
        self._promising |= {node for node in self._reasons if node.agent.pid in heard}

    def reasons(self) -> list[str]:
        """What each of them lacks."""
        started = time.monotonic()
        everybody = started >= self._ask_all_at
        for node in list(self._reasons):
            if everybody or node in self._promising or not node.runs_our_agent or node.agent.state != "running":
                why = node.why_not_ready()
                if why is None:
                    del self._reasons[node]
                else:
                    self._reasons[node] = why
        if everybody:
            now = time.monotonic()
            self._ask_all_at = now + max(ASK_ALL_S, PATIENCE * (now - started))
        return [f"{node.name}: {why}" for node, why in self._reasons.items()]


def start_agents(lab: "Lab", progress: "Progress") -> str:
    """The phase «agents». Raises LabNotReady."""
    with ThreadPoolExecutor(MAKERS, "make node") as makers:
        made = list(makers.map(lab.build_node, lab.cluster.nodes))
    lab.nodes = {node.name: node for node in made}
    pinned = [node for node in made if lab.cluster.nodes[node.name].subnet is not None]
    # A node that may take any subnet must not take one that another node is pinned to.
    free = [node for node in made if node not in pinned]
    for wave in (pinned, free):
        _start_wave(lab, [node for node in wave if node.expected], progress)
    return ", ".join(f"{node.name} {node.subnet}" for node in made if node.expected)


def _start_wave(lab: "Lab", nodes: Sequence[LabNode], progress: "Progress") -> None:
    for node in nodes:
        node.agent.start()
    unready = Unready(nodes, lab.notices)
    lab.await_phase("agents", progress, unready.reasons, unready.wait)
