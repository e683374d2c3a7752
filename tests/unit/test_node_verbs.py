"""Changes of nodes come one at a time, and each looks at the nodes that the one before has left."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.control.server import Request
from testbed.errors import TestbedError
from testbed.lab.nodes import Nodes
from testbed.workloads.node_verbs import NodeVerbs


class Changes:
    """Deletes nodes, as slowly as a test wants."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.asked: list[str] = []

    def delete(self, name: str, _limit_s: float) -> list[str]:
        self.asked.append(f"delete {name}")
        self.begun.set()
        assert self.may_end.wait(5)
        self.nodes.forget(self.nodes[name])
        return []

    def drain(self, name: str, _limit_s: float) -> list[str]:
        self.asked.append(f"drain {name}")
        return []


class Asked:
    """A request, which notes that the last of its arguments was read."""

    def __init__(self, action: str, name: str) -> None:
        self._words = {"action": action, "name": name}
        self.is_read = threading.Event()

    def argument(self, key: str, _kind: type, default: object = None) -> Any:  # noqa: ANN401 - as of a Request
        if key == "limit_s":
            self.is_read.set()
        return self._words.get(key, default)


def ask(clients: ThreadPoolExecutor, verbs: NodeVerbs, asked: Asked) -> "Future[Any]":
    return clients.submit(verbs.node, cast(Request, asked))


@pytest.mark.parametrize("action", ["delete", "drain"])
def test_a_change_that_waited_for_the_deletion_of_its_node_is_refused(action: str) -> None:
    nodes, node = Nodes(), SimpleNamespace(name="node2")
    nodes.add([node])  # type: ignore[list-item]  # only its name matters
    changes = Changes(nodes)
    verbs = NodeVerbs(changes, nodes, lambda: True)  # type: ignore[arg-type]  # as much of NodeChanges as is used
    with ThreadPoolExecutor(2) as clients:
        first = ask(clients, verbs, Asked("delete", "node2"))
        assert changes.begun.wait(5)
        waiting = Asked(action, "node2")
        second = ask(clients, verbs, waiting)
        assert waiting.is_read.wait(5)
        changes.may_end.set()
        assert first.result(5) == {"name": "node2", "lost": []}
        with pytest.raises(TestbedError, match="no node named node2"):
            second.result(5)
    assert changes.asked == ["delete node2"]
