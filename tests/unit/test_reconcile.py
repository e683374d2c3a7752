"""Deployments get the pods that they want, one decision at a time, and never fewer ready ones than they allow."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import key_of
from testbed.cluster.placement import SeenNode
from testbed.workloads.reconcile import Action, CannotPlace, CreatePod, DeletePod, SeenPod, reconcile

THREE = (SeenNode("node1"), SeenNode("node2"), SeenNode("node3"))


def deployment(replicas: int = 6, image: str = "echo", **more: Any) -> Deployment:  # noqa: ANN401 - fields of a spec
    port = more.pop("host_port", None)
    container = {
        "name": "c",
        "image": image,
        "ports": [{"containerPort": 8080, **({"hostPort": port} if port else {})}],
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        **more,
    }
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    return Deployment.model_validate(document)


class Cluster:
    """Does what `reconcile` says, one round at a time, and notes how few ready and how many pods there ever were."""

    def __init__(self, *deployments: Deployment, nodes: Sequence[SeenNode] = THREE) -> None:
        self.deployments = list(deployments)
        self.nodes = list(nodes)
        self.pods: list[SeenPod] = []
        self.fewest_ready = 10**6
        self.most = 0
        self._numbers = count(1)

    def round(self) -> list[Action]:
        """One decision, carried out; what was created before becomes ready, what was ending is gone."""
        actions = reconcile(self.deployments, self.pods, self.nodes)
        self.pods = [replace(pod, ready=True) for pod in self.pods if not pod.terminating]
        for action in actions:
            if isinstance(action, CreatePod):
                wanted = next(one for one in self.deployments if one.key == action.deployment)
                number = next(self._numbers)
                pod = SeenPod(
                    key_of(f"web-{number}"), wanted.key, wanted.template_hash, action.node, False, False, number
                )
                self.pods.append(pod)
            elif isinstance(action, DeletePod):
                self.pods = [
                    replace(pod, terminating=True, ready=False) if pod.key == action.pod else pod for pod in self.pods
                ]
        living = [pod for pod in self.pods if not pod.terminating]
        self.fewest_ready = min(self.fewest_ready, sum(pod.ready for pod in living))
        self.most = max(self.most, len(living))
        return actions

    def settle(self) -> "Cluster":
        """Rounds until nothing is left to be done."""
        self.fewest_ready, self.most = 10**6, 0
        for _ in range(50):
            before = self.pods
            if not self.round() and self.pods == before:
                return self
        raise AssertionError(f"never settles: {self.pods}")

    def spread(self) -> dict[str, int]:
        """How many pods each node has."""
        return {node.name: sum(pod.node == node.name for pod in self.pods) for node in self.nodes}


def test_replicas_are_spread_over_the_nodes() -> None:
    assert Cluster(deployment(6)).settle().spread() == {"node1": 2, "node2": 2, "node3": 2}
    assert Cluster(deployment(4)).settle().spread() == {"node1": 2, "node2": 1, "node3": 1}


def test_what_is_as_wanted_needs_nothing() -> None:
    cluster = Cluster(deployment(6)).settle()
    assert reconcile(cluster.deployments, cluster.pods, cluster.nodes) == []


def test_scaling_down_and_up_stays_spread_and_touches_no_more_than_it_must() -> None:
    cluster = Cluster(deployment(6)).settle()
    before = {pod.key for pod in cluster.pods}
    cluster.deployments = [deployment(3)]
    cluster.settle()
    assert cluster.spread() == {"node1": 1, "node2": 1, "node3": 1}
    assert {pod.key for pod in cluster.pods} < before
    assert cluster.fewest_ready == 3
    cluster.deployments = [deployment(6)]
    assert cluster.settle().spread() == {"node1": 2, "node2": 2, "node3": 2}


def test_pods_that_are_not_ready_are_spared_first() -> None:
    cluster = Cluster(deployment(3)).settle()
    cluster.pods[0] = replace(cluster.pods[0], ready=False)
    assert reconcile([deployment(2)], cluster.pods, THREE) == [DeletePod(cluster.pods[0].key, "2 of web are wanted")]


def test_a_pod_that_ends_is_replaced_at_once() -> None:
    cluster = Cluster(deployment(6)).settle()
    cluster.pods[1] = replace(cluster.pods[1], terminating=True, ready=False)
    (action,) = reconcile(cluster.deployments, cluster.pods, THREE)
    assert isinstance(action, CreatePod)


def test_pods_of_a_deployment_that_is_gone_are_ended_once() -> None:
    cluster = Cluster(deployment(2)).settle()
    cluster.deployments = []
    assert [type(action) for action in cluster.round()] == [DeletePod, DeletePod]
    assert reconcile([], cluster.pods, THREE) == []


@pytest.mark.parametrize(
    ("replicas", "strategy", "fewest_ready", "most"),
    [
        (6, {}, 5, 8),  # 25 % up, 25 % down: 2 more, 1 fewer
        (1, {}, 1, 2),
        (4, {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, 3, 4),
        (4, {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, 4, 5),
        (4, {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}}, 4, 8),
        (3, {"type": "Recreate"}, 0, 3),
    ],
)
def test_a_new_template_rolls_within_its_limits(
    replicas: int, strategy: dict[str, object], fewest_ready: int, most: int
) -> None:
    cluster = Cluster(deployment(replicas, strategy=strategy)).settle()
    new = deployment(replicas, image="nginx", strategy=strategy)
    cluster.deployments = [new]
    cluster.settle()
    assert {pod.template_hash for pod in cluster.pods} == {new.template_hash}
    assert len(cluster.pods) == replicas
    assert (cluster.fewest_ready, cluster.most) == (fewest_ready, most)


def test_recreate_waits_until_the_old_ones_are_gone() -> None:
    cluster = Cluster(deployment(2, strategy={"type": "Recreate"})).settle()
    cluster.deployments = [deployment(2, image="nginx", strategy={"type": "Recreate"})]
    assert [type(action) for action in cluster.round()] == [DeletePod, DeletePod]
    assert reconcile(cluster.deployments, cluster.pods, THREE) == []


def test_a_template_that_never_becomes_ready_costs_no_more_than_the_limit() -> None:
    cluster = Cluster(deployment(6)).settle()
    cluster.deployments = [deployment(6, image="nginx")]
    for _ in range(5):
        cluster.round()
        new = cluster.deployments[0].template_hash
        cluster.pods = [replace(pod, ready=False) if pod.template_hash == new else pod for pod in cluster.pods]
    assert sum(pod.ready for pod in cluster.pods) == 5


def test_a_drained_node_is_left_new_before_old() -> None:
    cluster = Cluster(deployment(6)).settle()
    cluster.nodes[2] = replace(cluster.nodes[2], leaving=True)
    cluster.settle()
    assert cluster.spread() == {"node1": 3, "node2": 3, "node3": 0}
    assert cluster.fewest_ready >= 5


def test_the_only_pod_moves_from_a_drained_node_without_a_gap() -> None:
    cluster = Cluster(deployment(1)).settle()
    cluster.nodes[0] = replace(cluster.nodes[0], leaving=True)
    assert cluster.settle().spread() == {"node1": 0, "node2": 1, "node3": 0}
    assert cluster.fewest_ready == 1


def test_pods_stay_on_a_drained_node_when_no_other_takes_them() -> None:
    cluster = Cluster(deployment(1), nodes=[SeenNode("node1")]).settle()
    cluster.nodes = [SeenNode("node1", leaving=True)]
    assert reconcile(cluster.deployments, cluster.pods, cluster.nodes) == [
        CannotPlace(key_of("web"), "node1 is drained")
    ]


def test_a_host_port_is_taken_once_a_node() -> None:
    wanted = deployment(4, host_port=80)
    actions = reconcile([wanted], [], THREE)
    assert [action.node for action in actions if isinstance(action, CreatePod)] == ["node1", "node2", "node3"]
    assert isinstance(actions[-1], CannotPlace)
    assert "node1 has host port 80/TCP taken" in actions[-1].why


def test_bare_pods_count_where_deployments_pods_are_as_many() -> None:
    bare = SeenPod(key_of("bare"), None, "", "node1", True, False, 0)
    (action,) = reconcile([deployment(1)], [bare], THREE)
    assert action == CreatePod(key_of("web"), "node2")


def test_nodes_whose_agent_is_run_by_hand_get_no_pods() -> None:
    nodes = [SeenNode("node1", open=False), SeenNode("node2")]
    assert reconcile([deployment(1)], [], nodes) == [CreatePod(key_of("web"), "node2")]
