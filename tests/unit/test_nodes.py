"""The nodes of a lab while they come and go beside those who look at them."""

from types import SimpleNamespace
from typing import Any

from testbed.capture.headers import NO_OVERLAY
from testbed.capture.map import Map
from testbed.lab.nodes import Nodes
from testbed.trace.evidence import Evidence


def node(name: str) -> Any:  # noqa: ANN401 - as much of a LabNode as is looked at
    return SimpleNamespace(name=name, state=lambda: {"counters": {"drops": {"ttl": 0}}})


def test_a_node_that_is_deleted_stays_in_the_walk_that_has_begun() -> None:
    for walk in (Nodes.items, Nodes.values):
        nodes, leaving = Nodes(), node("node2")
        nodes.add([node("node1"), leaving])
        seen = 0
        for _ in walk(nodes):
            nodes.forget(leaving)
            seen += 1
        assert (seen, list(nodes)) == (2, ["node1"]), walk


def test_a_trace_counts_no_drops_of_a_node_that_is_deleted_meanwhile() -> None:
    nodes, leaving = Nodes(), node("node2")
    nodes.add([node("node1"), leaving])
    evidence = Evidence(nodes, Map((), {}, {}, {}, NO_OVERLAY, "", frozenset(), {}))
    evidence.before()
    nodes.forget(leaving)
    assert evidence.drops() == {}
