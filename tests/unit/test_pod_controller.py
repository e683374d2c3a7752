"""Pods without an owner while their nodes come and go."""

import threading
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import key_of
from testbed.lab.changes import Changes
from testbed.lab.nodes import Nodes
from testbed.workloads.pod_controller import PodController
from testbed.workloads.workloads import Workloads
from tests.waiting import wait_until

SHELL = PodManifest.model_validate(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "shell"},
        "spec": {"nodeName": "node2", "containers": [{"name": "c", "image": "echo"}]},
    }
)


class Lab:
    """Two nodes and a controller of pods, which are only noted."""

    def __init__(self) -> None:
        self.nodes = Nodes()
        nodes: list[Any] = [
            SimpleNamespace(name=name, expected=True, labels={}, cni=None) for name in ("node1", "node2")
        ]
        self.nodes.add(nodes)
        self.told: list[tuple[str, str]] = []
        self.made: list[str] = []
        events: Any = SimpleNamespace(note=lambda kind, subject, reason, message: self.told.append((subject, reason)))
        pods: Any = _Pods(self.made)
        self.pods = pods
        underlay: Any = SimpleNamespace(machines={})
        self.workloads = Workloads(self.nodes, pods, events)
        self.controller = PodController(self.workloads, self.nodes, pods, underlay)

    def check(self) -> list[Any]:
        source: Any = None  # asked only where there is a problem
        return list(self.controller.check([(source, SHELL)]))


class _Pods(dict[Any, Any]):
    """Notes which pods are made, and starts none."""

    def __init__(self, made: list[str]) -> None:
        super().__init__()
        self.made = made
        self.changed = Changes()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def make(self, manifest: PodManifest) -> Any:  # noqa: ANN401 - a pod that nothing is asked of
        self.made.append(manifest.name)
        return SimpleNamespace(key=manifest.key, name=manifest.name, start=lambda: None)

    def add(self, pod: Any) -> None:  # noqa: ANN401 - the same
        self[pod.key] = pod

    def forget(self, pod: Any) -> None:  # noqa: ANN401 - the same
        del self[pod.key]


def test_a_pod_is_made_on_the_node_that_it_names() -> None:
    lab = Lab()
    assert (lab.check(), lab.controller.put(SHELL)) == ([], "created")
    wait_until(lambda: lab.made == ["shell"], timeout_s=5, what="the pod is made")


def test_a_pod_whose_node_is_deleted_between_check_and_put_is_deleted_with_it() -> None:
    for gone in (False, True):
        lab = Lab()
        assert lab.check() == []
        lab.workloads.close("node2")
        if gone:
            lab.nodes.forget(lab.nodes["node2"])
            lab.workloads.closed.discard("node2")
        lab.controller.put(SHELL)
        assert lab.told == [("pod/shell", "NodeDeleted")]
        assert (dict(lab.controller.wanted()), lab.made) == ({}, [])
        assert "its node" in lab.controller.why_not_ready(key_of("shell"))


class _Ending:
    """A pod that an `apply` is replacing."""

    leaves = True

    def __init__(self) -> None:
        self.graces: list[float] = []

    def shorten_grace(self, grace_s: float) -> None:
        self.graces.append(grace_s)


def test_a_delete_shortens_the_grace_period_of_a_pod_that_is_being_replaced() -> None:
    lab, pod = Lab(), _Ending()
    lab.pods[SHELL.key] = pod
    lab.workloads.bare[SHELL.key] = SHELL
    deleting = threading.Thread(target=lab.controller.remove, args=(SHELL.key, 1.0))
    # The turn of the `apply`.
    with lab.controller._turn(SHELL.key):
        deleting.start()
        wait_until(lambda: pod.graces == [1.0], timeout_s=5, what="the grace period is shortened")
        del lab.pods[SHELL.key]
    deleting.join(5)
    assert not deleting.is_alive()


def test_a_pod_that_no_thread_updates_has_no_turn() -> None:
    lab = Lab()
    lab.check()
    lab.controller.put(SHELL)
    wait_until(lambda: lab.made == ["shell"], timeout_s=5, what="the pod is made")
    wait_until(lambda: not len(lab.controller._turns), timeout_s=5, what="its turn is forgotten")


def with_a_host_port(name: str, policy: str) -> PodManifest:
    """Return a pod on node2 with its host port 8080."""
    containers = [{"name": "c", "image": "echo", "ports": [{"containerPort": 80, "hostPort": 8080}]}]
    spec = {"nodeName": "node2", "restartPolicy": policy, "containers": containers}
    return PodManifest.model_validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@pytest.mark.parametrize(
    ("policy", "now", "holds_it"),
    [
        ("Never", {"phase": "Running"}, True),
        ("Never", {"phase": "Succeeded"}, False),
        ("OnFailure", {"phase": "Failed"}, False),
        # It runs again.
        ("Always", {"phase": "Failed"}, True),
        ("Never", {"phase": "Failed", "pause_pid": None}, True),
        ("Never", {"phase": "Failed", "terminating": True}, True),
    ],
)
def test_a_completed_pod_holds_no_host_port(policy: str, now: Mapping[str, Any], *, holds_it: bool) -> None:
    lab, job = Lab(), with_a_host_port("job", policy)
    status = SimpleNamespace(**{"node": "node2", "ready": False, "terminating": False, "pause_pid": 7, **now})
    lab.pods[job.key] = SimpleNamespace(key=job.key, manifest=job, status=lambda: status)
    (seen,) = lab.workloads.seen_pods()
    assert bool(seen.host_ports) == holds_it


def test_cni_plugins_keep_the_host_ports_of_a_completed_pod() -> None:
    lab, job = Lab(), with_a_host_port("job", "Never")
    node: Any = lab.nodes["node2"]
    node.cni = "its plugins"
    status = SimpleNamespace(node="node2", ready=False, terminating=False, pause_pid=7, phase="Succeeded")
    lab.pods[job.key] = SimpleNamespace(key=job.key, manifest=job, status=lambda: status)
    (seen,) = lab.workloads.seen_pods()
    assert seen.host_ports


class _Leaving:
    """A pod that ends at once."""

    key, name, leaves = SHELL.key, "shell", False

    def mark_terminating(self) -> None:
        pass

    def delete(self, grace_s: float | None) -> None:
        pass


def test_a_pod_that_ends_while_a_node_cannot_forget_it_names_that_node() -> None:
    lab, pod = Lab(), _Leaving()
    told: list[tuple[str, str, str]] = []
    events: Any = SimpleNamespace(note=lambda kind, subject, reason, message: told.append((subject, reason, message)))
    workloads = Workloads(lab.nodes, lab.pods, events, lambda: ["node1: nft: Too many open files"])
    ending: Any = pod
    lab.pods[pod.key] = pod
    workloads.end(ending, 0.0)
    why = "a node may still send to the pod (node1: nft: Too many open files); it is terminated anyway"
    assert told == [("pod/shell", "StillUsed", why)]
    assert not lab.pods
