"""Deployments get the pods that they want by ReplicaSets, and never fewer available ones than they allow."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import key_of
from testbed.cluster.placement import SeenNode
from testbed.cluster.pod_template import generated_name
from testbed.cluster.replica_set import ReplicaSet
from testbed.workloads.seen import CannotPlace, CreatePod, DeletePod, SeenPod
from tests.unit.controllers import WEB, Cluster, deployment, replica_set


def test_replicas_are_spread_over_the_nodes() -> None:
    assert Cluster(deployment(6)).spread() == {"node1": 2, "node2": 2, "node3": 2}
    assert Cluster(deployment(4)).spread() == {"node1": 2, "node2": 1, "node3": 1}
    assert Cluster(replica_set(4)).spread() == {"node1": 2, "node2": 1, "node3": 1}


def test_a_correct_state_needs_no_change() -> None:
    cluster = Cluster(deployment(6))
    decision = cluster.decide()
    assert (decision.actions, decision.scaled, decision.sets) == ((), (), cluster.sets)


def test_a_deployment_has_one_replica_set_for_each_template_named_after_it() -> None:
    wanted = deployment(2)
    (one,) = Cluster(wanted).sets.values()
    assert one.key.name == f"web-{wanted.spec.template.hash}"
    assert (one.deployment, one.revision, one.replicas) == (wanted.key, 1, 2)
    labels = {"app": "web", "pod-template-hash": wanted.spec.template.hash}
    assert one.wanted.spec.selector.match_labels == labels == dict(one.wanted.spec.template.metadata.labels)


def test_a_name_that_another_replica_set_has_is_left_to_it() -> None:
    taken = replica_set(1, name=f"web-{deployment().spec.template.hash}")
    cluster = Cluster(taken, deployment(2))
    own = [one for one in cluster.sets.values() if one.deployment is not None]
    assert [one.key.name for one in own] == [f"{taken.name}2"]
    assert len(cluster.pods) == 3


def test_scaling_down_and_up_stays_spread_and_touches_no_more_than_it_must() -> None:
    cluster = Cluster(deployment(6))
    before = {pod.key for pod in cluster.pods}
    cluster.want(deployment(3)).settle()
    assert cluster.spread() == {"node1": 1, "node2": 1, "node3": 1}
    assert {pod.key for pod in cluster.pods} < before
    assert cluster.fewest == 3
    assert cluster.want(deployment(6)).settle().spread() == {"node1": 2, "node2": 2, "node3": 2}
    assert cluster.replicas() == {1: 6}


def test_pods_that_are_not_available_are_spared_first() -> None:
    cluster = Cluster(deployment(3))
    cluster.pods[0] = replace(cluster.pods[0], available=False)
    (action,) = cluster.want(deployment(2)).decide().actions
    assert isinstance(action, DeletePod)
    assert action.pod == cluster.pods[0].key


def test_a_pod_that_ends_is_replaced_at_once() -> None:
    cluster = Cluster(deployment(6))
    cluster.pods[1] = replace(cluster.pods[1], terminating=True, ready=False, available=False)
    (action,) = cluster.decide().actions
    assert isinstance(action, CreatePod)


def test_pods_and_replica_sets_of_a_deployment_that_is_gone_end_once() -> None:
    cluster = Cluster(deployment(2))
    cluster.deployments = {}
    assert [type(action) for action in cluster.round().actions] == [DeletePod, DeletePod]
    assert cluster.sets == {}
    assert cluster.decide().actions == ()


@pytest.mark.parametrize(
    ("replicas", "strategy", "fewest", "most"),
    [
        (6, {}, 5, 8),  # 25 % up, 25 % down: 2 more, 1 fewer
        (1, {}, 1, 2),
        (4, {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, 3, 4),
        (4, {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, 4, 5),
        (4, {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}}, 4, 8),
        (10, {"rollingUpdate": {"maxSurge": "15%", "maxUnavailable": "15%"}}, 9, 12),  # rounded up, and down
        (3, {"type": "Recreate"}, 0, 3),
    ],
)
def test_a_new_template_rolls_within_its_limits(
    replicas: int, strategy: dict[str, object], fewest: int, most: int
) -> None:
    cluster = Cluster(deployment(replicas, strategy=strategy))
    new = deployment(replicas, image="nginx", strategy=strategy)
    cluster.want(new).settle()
    assert {pod.template_hash for pod in cluster.pods} == {new.spec.template.hash}
    assert len(cluster.pods) == replicas
    assert (cluster.fewest, cluster.most) == (fewest, most)
    assert cluster.replicas() == {1: 0, 2: replicas}


def test_recreate_waits_until_the_old_ones_are_gone() -> None:
    recreate = {"type": "Recreate"}
    cluster = Cluster(deployment(2, strategy=recreate)).want(deployment(2, image="nginx", strategy=recreate))
    assert [type(action) for action in cluster.round().actions] == [DeletePod, DeletePod]
    assert cluster.decide().actions == ()
    assert [type(action) for action in cluster.settle().decide().actions] == []
    assert cluster.replicas() == {1: 0, 2: 2}


def test_a_template_that_never_becomes_ready_costs_no_more_than_the_limit_and_can_be_taken_back() -> None:
    old, new = deployment(6), deployment(6, image="nginx")
    cluster = Cluster(old).want(new)
    cluster.broken = new.spec.template.hash
    for _ in range(8):
        cluster.round()
    assert sum(pod.available for pod in cluster.pods) == 5
    assert len(cluster.pods) == 8
    cluster.want(old).settle()
    assert cluster.fewest >= 5
    assert cluster.replicas() == {2: 0, 3: 6}, "the old ReplicaSet is the newest revision"


def test_a_third_template_in_the_middle_of_a_rollout_keeps_the_limits() -> None:
    cluster = Cluster(deployment(6)).want(deployment(6, image="nginx"))
    cluster.round()
    cluster.want(deployment(6, image="httpd")).settle()
    assert (cluster.fewest, cluster.most) == (5, 8)
    assert cluster.replicas() == {1: 0, 2: 0, 3: 6}


def test_scaling_in_the_middle_of_a_rollout_keeps_the_limits_of_the_new_number() -> None:
    cluster = Cluster(deployment(8)).want(deployment(8, image="nginx"))
    cluster.round()
    cluster.want(deployment(4, image="nginx")).settle()
    assert cluster.fewest >= 3
    assert cluster.replicas() == {1: 0, 2: 4}


def test_no_more_former_replica_sets_are_kept_than_the_limit() -> None:
    cluster = Cluster(deployment(2, revisionHistoryLimit=2))
    for number in range(5):
        cluster.want(deployment(2, revisionHistoryLimit=2, pod={"hostname": f"h{number}"})).settle()
    assert cluster.replicas() == {4: 0, 5: 0, 6: 2}
    assert Cluster(deployment(1, revisionHistoryLimit=0)).want(
        deployment(1, image="nginx", revisionHistoryLimit=0)
    ).settle().replicas() == {2: 1}


def test_former_replica_sets_are_removed_only_after_the_rollout() -> None:
    cluster = Cluster(deployment(2, revisionHistoryLimit=0))
    second, third = (deployment(2, image=image, revisionHistoryLimit=0) for image in ("nginx", "httpd"))
    cluster.broken = second.spec.template.hash
    cluster.want(second).settle()
    cluster.broken = third.spec.template.hash
    assert set(cluster.want(third).settle().replicas()) == {1, 2, 3}
    cluster.broken = "none"
    assert cluster.settle().replicas() == {3: 2}


def test_a_paused_deployment_scales_and_rolls_when_it_goes_on() -> None:
    cluster = Cluster(deployment(2))
    first = {pod.template_hash for pod in cluster.pods}
    cluster.want(deployment(4, image="nginx", paused=True)).settle()
    assert ({pod.template_hash for pod in cluster.pods}, len(cluster.pods)) == (first, 4)
    cluster.want(deployment(1, image="nginx", paused=True)).settle()
    assert (cluster.replicas(), len(cluster.pods)) == ({1: 1}, 1)
    assert cluster.want(deployment(1, image="nginx")).settle().replicas() == {1: 0, 2: 1}
    assert Cluster(deployment(2, paused=True)).sets == {}


def test_a_paused_rollout_stays_where_it_is() -> None:
    cluster = Cluster(deployment(6)).want(deployment(6, image="nginx"))
    cluster.round()
    before = cluster.replicas()
    assert cluster.want(deployment(6, image="nginx", paused=True)).settle().replicas() == before
    assert len(cluster.pods) == sum(before.values())


def test_a_replica_set_changed_by_hand_gets_its_number_back() -> None:
    cluster = Cluster(deployment(3))
    (one,) = cluster.sets.values()
    cluster.sets[one.key] = replace(one, wanted=one.wanted.scaled(5))
    assert [str(one) for one in cluster.decide().scaled] == [f"Scaled down replica set {one.key.name} from 5 to 3"]
    cluster.sets = {}
    cluster.settle()
    assert len(cluster.pods) == 3


def test_a_replica_sets_new_template_is_for_new_pods_only() -> None:
    cluster = Cluster(replica_set(2))
    before = cluster.pods
    assert cluster.want(replica_set(2, image="nginx")).settle().pods == before
    assert len(cluster.want(replica_set(3, image="nginx")).settle().pods) == 3


def test_minimum_ready_seconds_follow_the_deployment() -> None:
    cluster = Cluster(deployment(1)).want(deployment(1, minReadySeconds=7)).settle()
    (one,) = cluster.sets.values()
    assert one.wanted.spec.min_ready_seconds == 7


def test_pods_that_are_ready_and_not_yet_available_hold_a_rollout_back() -> None:
    cluster = Cluster(deployment(4)).want(deployment(4, image="nginx"))
    for _ in range(6):
        cluster.round()
        new = cluster.deployments[key_of("web")].spec.template.hash
        cluster.pods = [replace(pod, available=pod.template_hash != new) for pod in cluster.pods]
    assert sum(pod.available for pod in cluster.pods) == 3


@pytest.mark.parametrize("kind", [deployment, replica_set])
def test_a_drained_node_is_left_new_before_old(kind: Callable[[int], Deployment | ReplicaSet]) -> None:
    cluster = Cluster(kind(6)).change_node("node3", leaving=True).settle()
    assert cluster.spread() == {"node1": 3, "node2": 3, "node3": 0}
    assert cluster.fewest >= 5
    assert cluster.most <= 8


def test_a_rollout_beside_a_drain_keeps_the_limits() -> None:
    cluster = Cluster(deployment(6)).want(deployment(6, image="nginx"))
    cluster.round()
    cluster.change_node("node3", leaving=True).settle()
    assert cluster.spread() == {"node1": 3, "node2": 3, "node3": 0}
    assert cluster.fewest >= 5
    assert cluster.replicas() == {1: 0, 2: 6}


@pytest.mark.parametrize("kind", [deployment, replica_set])
def test_the_only_pod_moves_from_a_drained_node_without_a_gap(kind: Callable[[int], Deployment | ReplicaSet]) -> None:
    cluster = Cluster(kind(1)).change_node("node1", leaving=True)
    assert cluster.settle().spread() == {"node1": 0, "node2": 1, "node3": 0}
    assert cluster.fewest == 1


def test_pods_stay_on_a_drained_node_when_no_other_takes_them() -> None:
    cluster = Cluster(deployment(1), nodes=[SeenNode("node1")]).change_node("node1", leaving=True)
    (one,) = cluster.sets.values()
    assert cluster.decide().actions == (CannotPlace(one.wanted.owner, "node1 is drained"),)


def test_a_cordoned_node_keeps_its_pods_and_gets_no_new_ones() -> None:
    cluster = Cluster(deployment(3)).change_node("node2", cordoned=True)
    assert cluster.decide().actions == ()
    assert cluster.want(deployment(5)).settle().spread() == {"node1": 2, "node2": 1, "node3": 2}
    cluster.pods = [pod for pod in cluster.pods if pod.node != "node2"]
    assert cluster.settle().spread() == {"node1": 3, "node2": 0, "node3": 2}
    for name in ("node1", "node3"):
        cluster.change_node(name, cordoned=True)
    (refused,) = cluster.want(deployment(6)).decide().actions
    assert isinstance(refused, CannotPlace)
    assert refused.why == "node1 is cordoned; node2 is cordoned; node3 is cordoned"
    cluster.change_node("node2", cordoned=False)
    assert cluster.settle().spread() == {"node1": 3, "node2": 1, "node3": 2}


def test_pods_whose_template_names_a_drained_node_are_kept() -> None:
    cluster = Cluster(deployment(2, pod={"nodeName": "node2"})).change_node("node2", leaving=True)
    assert cluster.decide().actions == ()


def test_a_host_port_is_taken_once_a_node() -> None:
    actions = Cluster(replica_set(4, host_port=80), settled=False).decide().actions
    assert [action.node for action in actions if isinstance(action, CreatePod)] == ["node1", "node2", "node3"]
    assert isinstance(actions[-1], CannotPlace)
    assert "node1 has host port 80/TCP taken" in actions[-1].why


def test_bare_pods_count_where_pods_of_the_set_are_as_many() -> None:
    cluster = Cluster(replica_set(1), settled=False)
    cluster.pods = [SeenPod(key_of("bare"), None, "", "node1", True, False, 0)]
    assert cluster.decide().actions == (CreatePod(WEB, "node2"),)


def test_nodes_whose_agent_is_run_by_hand_get_no_pods() -> None:
    nodes = [SeenNode("node1", open=False), SeenNode("node2")]
    assert Cluster(replica_set(1), nodes=nodes, settled=False).decide().actions == (CreatePod(WEB, "node2"),)


def test_a_template_keeps_its_hash_through_scaling_and_gets_another_with_each_change() -> None:
    wanted = deployment(2)
    before = wanted.spec.template.hash
    assert wanted == deployment(2), "a hash that was asked for is no difference"
    assert wanted.scaled(5).spec.template.hash == before
    assert wanted.spec.template.with_labels({"tier": "front"}).hash != before
    assert deployment(2, image="nginx").spec.template.hash != before


def test_long_names_are_cut_for_what_they_make_and_stay_apart() -> None:
    name = "x" * 63
    cluster = Cluster(deployment(1, name=name), deployment(1, name=f"{name[:-1]}y"))
    assert len({one.key for one in cluster.sets.values()}) == 2
    assert all(one.key.name.startswith(name[:54]) and len(one.key.name) in (63, 64) for one in cluster.sets.values())
    assert generated_name("web-1234abcd", "x7d2k") == "web-1234abcd-x7d2k"
    assert generated_name(name, "x7d2k") == f"{name[:58]}x7d2k"
