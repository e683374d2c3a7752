"""ReplicaSets and DaemonSets in a running lab: what makes pods, what follows nodes, and what owns what."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.deployment import REVISION
from testbed.control.client import ask, find_lab
from testbed.control.questions import NODE
from testbed.lab.clock import now
from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.e2e.steady_load import REQUESTS_PER_S, SteadyLoad
from tests.e2e.test_workloads import CLUSTER, NODES, apply, deployment, nodes_of, pods_of, reasons
from tests.waiting import constantly, wait_until

CLUSTER_IP, PORT = "10.96.0.77", 80
HOST_PORT = 8090


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab) -> Iterator[Lab]:
    with new_lab(CLUSTER) as handle:
        yield Lab(handle.name)


def service(name: str) -> dict[str, Any]:
    ports = [{"port": PORT, "targetPort": 8080}]
    spec = {"clusterIP": CLUSTER_IP, "selector": {"app": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def other(kind: str, name: str, **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a manifest
    """Return the same as the Deployment of this name, of another kind."""
    document = deployment(name, None)
    return {**document, "kind": kind, "spec": {**document["spec"], **spec}}


def daemon_set(name: str, *, host_network: bool, **container: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a manifest
    document = deployment(name, None, **container)
    document["spec"]["template"]["spec"]["hostNetwork"] = host_network
    return {**document, "kind": "DaemonSet"}


def sets_of(lab: Lab, name: str) -> dict[str, int]:
    """Return how many pods the ReplicaSet of each revision wants."""
    items = lab.json("get", "rs", "-l", f"app={name}")["items"]
    return {item["metadata"]["annotations"][REVISION]: item["spec"]["replicas"] for item in items}


def status_of(lab: Lab, kind: str, name: str) -> dict[str, Any]:
    return dict(lab.handle.get(kind, name)[0]["status"])


@contextmanager
def watched(lab: Lab, name: str) -> Iterator[list[tuple[int, int]]]:
    """Note again and again how many pods of a Deployment are available, and how many there are."""
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            status = status_of(lab, "deployments", name)
            seen.append((status["availableReplicas"], status["replicas"]))
            over.wait(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def test_a_rolling_update_stays_within_its_limits_and_loses_no_request(lab: Lab) -> None:
    probe = {"httpGet": {"path": "/hostname", "port": "http"}, "initialDelaySeconds": 1, "periodSeconds": 1}
    first = deployment("roll", 4, readinessProbe=probe)
    first["spec"]["strategy"] = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}
    assert apply(lab, first, service("roll")).code == 0
    assert sets_of(lab, "roll") == {"1": 4}
    second = json.loads(json.dumps(first))
    second["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "COLOUR", "value": "green"}]
    load = SteadyLoad(lab, "client", CLUSTER_IP, PORT)
    with watched(lab, "roll") as seen:
        wait_until(lambda: len(seen) > 2, timeout_s=10, what="the watch has begun")
        assert apply(lab, second).code == 0
        assert sets_of(lab, "roll") == {"1": 0, "2": 4}
    outcome = load.stop()
    assert outcome.rate > REQUESTS_PER_S / 10, f"too slow a stream shows nothing: {outcome.rate:.0f}/s"
    assert outcome.failed == ()
    assert min(available for available, _ in seen) >= 3
    assert max(there for _, there in seen) <= 5
    assert (4, 5) in seen or (3, 5) in seen, f"never seen in the middle of it: {seen}"
    shown = lab.must("get", "rs", "-l", "app=roll").splitlines()
    assert shown[0].split() == ["REPLICASET", "DESIRED", "CURRENT", "READY"]
    assert [line.split()[1:] for line in shown[1:]] == [["4", "4", "4"], ["0", "0", "0"]]
    assert apply(lab, first).code == 0
    assert sets_of(lab, "roll") == {"3": 4, "2": 0}, "a former template is its ReplicaSet's again"
    lab.must("delete", "deployment/roll", "service/roll")
    assert sets_of(lab, "roll") == {}


def test_every_pod_has_an_owner_up_to_its_deployment_and_goes_with_it(lab: Lab) -> None:
    apply(lab, deployment("owned", 2))
    whole = lab.json("get", "deployment", "owned")
    (kept,) = lab.json("get", "rs", "-l", "app=owned")["items"]
    for owner, of in ((whole, kept), *((kept, pod) for pod in pods_of(lab, "owned"))):
        (reference,) = of["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["uid"]) == (owner["kind"], owner["metadata"]["uid"])
    before = {pod["metadata"]["name"] for pod in pods_of(lab, "owned")}
    name = kept["metadata"]["name"]
    missing = lab.testbed("scale", "rs/owned-not", "--replicas", "1").err
    assert missing == f"error: no replicaset named owned-not (there are: {name})\n"
    lab.must("delete", "rs", name)
    # Until it is made again there is none of this name, which is a failure of `get`.
    lab.handle.wait_until(lambda: status_of(lab, "replicasets", name)["readyReplicas"] == 2, 30, "made again")
    (again,) = lab.json("get", "rs", "-l", "app=owned")["items"]
    assert again["metadata"]["name"] == name
    assert before.isdisjoint(pod["metadata"]["name"] for pod in pods_of(lab, "owned"))
    refused = apply(lab, {**other("ReplicaSet", "owned"), "metadata": {"name": name}})
    assert (refused.code, "belongs to a Deployment" in refused.err) == (2, True)
    lab.must("delete", "deployment", "owned")
    assert pods_of(lab, "owned") == []
    assert lab.json("get", "rs", "-l", "app=owned")["items"] == []


def test_what_get_prints_of_them_changes_nothing_when_it_is_applied(lab: Lab) -> None:
    apply(lab, deployment("same", 2), other("ReplicaSet", "same"), daemon_set("same", host_network=False))
    for name in ("deployment/same", "replicaset/same", "daemonset/same"):
        answer = lab.testbed("apply", "-f", "-", stdin=lab.must("get", name, "-o", "yaml"))
        assert (answer.code, answer.out.splitlines()[0]) == (0, f"{name} unchanged")
    lab.must("delete", "deploy/same", "rs/same", "ds/same")


@pytest.mark.usefixtures("_as_root")
def test_a_lab_is_up_when_all_of_them_are_ready_and_up_again_takes_them_away(new_lab: NewLab, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    objects = [daemon_set("each", host_network=False), other("ReplicaSet", "alone", replicas=2), deployment("web", 1)]
    file.write_text("\n---\n".join(["nodes: [node1, node2]", *map(json.dumps, objects)]))
    with new_lab(file) as handle:
        own = Lab(handle.name)
        ready = [[cell for cell in line.split()[1:4]] for line in own.must("get", "ds,rs").splitlines() if "/" in line]
        assert ready == [["2", "2", "2"], ["2", "2", "2"], ["1", "1", "1"]]
        file.write_text("\n---\n".join(["nodes: [node1, node2]", json.dumps(objects[1])]))
        assert own.up(str(file)).code == 0
        assert [item["kind"] for item in own.json("get", "ds,rs,deploy")["items"]] == ["ReplicaSet"]
        assert len(pods_of(own, "alone")) == 2
        assert pods_of(own, "each") == pods_of(own, "web") == []


def test_conditions_say_since_when_they_hold(lab: Lab) -> None:
    never = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    apply(lab, deployment("cond", 1, readinessProbe=never), wait=False)
    (pod,) = wait_until(lambda: pods_of(lab, "cond"), timeout_s=30, what="a pod")
    name = pod["metadata"]["name"]

    def condition(kind: str, of: str, which: str) -> dict[str, Any]:
        return next(one for one in status_of(lab, kind, of)["conditions"] if one["type"] == which)

    before = condition("deployments", "cond", "Available")
    assert (before["status"], before["reason"]) == ("False", "MinimumReplicasUnavailable")
    assert condition("deployments", "cond", "Progressing")["status"] == "True"
    unready = condition("pods", name, "Ready")
    assert (unready["status"], unready["lastTransitionTime"]) == ("False", pod["metadata"]["creationTimestamp"])
    wait_until(lambda: lab.pod(name)["state"] == "Running", timeout_s=30, what="it runs")
    wait_until(lambda: now() > before["lastTransitionTime"], timeout_s=5, what="another second")
    lab.run(name, "touch", "/tmp/ready")

    def is_ready_since() -> bool:
        one = condition("pods", name, "Ready")
        return bool(one["status"] == "True" and one["lastTransitionTime"] > unready["lastTransitionTime"])

    wait_until(is_ready_since, timeout_s=30, what="ready, since later than its creation")

    def is_available() -> bool:
        return bool(condition("deployments", "cond", "Available")["status"] == "True")

    wait_until(is_available, timeout_s=10, what="the Deployment is available")
    after = condition("deployments", "cond", "Available")
    assert (after["status"], after["lastTransitionTime"] > before["lastTransitionTime"]) == ("True", True)
    assert condition("deployments", "cond", "Progressing")["reason"] == "NewReplicaSetAvailable"
    lab.must("delete", "deployment", "cond")


def test_a_pod_counts_as_available_when_it_has_been_ready_for_its_minimum(lab: Lab) -> None:
    assert apply(lab, other("ReplicaSet", "slow", minReadySeconds=4), wait=False).code == 0
    wait_until(lambda: status_of(lab, "replicasets", "slow")["readyReplicas"] == 1, timeout_s=30, what="ready")
    assert status_of(lab, "replicasets", "slow")["availableReplicas"] == 0
    wait_until(lambda: status_of(lab, "replicasets", "slow")["availableReplicas"] == 1, timeout_s=30, what="available")
    lab.must("delete", "rs", "slow")


def test_a_replica_set_of_its_own_is_applied_scaled_and_deleted(lab: Lab) -> None:
    assert apply(lab, other("ReplicaSet", "alone", replicas=2)).out.startswith("replicaset/alone created\n")
    assert len(nodes_of(lab, "alone")) == 2
    assert lab.must("scale", "rs/alone", "--replicas", "3", "--wait") == "replicaset/alone scaled from 2 to 3\n"
    assert status_of(lab, "replicasets", "alone") | {"readyReplicas": 3} == status_of(lab, "replicasets", "alone")
    assert lab.run("rs/alone", "hostname").startswith("alone-")
    assert lab.must("delete", "rs", "alone") == "replicaset/alone deleted\n"
    assert pods_of(lab, "alone") == []


def test_a_daemon_set_follows_nodes_that_come_are_drained_and_go(lab: Lab) -> None:
    ports = [{"containerPort": 8080, "name": "http", "hostPort": HOST_PORT}]
    assert apply(lab, daemon_set("each", host_network=False, ports=ports)).code == 0
    assert nodes_of(lab, "each") == NODES
    assert lab.must("get", "ds").splitlines()[0].split()[:6] == [
        *("DAEMONSET", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE")
    ]
    lab.must("node", "add", "node4")
    wait_until(lambda: status_of(lab, "daemonsets", "each")["numberReady"] == 4, timeout_s=40, what="a pod on node4")
    assert nodes_of(lab, "each") == [*NODES, "node4"]
    (there,) = (pod for pod in pods_of(lab, "each") if pod["spec"]["nodeName"] == "node4")
    name = there["metadata"]["name"]
    assert "FailedCreate" not in reasons(lab, f"pod/{name}"), "no pod comes before its node is ready"
    address = lab.node("node4")["address"]
    assert lab.run("client", "curl", "-s", f"http://{address}:{HOST_PORT}/hostname") == f"{name}\n"
    drained = lab.testbed("node", "drain", "node4")
    assert (drained.code, name in drained.err) == (0, False)
    constantly(lambda: lab.pod(name)["ready"], for_s=2, what="a drained node keeps the DaemonSet's pod")
    lab.must("delete", "pod", name)
    wait_until(lambda: nodes_of(lab, "each") == [*NODES, "node4"], timeout_s=30, what="made again on a drained node")
    deleted = lab.testbed("node", "delete", "node4")
    assert (deleted.code, "were deleted with it" in deleted.err) == (0, False)
    constantly(lambda: nodes_of(lab, "each") == NODES, for_s=2, what="nothing is made for a node that is gone")
    status = status_of(lab, "daemonsets", "each")
    assert (status["desiredNumberScheduled"], status["numberReady"], status["numberMisscheduled"]) == (3, 3, 0)
    lab.must("delete", "ds", "each")
    assert pods_of(lab, "each") == []


def test_a_cordoned_node_keeps_its_pods_and_is_not_called_drained(lab: Lab) -> None:
    before = lab.pod("client")["node"]
    ask(find_lab(lab.name), NODE, action="cordon", name=before)
    try:
        assert "ready, cordoned" in lab.must("get", "nodes", before)
        assert "ready, cordoned" in lab.must("status")
        assert "Cordoned" in reasons(lab, f"node/{before}")
        assert apply(lab, deployment("elsewhere", 4)).code == 0
        assert before not in nodes_of(lab, "elsewhere")
        assert lab.pod("client")["ready"]
    finally:
        lab.must("node", "uncordon", before)
    assert lab.node(before)["drained"] is False
    lab.must("delete", "deployment", "elsewhere")


def test_a_daemon_sets_new_template_goes_from_node_to_node_or_waits_for_a_delete(lab: Lab) -> None:
    # On the node's own port: the old pod is gone before the new one comes.
    apply(lab, daemon_set("log", host_network=True))
    assert lab.run("client", "curl", "-s", f"http://{lab.node('node2')['address']}:8080/hostname") == "node2\n"
    before = {pod["metadata"]["name"] for pod in pods_of(lab, "log")}
    green = daemon_set("log", host_network=True, env=[{"name": "COLOUR", "value": "green"}])
    assert apply(lab, green).code == 0
    rolled = {pod["metadata"]["name"] for pod in pods_of(lab, "log")}
    assert (len(rolled), before & rolled) == (3, set())
    blue = daemon_set("log", host_network=True, env=[{"name": "COLOUR", "value": "blue"}])
    blue["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert apply(lab, blue).code == 0
    assert {pod["metadata"]["name"] for pod in pods_of(lab, "log")} == rolled
    assert status_of(lab, "daemonsets", "log")["updatedNumberScheduled"] == 0
    gone = min(rolled)
    lab.must("delete", "pod", gone)
    wait_until(lambda: status_of(lab, "daemonsets", "log")["numberReady"] == 3, timeout_s=30, what="replaced")
    (new,) = {pod["metadata"]["name"] for pod in pods_of(lab, "log")} - rolled
    assert lab.run(new, "sh", "-c", "echo $COLOUR") == "blue\n"
    lab.must("delete", "ds", "log")
