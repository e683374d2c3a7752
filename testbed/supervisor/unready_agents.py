"""Starting agents: those that report readiness are queried at once, others now and then."""

import time
from collections import deque
from collections.abc import Iterable

from testbed.lab.node import LabNode
from testbed.lab.notices import Notices

ASK_ALL_S = 1.0
"""Interval between queries of agents that have not reported readiness."""
AT_ONCE = 16
"""Agents that may start at the same time: more only delay etcd and each other."""
HOPELESS_S = 10.0
"""An agent that takes longer does not hold back the next ones."""
PATIENCE = 5
"""After querying all agents, the pause is this many times as long: they need the processor to start."""


class UnreadyAgents:
    """The nodes that are not ready yet, whose agents it starts; call `wait` and `reasons` alternately."""

    def __init__(self, nodes: Iterable[LabNode], notices: Notices) -> None:
        self._reasons = {node: "its agent is not started yet" for node in nodes}
        self._notices = notices
        self._promising: set[LabNode] = set()
        self._coming = deque(self._reasons)
        self._started_at: dict[LabNode, float] = {}
        """On the monotonic clock; for those that are not ready yet."""
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
        """Wait until one more agent reports readiness, at the latest until the limit."""
        heard = self._notices.wait(limit_s)
        self._promising |= {node for node in self._reasons if node.agent.pid in heard}

    def reasons(self) -> list[str]:
        """Return what each of them is missing."""
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
