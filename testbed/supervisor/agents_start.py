"""Starts every node's agent and waits until all are ready: those that say so are asked, others now and then."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from testbed.lab.node import LabNode
from testbed.lab.notices import Notices

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab, Progress

MAKERS = 4
"""Nodes that are prepared at the same time: each waits for an nft of its own."""
ASK_ALL_S = 1.0
"""Between two looks at agents that have not said that they are ready."""
AT_ONCE = 16
"""Agents that may be starting at the same time: more of them only keep etcd and each other waiting."""
HOPELESS_S = 10.0
"""One that takes longer does not hold back those that come after it."""
PATIENCE = 5
"""So many times as long as asking all takes nobody is asked, who then needs the processor to start."""


class Unready:
    """The nodes that are not ready yet, whose agents it starts; `wait` and `reasons` take turns."""

    def __init__(self, nodes: Iterable[LabNode], notices: Notices) -> None:
        self._reasons = {node: "its agent is not started yet" for node in nodes}
        self._notices = notices
        self._promising: set[LabNode] = set()
        self._coming = deque(self._reasons)
        self._started_at: dict[LabNode, float] = {}
        """On the monotonic clock; of those that are not ready yet."""
        self._ask_all_at = time.monotonic() + ASK_ALL_S
        self._start_more()

    def _start_more(self) -> None:
        now = time.monotonic()
        starting = sum(now - at < HOPELESS_S for at in self._started_at.values())
        for _ in range(min(AT_ONCE - starting, len(self._coming))):
            node = self._coming.popleft()
            node.agent.start()
            self._started_at[node] = now
            self._reasons[node] = "agent running, no answer yet"

    def wait(self, limit_s: float) -> None:
        """Until one more agent says that it is ready, at the latest until the limit."""
        heard = self._notices.wait(limit_s)
        self._promising |= {node for node in self._reasons if node.agent.pid in heard}

    def reasons(self) -> list[str]:
        """What each of them lacks."""
        began = time.monotonic()
        everybody = began >= self._ask_all_at
        for node in list(self._started_at):
            if everybody or node in self._promising or not node.runs_our_agent or node.agent.state != "running":
                why = node.why_not_ready()
                if why is None:
                    del self._reasons[node], self._started_at[node]
                else:
                    self._reasons[node] = why
        if everybody:
            now = time.monotonic()
            self._ask_all_at = now + max(ASK_ALL_S, PATIENCE * (now - began))
        self._start_more()
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
    unready = Unready(nodes, lab.notices)
    lab.await_phase("agents", progress, unready.reasons, unready.wait)
