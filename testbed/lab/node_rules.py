"""Rules of one kind on all nodes: written, restored after another program changed them, each failure reported once."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from agent.errors import AgentError
from testbed.cluster.underlay_plan import GATEWAY
from testbed.lab.events import Events
from testbed.lab.nodes import Nodes

WORKERS = 4
log = logging.getLogger(__name__)


class RepairableRules(Protocol):
    """The rules of one node."""

    def repair(self) -> bool:
        """Restore what another program changed; return whether it had to. Raises AgentError and OSError."""


class NodeRules:
    """Watches one kind of rules for as long as the lab runs."""

    def __init__(self, nodes: Nodes, events: Events, why_repair: str, *, restored: str, failed: str) -> None:
        """`restored` and `failed` are reasons of events."""
        self._nodes = nodes
        self._events = events
        self._why_repair = why_repair
        self._restored = restored
        self._failed = failed
        self._unwritten: Mapping[str, str] = {}
        """Machine → why its rules could not be written."""
        self._unrestored: Mapping[str, str] = {}
        """Machine → why its rules could not be checked or restored."""
        self._workers = ThreadPoolExecutor(WORKERS, failed)

    def start(
        self,
        every_s: float,
        rules: Callable[[], Iterable[tuple[str, RepairableRules]]],
        write_again: Callable[[], None] = lambda: None,
    ) -> None:
        """Check the rules of all nodes from now on, and call `write_again` while there are failures."""

        def run() -> None:
            while True:
                time.sleep(every_s)
                try:
                    self.check(rules(), write_again)
                except Exception:
                    # A check that fails must not end the watch.
                    log.exception("%s", self._failed)

        threading.Thread(target=run, name=self._restored, daemon=True).start()

    def check(self, rules: Iterable[tuple[str, RepairableRules]], write_again: Callable[[], None]) -> None:
        """Restore the rules that another program changed, once."""
        if self.failures:
            write_again()
        failures = {}
        for name, one in rules:
            try:
                if one.repair():
                    self._events.note("Warning", f"node/{name}", self._restored, f"{self._why_repair}; restored them")
            except (AgentError, OSError) as failure:
                failures[name] = f"{name}: {failure}"
        self._unrestored = self._announced(failures)

    def write(self, writes: Iterable[tuple[str, Callable[[], None]]]) -> None:
        """Call these, each of which writes rules of the named machine."""
        running: list[tuple[str, Future[None]]] = []
        failures = {}
        for name, write in writes:
            try:
                running.append((name, self._workers.submit(write)))
            except RuntimeError as failure:
                # It can start no thread now; the queue is worked off by a later one.
                failures[name] = f"{name}: {failure}"
        for name, done in running:
            try:
                done.result()
            except (AgentError, OSError) as failure:
                failures[name] = f"{name}: {failure}"
        self._unwritten = self._announced(failures)

    @property
    def failures(self) -> Mapping[str, str]:
        """Return the reason by machine; empty if all rules are right."""
        return {**self._unrestored, **self._unwritten}

    def _announced(self, found: Mapping[str, str]) -> Mapping[str, str]:
        # A node that is being deleted is no failure.
        failures = {name: why for name, why in found.items() if name in self._nodes or name == GATEWAY}
        for name, why in failures.items():
            if why not in (self._unrestored.get(name), self._unwritten.get(name)):
                self._events.note("Warning", f"node/{name}", self._failed, why)
        return failures
