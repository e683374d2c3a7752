"""Topologies are plain Mininet Topo classes: `mn --custom FILE --topo NAME` finds them."""

import runpy
from pathlib import Path

import pytest

from testbed.cluster_checks import TOPOLOGIES, known_topologies


def run_as_mn_does(name: str) -> dict[str, object]:
    """Mininet executes a custom file and takes its `topos`."""
    topos: dict[str, object] = runpy.run_path(str(TOPOLOGIES / f"{name}.py"))["topos"]
    return topos


@pytest.mark.parametrize("name", known_topologies())
def test_a_topology_is_in_topos_under_its_file_s_name(name: str) -> None:
    assert name in run_as_mn_does(name)


def test_single_puts_every_node_on_one_switch() -> None:
    topology = run_as_mn_does("single")["single"](3)  # type: ignore[operator]  # a class of Mininet, which has no types
    assert topology.hosts() == ["node1", "node2", "node3"]
    assert topology.switches() == ["s1"]
    assert sorted(topology.links()) == [("node1", "s1"), ("node2", "s1"), ("node3", "s1")]


def test_every_host_s_first_port_is_its_own_link() -> None:
    """So that the interface is called NAME-eth0."""
    topology = run_as_mn_does("single")["single"](nodes=2)  # type: ignore[operator]  # as above
    assert topology.port("node1", "s1")[0] == 0


def test_hosts_keep_their_order_beyond_nine() -> None:
    topology = run_as_mn_does("single")["single"](12)  # type: ignore[operator]  # as above
    assert topology.hosts() == [f"node{number + 1}" for number in range(12)]


def test_clusters_and_topologies_are_shipped_side_by_side() -> None:
    assert {path.stem for path in Path(TOPOLOGIES).glob("*.yaml")} >= {"nginx_tomcat", "two_nodes"}
