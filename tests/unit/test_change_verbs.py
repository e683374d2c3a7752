"""Requests to change objects, in front of controllers that only note what they are asked."""

import socket
import threading
from typing import Any, cast

import pytest

from testbed.cluster.object_key import ObjectKey
from testbed.cluster.pod_template import MAX_REPLICAS
from testbed.control.server import Request
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.changes import Changes
from testbed.workloads import change_verbs
from testbed.workloads.change_verbs import ChangeVerbs
from testbed.workloads.deployment_controller import DeploymentController


class _Deployments(DeploymentController):
    def __init__(self) -> None:
        self.asked = list[int]()
        self.looks = 0

    def scale(self, key: ObjectKey, replicas: int) -> int:
        self.asked.append(replicas)
        return 1

    def why_not_ready(self, key: ObjectKey) -> str:
        self.looks += 1
        return "" if self.looks > 2 else "1 of 2 ready"


def _scale(replicas: int, controller: _Deployments) -> None:
    nothing = cast("Any", None)
    verbs = ChangeVerbs({"Deployment": controller}, nothing, nothing, nothing, (), nothing)
    with socket.socket() as connection:
        verbs.scale(Request(connection, {"name": "web", "replicas": replicas}, ()))


@pytest.mark.parametrize("replicas", [-1, MAX_REPLICAS + 1, 10**6, 10**300])
def test_a_number_of_pods_that_no_manifest_may_have_is_refused_before_any_is_made(replicas: int) -> None:
    controller = _Deployments()
    with pytest.raises(InvalidInput, match=rf"^scale: replicas: out of range \(got .*; want 0 to {MAX_REPLICAS}\)$"):
        _scale(replicas, controller)
    assert controller.asked == []


@pytest.mark.parametrize("replicas", [0, MAX_REPLICAS])
def test_the_fewest_and_the_most_pods_that_a_manifest_may_have_are_taken(replicas: int) -> None:
    controller = _Deployments()
    _scale(replicas, controller)
    assert controller.asked == [replicas]


def _scale_and_wait(controller: _Deployments, changes: Changes, limit_s: float) -> None:
    nothing = cast("Any", None)
    verbs = ChangeVerbs({"Deployment": controller}, nothing, nothing, changes, (), nothing)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        verbs.scale(Request(ours, {"name": "web", "replicas": 2, "wait_s": limit_s}, ()))


def test_a_wait_ends_when_services_have_acted_on_the_pods_that_became_ready() -> None:
    controller, changes = _Deployments(), Changes()
    acted = list[int]()
    changes.subscribe("services", lambda: acted.append(controller.looks))
    _scale_and_wait(controller, changes, 20.0)
    assert acted[-1] == controller.looks == 3


def test_a_wait_names_those_that_have_not_acted_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_verbs, "LEAST_TO_ACT_S", 0.01)
    controller, changes, end = _Deployments(), Changes(), threading.Event()
    # Ready at the first look.
    controller.looks = 2

    def act() -> None:
        end.wait()

    changes.subscribe("services", act)
    try:
        with pytest.raises(TestbedError, match=r"^ready, but after 0\.5 s not acted on by: services$"):
            _scale_and_wait(controller, changes, 0.5)
    finally:
        end.set()
