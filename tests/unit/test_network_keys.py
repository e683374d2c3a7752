"""A running lab whose network config has keys in flannel's other spellings: case does not matter."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.cluster.overlay import overlay_of
from testbed.cluster.spec import read_cluster
from testbed.exercises.breakage import Broken
from testbed.exercises.look import look
from testbed.supervisor import graph_facts as graph
from testbed.supervisor import status

CONFIGS = [
    ("{Network: 10.5.0.0/16}", "10.5.0.0/16", 8285),
    ("{network: 10.5.0.0/16}", "10.5.0.0/16", 8285),
    ("{network: 10.5.0.0/16, backend: {type: udp, port: 9000}}", "10.5.0.0/16", 9000),
    ("{network: 10.5.0.0/16, backend: {Type: vxlan, PORT: 9001}}", "10.5.0.0/16", 9001),
    ("{network: 10.5.0.0/16, backend: {Type: host-gw}}", "10.5.0.0/16", 8285),
]


def _state(config: str) -> Any:  # noqa: ANN401 - what is asked of a LabState
    text = f"apiVersion: testbed/v1\nkind: Cluster\nmetadata: {{name: x}}\nnetwork: {config}\nnodes: {{node1: {{}}}}\n"
    cluster = read_cluster(text.encode(), "cluster.yaml")
    underlay = SimpleNamespace(
        kernel=SimpleNamespace(links=list, addresses=list),
        machines={},
        plan=SimpleNamespace(machines={}, cables=()),
        net=SimpleNamespace(switches=[], links=[]),
    )
    registry = SimpleNamespace(leases=list, etcd=SimpleNamespace(members=[]), shares_network=False)
    return SimpleNamespace(
        name="x",
        cluster=cluster,
        network=cluster.config,
        overlay=overlay_of(cluster.config),
        nodes={},
        pods=[],
        underlay=underlay,
        registry=registry,
    )


@pytest.mark.parametrize(("config", "network", "port"), CONFIGS)
def test_a_picture_shows_the_network_and_its_port(
    config: str, network: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"state": "ready", "etcd": [], "nodes": [], "pods": [], "services": []}
    monkeypatch.setattr(status, "lab_status", lambda *_: whole)
    found = graph.graph_facts(cast("Any", SimpleNamespace(state=_state(config))))
    assert (found["network"], found["port"]) == (network, port)


@pytest.mark.parametrize(("config", "network", "port"), CONFIGS)
def test_the_judge_and_the_faults_of_exercises_know_both(config: str, network: str, port: int) -> None:
    state, nothing = _state(config), cast("Any", SimpleNamespace(numbered={}, server=None))
    assert look(state, nothing, nothing).network == network
    assert Broken(state, nothing, nothing, nothing).port == port
