"""Changes of nodes come one at a time, and each looks at the nodes that the one before has left."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

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


def request(action: str, name: str) -> Any:  # noqa: ANN401 - as much of a Request as is used
    return SimpleNamespace(argument=lambda key, _kind, default=None: {"action": action, "name": name}.get(key, default))


@pytest.mark.parametrize("action", ["delete", "drain"])
def test_a_change_that_waited_for_the_deletion_of_its_node_is_refused(action: str) -> None:
    nodes, node = Nodes(), SimpleNamespace(name="node2")
    nodes.add([node])  # type: ignore[list-item]  # only its name matters
    changes = Changes(nodes)
    verbs = NodeVerbs(changes, nodes, lambda: True)  # type: ignore[arg-type]  # as much of NodeChanges as is used
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(verbs.node, request("delete", "node2"))
        assert changes.begun.wait(5)
        second = clients.submit(verbs.node, request(action, "node2"))
        changes.may_end.set()
        assert first.result(5) == {"name": "node2", "lost": []}
        with pytest.raises(TestbedError, match="no node named node2"):
            second.result(5)
    assert changes.asked == ["delete node2"]
