"""A DaemonSet has one pod on each node that takes it, and follows nodes and templates as Kubernetes does."""

from dataclasses import replace

import pytest

from testbed.cluster.object_key import key_of
from testbed.cluster.placement import SeenNode, host_ports
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster
from testbed.workloads.progress import DaemonNumbers, daemon_numbers
from testbed.workloads.seen import CannotPlace, CreatePod, DeletePod, SeenPod
from tests.unit.controllers import THREE, Cluster, daemon_set

ROLLING = {"type": "RollingUpdate"}


def test_every_node_has_one_pod_and_that_is_enough() -> None:
    cluster = Cluster(daemon_set())
    assert cluster.spread() == {"node1": 1, "node2": 1, "node3": 1}
    assert cluster.decide().actions == ()


def test_a_node_that_comes_gets_one_and_one_that_goes_takes_it_along() -> None:
    cluster = Cluster(daemon_set())
    cluster.nodes.append(SeenNode("node4"))
    assert cluster.settle().spread() == {"node1": 1, "node2": 1, "node3": 1, "node4": 1}
    cluster.nodes = cluster.nodes[:1]
    assert cluster.settle().spread() == {"node1": 1}
    assert len(cluster.pods) == 1


@pytest.mark.parametrize("closed", ["leaving", "cordoned"])
def test_a_drained_or_cordoned_node_keeps_its_pod_and_gets_another_when_that_is_deleted(closed: str) -> None:
    cluster = Cluster(daemon_set()).change_node("node2", **{closed: True})
    assert cluster.decide().actions == ()
    cluster.pods = [pod for pod in cluster.pods if pod.node != "node2"]
    assert cluster.decide().actions == (CreatePod(daemon_set().owner, "node2"),)


def test_a_new_pod_comes_when_the_old_one_is_gone() -> None:
    cluster = Cluster(daemon_set())
    cluster.pods[0] = replace(cluster.pods[0], terminating=True, ready=False, available=False)
    assert cluster.decide().actions == ()
    cluster.pods = cluster.pods[1:]
    assert cluster.decide().actions == (CreatePod(daemon_set().owner, "node1"),)


def test_nodes_are_chosen_by_their_labels_and_left_when_they_lose_them() -> None:
    wanted = daemon_set(pod={"nodeSelector": {"disk": "ssd"}})
    cluster = Cluster(wanted, nodes=[SeenNode("node1"), SeenNode("node2", labels={"disk": "ssd"})])
    assert cluster.spread() == {"node1": 0, "node2": 1}
    assert cluster.change_node("node2", labels={}).settle().pods == []


def test_nodes_whose_agent_is_run_by_hand_get_none() -> None:
    cluster = Cluster(daemon_set(), nodes=[SeenNode("node1", open=False), SeenNode("node2")])
    assert cluster.spread() == {"node1": 0, "node2": 1}


@pytest.mark.parametrize(
    ("update", "fewest", "most"),
    [
        ({}, 2, 3),
        ({"maxUnavailable": 2}, 1, 3),
        ({"maxUnavailable": "50%"}, 1, 3),  # 1.5 of 3, rounded up
        ({"maxSurge": 1, "maxUnavailable": 0}, 3, 4),
        ({"maxSurge": "100%", "maxUnavailable": 0}, 3, 6),
    ],
)
def test_a_new_template_rolls_from_node_to_node_within_its_limits(
    update: dict[str, object], fewest: int, most: int
) -> None:
    strategy = {**ROLLING, **({"rollingUpdate": update} if update else {})}
    cluster = Cluster(daemon_set(updateStrategy=strategy))
    new = daemon_set(image="nginx", updateStrategy=strategy)
    cluster.want(new).settle()
    assert {pod.template_hash for pod in cluster.pods} == {new.spec.template.hash}
    assert cluster.spread() == {"node1": 1, "node2": 1, "node3": 1}
    assert (cluster.fewest, cluster.most) == (fewest, most)


def test_a_template_that_never_becomes_ready_stops_at_the_limit() -> None:
    new = daemon_set(image="nginx")
    cluster = Cluster(daemon_set()).want(new)
    cluster.broken = new.spec.template.hash
    for _ in range(8):
        cluster.round()
    assert sum(pod.available for pod in cluster.pods) == 2
    assert len(cluster.pods) == 3


def test_with_on_delete_a_pod_is_replaced_when_it_is_deleted() -> None:
    new = daemon_set(image="nginx", updateStrategy={"type": "OnDelete"})
    cluster = Cluster(daemon_set()).want(new)
    assert cluster.decide().actions == ()
    cluster.pods = cluster.pods[1:]
    cluster.settle()
    assert sorted(pod.template_hash == new.spec.template.hash for pod in cluster.pods) == [False, False, True]


def test_a_host_port_that_another_pod_has_is_reported_and_the_other_nodes_get_theirs() -> None:
    cluster = Cluster(daemon_set(host_port=80), settled=False)
    ports = host_ports(daemon_set(host_port=80).spec.template.spec)
    cluster.pods = [SeenPod(key_of("taken"), None, "", "node2", True, False, 0, ports)]
    assert cluster.decide().actions == (
        CreatePod(daemon_set().owner, "node1"),
        CannotPlace(daemon_set().owner, "node2 has host port 80/TCP taken"),
        CreatePod(daemon_set().owner, "node3"),
    )


def test_pods_of_a_daemon_set_that_is_gone_end() -> None:
    cluster = Cluster(daemon_set())
    cluster.daemon_sets = {}
    assert [type(action) for action in cluster.decide().actions] == [DeletePod] * 3


def test_its_numbers_are_those_of_kubernetes() -> None:
    wanted = daemon_set()
    cluster = Cluster(wanted)
    cluster.pods[0] = replace(cluster.pods[0], ready=False, available=False)
    cluster.pods[1] = replace(cluster.pods[1], template_hash="old")
    assert daemon_numbers(wanted, cluster.pods, THREE) == DaemonNumbers(3, 3, 2, 2, 2, 0)
    assert daemon_numbers(wanted, cluster.pods, THREE[:1]) == DaemonNumbers(1, 1, 1, 0, 0, 2)


FILE = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  updateStrategy: STRATEGY
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: c, image: echo, ports: [{containerPort: 80, hostPort: 80}]}]}
"""


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        ("{type: Never}", "spec.updateStrategy.type: not one of the known values (got Never"),
        ("{type: OnDelete, rollingUpdate: {maxUnavailable: 2}}", "rollingUpdate belongs to type RollingUpdate"),
        ("{rollingUpdate: {maxUnavailable: 0}}", "nothing could ever change"),
        ("{rollingUpdate: {maxSurge: 1}}", "one of both is 0 (got maxSurge 1 and maxUnavailable 1"),
        ("{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", "two pods on one node cannot share a host port"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(strategy: str, problem: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_cluster(FILE.replace("STRATEGY", strategy).encode(), "c.yaml")
    assert problem in str(refused.value)


def test_its_pods_count_among_those_of_the_file() -> None:
    cluster = read_cluster(FILE.replace("STRATEGY", "{type: OnDelete}").encode(), "c.yaml")
    assert (cluster.pod_count, [one.name for one in cluster.daemon_sets]) == (2, ["log"])
