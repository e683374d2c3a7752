"""Requests to change objects, in front of controllers that only note what they are asked."""

import socket
from typing import Any, cast

import pytest

from testbed.cluster.object_key import ObjectKey
from testbed.cluster.pod_template import MAX_REPLICAS
from testbed.control.server import Request
from testbed.errors import InvalidInput
from testbed.workloads.change_verbs import ChangeVerbs
from testbed.workloads.deployment_controller import DeploymentController


class _Deployments(DeploymentController):
    def __init__(self) -> None:
        self.asked = list[int]()

    def scale(self, key: ObjectKey, replicas: int) -> int:
        self.asked.append(replicas)
        return 1


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
