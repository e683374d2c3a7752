"""Restores nodes' rules for packets from pods after another program changed them."""

import threading
import time

from testbed.lab.events import Events
from testbed.lab.nodes import Nodes

REPAIR_EVERY_S = 3.0


class GuardRepair:
    """Looks at the rules of all nodes, for as long as the lab runs."""

    def __init__(self, nodes: Nodes, events: Events) -> None:
        self._nodes = nodes
        self._events = events
        self._failures: dict[str, str] = {}
        """Node → why its rules are wrong."""

    def start(self) -> None:
        """Look from now on."""
        threading.Thread(target=self._repair_loop, name="pod guards", daemon=True).start()

    def _repair_loop(self) -> None:
        while True:
            time.sleep(REPAIR_EVERY_S)
            for node in self._nodes.values():
                try:
                    repaired = node.guard.repair()
                except OSError as failure:
                    self._report(node.name, str(failure))
                    continue
                self._failures.pop(node.name, None)
                if repaired:
                    why = "another program changed the rules for packets from pods; restored them"
                    self._events.note("Warning", f"node/{node.name}", "PodGuardRestored", why)

    def _report(self, node: str, why: str) -> None:
        # A node that is being deleted is no failure.
        if node in self._nodes and self._failures.get(node) != why:
            self._events.note("Warning", f"node/{node}", "PodGuardNotRestored", why)
            self._failures[node] = why
