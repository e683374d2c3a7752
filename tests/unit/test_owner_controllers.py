"""The controllers of kinds that make pods from a template, while their objects come and go."""

from typing import Any, cast

from testbed.cluster.object_key import key_of
from testbed.lab.nodes import Nodes
from testbed.workloads.daemon_set_controller import DaemonSetController
from testbed.workloads.deployment_controller import DeploymentController, ReplicaSetController
from testbed.workloads.workloads import Workloads


def test_an_object_that_is_deleted_while_apply_waits_for_it_is_reported_as_that() -> None:
    nothing = cast("Any", None)
    nodes = Nodes()
    workloads = Workloads(nodes, nothing, nothing)
    controllers: list[Any] = [
        DeploymentController(workloads, nodes, nothing),
        ReplicaSetController(workloads, nodes, nothing),
        DaemonSetController(workloads, nodes),
    ]
    assert {one.why_not_ready(key_of("web")) for one in controllers} == {"deleted in the meantime"}
