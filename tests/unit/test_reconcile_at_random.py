"""Whatever happens to a Deployment or DaemonSet, no decision breaks its limits, and it ends as it is wanted."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.workloads.reconcile import ControllerDecision
from testbed.workloads.seen import CreatePod, DeletePod, SeenPod
from tests.unit.controllers import Cluster, daemon_set, deployment

IMAGES = ("echo", "nginx", "httpd")
STEPS = 40
SHARES = (0, 1, 2, "25%", "50%", "100%")


def strategy(dice: random.Random) -> dict[str, Any]:
    surge, unavailable = dice.choice(SHARES), dice.choice(SHARES)
    if surge == unavailable == 0:
        surge = 1
    return {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}


def disturb(cluster: Cluster, dice: random.Random) -> None:
    """Let a pod fail or vanish, or drain or open a node."""
    what = dice.randrange(4)
    if what == 0 and cluster.pods:
        number = dice.randrange(len(cluster.pods))
        cluster.pods[number] = replace(cluster.pods[number], ready=False, available=False)
    elif what == 1 and cluster.pods:
        del cluster.pods[dice.randrange(len(cluster.pods))]
    else:
        cluster.change_node(dice.choice(cluster.nodes).name, leaving=what == 2)


def counted(decision: ControllerDecision, before: Sequence[SeenPod]) -> tuple[int, int, int, int]:
    """Return the running and available pods before, and how many are created and how many available ones are ended."""
    living = [pod for pod in before if not pod.terminating]
    ended = {action.pod for action in decision.actions if isinstance(action, DeletePod)}
    created = sum(isinstance(action, CreatePod) for action in decision.actions)
    available = [pod for pod in living if pod.available]
    return len(living), len(available), created, sum(pod.key in ended for pod in available)


@pytest.mark.parametrize("seed", range(60))
def test_a_deployment(seed: int) -> None:
    dice = random.Random(seed)
    fixed = strategy(dice)
    wanted: Deployment = deployment(dice.randrange(1, 9), **fixed)
    cluster = Cluster(wanted)
    for _ in range(STEPS):
        if dice.random() < 0.3:
            replicas = dice.randrange(9) if dice.random() < 0.5 else wanted.spec.replicas
            paused = dice.random() < 0.1
            wanted = deployment(replicas, dice.choice(IMAGES), paused=paused, **fixed)
            cluster.want(wanted)
        elif dice.random() < 0.4:
            disturb(cluster, dice)
        before, sizes = list(cluster.pods), sum(cluster.replicas().values())
        decision = cluster.round()
        living, available, created, ended = counted(decision, before)
        all_ended = sum(isinstance(action, DeletePod) for action in decision.actions)
        fewest = wanted.spec.replicas - wanted.max_unavailable
        total = sum(one.replicas for one in decision.sets.values())
        limit = wanted.spec.replicas + wanted.max_surge
        most = max(limit, total)
        assert min(sizes, fewest) <= total <= max(sizes, limit)
        assert not ended or available - ended >= fewest
        assert not created or living + created - all_ended <= most
        assert sum(one.deployment is not None for one in decision.sets.values()) <= len(IMAGES)
    cluster.nodes = [replace(node, leaving=False) for node in cluster.nodes]
    wanted = deployment(wanted.spec.replicas, IMAGES[0], **fixed)
    cluster.want(wanted).settle()
    assert {pod.template_hash for pod in cluster.pods} <= {wanted.spec.template.hash}
    assert len(cluster.pods) == wanted.spec.replicas


@pytest.mark.parametrize("seed", range(40))
def test_a_daemon_set(seed: int) -> None:
    dice = random.Random(seed)
    surge = dice.choice((0, 1, "50%"))
    update = {"maxSurge": surge, "maxUnavailable": 0 if surge else dice.choice((1, 2, "50%"))}
    fixed: dict[str, Any] = {"updateStrategy": {"rollingUpdate": update}}
    wanted: DaemonSet = daemon_set(**fixed)
    cluster = Cluster(wanted)
    for _ in range(STEPS):
        if dice.random() < 0.2:
            wanted = daemon_set(dice.choice(IMAGES), **fixed)
            cluster.want(wanted)
        elif dice.random() < 0.4:
            disturb(cluster, dice)
        before = list(cluster.pods)
        decision = cluster.round()
        ended = {action.pod for action in decision.actions if isinstance(action, DeletePod)}
        made = [action.node for action in decision.actions if isinstance(action, CreatePod)]
        assert len(made) == len(set(made))
        kept = {pod.node for pod in before if pod.available and pod.key not in ended}
        covered = {pod.node for pod in before if pod.available}
        assert covered == kept or len(kept) >= len(cluster.nodes) - wanted.max_unavailable(len(cluster.nodes))
        alive = Counter(pod.node for pod in cluster.pods if not pod.terminating)
        assert max(alive.values(), default=0) <= (2 if surge else 1)
    cluster.settle()
    assert {pod.template_hash for pod in cluster.pods} == {wanted.spec.template.hash}
    assert cluster.spread() == {"node1": 1, "node2": 1, "node3": 1}
