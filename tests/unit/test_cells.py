"""Lines below a table."""

from typing import cast

from testbed.cluster.columns import agent_state
from testbed.control.answers.lab import NodeStatus
from testbed.output.cells import warning_lines


def test_a_warning_of_several_nodes_is_one_line_with_their_names() -> None:
    nodes: list[dict[str, object]] = [
        {"name": "node1", "warnings": ["the config changed", "a certificate expires"]},
        {"name": "node2", "warnings": []},
        {"name": "node3", "warnings": ["the config changed"]},
    ]
    assert warning_lines(cast("list[NodeStatus]", nodes)) == [
        "node1, node3: the config changed",
        "node1: a certificate expires",
    ]
    assert warning_lines([]) == []


def test_a_drained_node_says_so_beside_its_agents_state() -> None:
    assert agent_state("ready", drained=False) == "ready"
    assert agent_state("ready", drained=True) == "ready, drained"


def test_a_cordoned_node_is_not_called_drained() -> None:
    assert agent_state("ready", drained=True, cordoned=True) == "ready, cordoned"
