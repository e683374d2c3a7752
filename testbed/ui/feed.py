"""Polls the lab while a browser is connected, and sends the results to all of them."""

import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial

from testbed.cluster.kinds import LEASE, POD, SERVICE
from testbed.cluster.object_key import key_of_object
from testbed.control.answers.graph import GraphAnswer
from testbed.control.client import LabRecord, ask, find_lab
from testbed.control.questions import EVENTS, GET, AnswerT, Question
from testbed.errors import TestbedError
from testbed.faults.explain import sentence
from testbed.graph.facts import facts_of_lab
from testbed.graph.layout import lay_out
from testbed.graph.model import graph_of
from testbed.graph.svg import document
from testbed.ui import tables
from testbed.ui.traffic import rates

PERIOD_S = 0.4
"""Interval between polls of a small lab: the end of an agent and its return a second later should both be visible."""
COST_FACTOR = 2
"""A slow poll is followed by a pause of this many times its duration."""
SLOW_PERIOD_S = 2.0
"""Interval between polls of etcd."""
KEEP_ALIVE_S = 15.0
ANSWER_LIMIT_S = 30.0

Message = Mapping[str, object]
"""Messages for the page, by kind: tables, the picture, rates."""


class Feed:
    """The page's current content, updated by its own thread."""

    def __init__(self, record: LabRecord) -> None:
        self._name = record.name
        self._record = record
        self._changed = threading.Condition()
        self._messages: dict[str, tuple[int, Message]] = {}
        """The newest message of each kind, with the number of its change."""
        self._number = 0
        self._watchers = 0
        self._before: tuple[float, GraphAnswer] | None = None
        self._slow_at = 0.0
        self._hurry = threading.Event()

    @property
    def record(self) -> LabRecord:
        """Return the lab's record, also after it was taken down and brought up again."""
        return self._record

    def start(self) -> None:
        """Start; nothing is polled until a browser connects."""
        threading.Thread(target=self._run, name="feed", daemon=True).start()

    def hurry(self) -> None:
        """Poll at once: an action has effects that will soon be gone."""
        self._hurry.set()

    def messages(self) -> Iterator[tuple[str, Message] | None]:
        """Yield the current messages and then each change, endlessly; None from time to time, to detect closed
        connections.
        """
        seen = 0
        with self._changed:
            self._watchers += 1
            self._changed.notify_all()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(partial(self._newer_than, seen), KEEP_ALIVE_S)
                    fresh = [(kind, text) for kind, (number, text) in self._messages.items() if number > seen]
                    seen = self._number
                yield from fresh
                if not fresh:
                    yield None
        finally:
            with self._changed:
                self._watchers -= 1

    def _newer_than(self, number: int) -> bool:
        return self._number > number

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._watchers > 0)
            began = time.monotonic()
            try:
                self._look()
                self._publish("problem", {"text": ""})
            except TestbedError as failure:
                self._publish("problem", {"text": str(failure)})
                self._find_again()
            except Exception as failure:
                # Browsers would wait for ever.
                self._publish("problem", {"text": f"internal error: {failure!r}"})
            self._hurry.wait(max(PERIOD_S, COST_FACTOR * (time.monotonic() - began)))
            self._hurry.clear()

    def _find_again(self) -> None:
        """Find the lab again: it may have been taken down and brought up again."""
        self._before = None
        try:
            self._record = find_lab(self._name)
        except TestbedError:
            return

    def _look(self) -> None:
        facts = facts_of_lab(self._record, ANSWER_LIMIT_S)
        at = time.monotonic()
        layout = lay_out(graph_of(facts))
        self._publish("picture", {"svg": document(layout, styled=False), "nodes": [n["name"] for n in facts["nodes"]]})
        self._publish("state", {"lab": facts["lab"], "state": facts["state"]})
        for name, make in (("nodes", tables.nodes), ("pods", tables.pods), ("forwarding", tables.forwarding)):
            self._publish(name, {"table": make(facts)})
        if self._before is not None:
            self._publish("traffic", {"rates": rates(self._before[1], facts, at - self._before[0])})
        self._before = (at, facts)
        self._publish("events", {"table": tables.events(self._ask(EVENTS))})
        said = [sentence(fault) for fault in facts["faults"]]
        self._publish("faults", {"table": tables.faults(facts["faults"]), "said": said})
        if at - self._slow_at >= SLOW_PERIOD_S:
            self._slow_at = at
            self._look_at_etcd(facts)

    def _look_at_etcd(self, facts: GraphAnswer) -> None:
        services = self._ask(GET, kind=SERVICE.plural)
        names = [str(key_of_object(one)) for one in services]
        self._publish("services", {"table": tables.objects(SERVICE, services), "names": names})
        self._publish("ports", {"ports": tables.ports(self._ask(GET, kind=POD.plural), facts["services"])})
        try:
            self._publish("leases", {"table": tables.objects(LEASE, self._ask(GET, kind=LEASE.plural))})
        except TestbedError as failure:
            self._publish("leases", {"table": tables.table(("etcd does not answer",), [(str(failure),)])})

    def _ask(self, question: Question[AnswerT], **arguments: object) -> AnswerT:
        return ask(self._record, question, (), ANSWER_LIMIT_S, **arguments)

    def _publish(self, kind: str, message: Message) -> None:
        with self._changed:
            known = self._messages.get(kind)
            if known is None or known[1] != message:
                self._number += 1
                self._messages[kind] = (self._number, message)
                self._changed.notify_all()
