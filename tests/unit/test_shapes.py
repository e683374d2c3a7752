"""Golden objects in Kubernetes' shapes, read by the models of its official Python client."""

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from testbed.cluster.columns import NODE_COLUMNS
from testbed.cluster.config_objects import ConfigMap, Secret
from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.kinds import CONFIG_MAP, KINDS, REPLICA_SET, SECRET
from testbed.cluster.kinds import DEPLOYMENT as DEPLOYMENT_KIND
from testbed.cluster.manifest import PodManifest
from testbed.cluster.namespace import built_in
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import key_of
from testbed.cluster.placement import node_labels
from testbed.cluster.replica_set import replica_set_of
from testbed.cluster.service import Service
from testbed.control.answers.lab import NodeStatus
from testbed.control.answers.objects import DeploymentFacts, NodeOwnFacts, PodOwnFacts, ServiceOwnFacts
from testbed.pods.pod import Pod
from testbed.pods.pod_state import ContainerStatus, PodStatus
from testbed.services.endpoints import Endpoint
from testbed.supervisor.kept_shapes import KeptShapes
from testbed.supervisor.owner_shapes import daemon_set_shape, deployment_shape, replica_set_shape
from testbed.supervisor.shapes import (
    HostFacts,
    LabIdentity,
    OwnerReference,
    PodSurroundings,
    Shape,
    config_shape,
    endpoints_shape,
    event_shapes,
    namespace_shape,
    network_policy_shape,
    node_shape,
    pod_shape,
    service_shape,
)
from testbed.workloads.progress import (
    DaemonNumbers,
    DeploymentNumbers,
    PodNumbers,
    Unplaced,
    progress_of,
    replica_failure,
)
from testbed.workloads.seen import KeptSet
from tests.answer_types import mismatches
from tests.kubernetes_models import MODELS, deserialized, strangers

LAB = LabIdentity("two-nodes", "2026-01-01T00:00:00Z")
AT = "2026-01-01T00:00:05Z"
LATER = "2026-01-01T00:00:09Z"
TIME = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
HOST = HostFacts("6.18.0", "Debian GNU/Linux 12 (bookworm)", "4d1f", "0.2.0")
POD = PodManifest.model_validate(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {"note": "x"}},
        "spec": {
            "containers": [
                {
                    "name": "nginx",
                    "image": "nginx",
                    "ports": [{"containerPort": 80, "name": "http"}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 2},
                    "volumeMounts": [{"name": "html", "mountPath": "/usr/share/nginx/html"}],
                    "env": [{"name": "A", "value": "b"}],
                    "securityContext": {"runAsUser": 0},
                },
                {"name": "job", "image": "shell", "command": ["true"]},
            ],
            "volumes": [{"name": "html", "emptyDir": {"sizeLimit": "1Mi"}}],
            "shareProcessNamespace": True,
        },
    }
)
DEPLOYMENT = Deployment.model_validate(
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": "50%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "echo"}]},
            },
        },
    }
)
TEMPLATE_HASH = DEPLOYMENT.spec.template.hash
SET = KeptSet(
    replica_set_of(DEPLOYMENT, key_of(f"web-{TEMPLATE_HASH}"), TEMPLATE_HASH, 3), AT, DEPLOYMENT.key, revision=2
)
SET_SHAPE = replica_set_shape(LAB, SET, PodNumbers(3, 2, 1), OwnerReference(DEPLOYMENT_KIND, DEPLOYMENT.key, AT), [])
NUMBERS = DeploymentNumbers(replicas=3, updated=3, ready=2, available=2)
PROGRESS = progress_of(DEPLOYMENT, [SET], NUMBERS, {}, None, TIME.timestamp())
WAITING = progress_of(DEPLOYMENT.model_copy(), [], DeploymentNumbers(), {}, None, TIME.timestamp())
FAILURE = replica_failure(Unplaced("node1 is drained", TIME.timestamp()))
DAEMONS = DaemonSet.model_validate(
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "log"},
        "spec": {
            "selector": {"matchLabels": {"app": "log"}},
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}},
            "template": {
                "metadata": {"labels": {"app": "log"}},
                "spec": {"containers": [{"name": "a", "image": "echo"}]},
            },
        },
    }
)
SERVICE = Service.model_validate(
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http", "name": "http"}]},
    }
)
HEADLESS = SERVICE.model_copy(update={"spec": SERVICE.spec.model_copy(update={"cluster_ip": "None"})})
NUMBERED = SERVICE.resolved([IPv4Address("10.96.0.80")], (30080,))
NODE: NodeStatus = {
    "name": "node1",
    "address": "192.168.8.227",
    "subnet": "10.0.46.0/24",
    "drained": False,
    "backend": "udp",
    "device": "flannel0",
    "datapath": "native",
    "agent": {"state": "ready", "pid": 57, "restarts": 0},
    "peers": {"known": 1, "expected": 1},
    "warnings": [],
}
POLICY = NetworkPolicy.model_validate(
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [
                {"from": [{"podSelector": {}, "namespaceSelector": {}}], "ports": [{"port": 80, "endPort": 90}]},
                {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
            ],
            "egress": [{"to": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}],
        },
    }
)


def container(**changed: Any) -> ContainerStatus:  # noqa: ANN401 - fields of a ContainerStatus
    usual: dict[str, Any] = {
        "name": "nginx",
        "image": "nginx",
        "state": "running",
        "reason": "",
        "message": "",
        "ready": True,
        "restarts": 0,
        "exit_code": None,
        "ended": "Error" if changed.get("exit_code") else "Completed",
        "started_at": AT,
        "pid": 99,
    }
    return ContainerStatus(**{**usual, **changed})


def status(*containers: ContainerStatus, **changed: Any) -> PodStatus:  # noqa: ANN401 - fields of a PodStatus
    usual: dict[str, Any] = {
        "name": "web",
        "node": "node1",
        "address": "10.0.46.2",
        "phase": "Running",
        "state": "Running",
        "ready": True,
        "restarts": 0,
        "started_at": AT,
        "why_not_ready": "",
        "pause_pid": 90,
    }
    return PodStatus(containers=containers or (container(),), **{**usual, **changed})


def pod(of: PodStatus, **changed: Any) -> Shape:  # noqa: ANN401 - fields of the surroundings
    usual: dict[str, Any] = {"created_at": AT, "deleted_at": None, "host_address": "192.168.8.227", "link": "vethweb"}
    return pod_shape(LAB, POD, of, PodSurroundings(**{**usual, **changed}))


CRASHED = container(
    state="waiting", reason="CrashLoopBackOff", message="exit code 1", ready=False, exit_code=1, pid=None
)
DONE = container(name="job", state="terminated", reason="Completed", ready=False, exit_code=0, pid=None)
NEW = container(state="waiting", reason="ContainerCreating", ready=False, started_at=None, pid=None)
BOTH = Endpoint(IPv4Address("10.0.46.2"), 8080, key_of("web"), "node1")
PODS = {
    "running": pod(status(container(restarts=2, exit_code=137))),
    "out of memory": pod(status(container(restarts=1, exit_code=137, ended="OOMKilled"))),
    "with two": pod(status(container(), DONE), owner=OwnerReference(REPLICA_SET, SET.key, AT), ready_at=LATER),
    "crashing": pod(status(CRASHED, ready=False, state="CrashLoopBackOff", why_not_ready="nginx: exit code 1")),
    "new": pod(status(NEW, ready=False, phase="Pending", address=None, started_at=None, pause_pid=None), link=None),
    "ending": pod(status(ready=False, terminating=True, state="Terminating"), deleted_at=AT),
    "dual stack": pod(status(ipv6_address="fd00::2")),
}
NODES = {
    "ready": node_shape(LAB, NODE, AT, {"disk": "ssd"}, HOST),
    "drained, without a subnet": node_shape(
        LAB,
        {**NODE, "drained": True, "subnet": None, "agent": {"state": "fenced", "pid": None, "restarts": 3}},
        AT,
        {},
        HOST,
    ),
    "cordoned": node_shape(LAB, {**NODE, "drained": True, "cordoned": True}, AT, {}, HOST),
    "dual stack": node_shape(LAB, {**NODE, "ipv6_address": "fd00:8::1", "ipv6_subnet": "fd00:a::/64"}, AT, {}, HOST),
}
SETTINGS = ConfigMap.model_validate(
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"a": "b"},
        "binaryData": {"c": "AA=="},
    }
)
KEYS = Secret.model_validate(
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}, "immutable": True}
)
OBJECTS: list[tuple[str, Shape]] = [
    *(("Pod", shape) for shape in PODS.values()),
    *(("Node", shape) for shape in NODES.values()),
    ("Deployment", deployment_shape(LAB, DEPLOYMENT, AT, PROGRESS, [SET])),
    ("Deployment", deployment_shape(LAB, DEPLOYMENT, AT, WAITING, [])),
    ("ReplicaSet", SET_SHAPE),
    ("ReplicaSet", replica_set_shape(LAB, replace(SET, deployment=None), PodNumbers(), None, [FAILURE])),
    ("DaemonSet", daemon_set_shape(LAB, DAEMONS, AT, DaemonNumbers(3, 3, 2, 2, 1, 0))),
    ("Service", service_shape(LAB, NUMBERED, AT, 2)),
    ("Service", service_shape(LAB, HEADLESS, AT, 0)),
    ("ConfigMap", config_shape(LAB, CONFIG_MAP, SETTINGS, AT)),
    ("Secret", config_shape(LAB, SECRET, KEYS, AT)),
    ("Namespace", namespace_shape(LAB, built_in("default"), AT, ends=False)),
    ("NetworkPolicy", network_policy_shape(LAB, POLICY, AT)),
    ("Endpoints", endpoints_shape(LAB, NUMBERED, AT, [[BOTH]], [[]])),
    ("Endpoints", endpoints_shape(LAB, NUMBERED, AT, [[]], [[BOTH]])),
    ("Endpoints", endpoints_shape(LAB, NUMBERED, AT, [[]], [[]])),
    *(
        ("Event", shape)
        for shape in event_shapes(
            LAB,
            [
                {"at": AT, "type": "Normal", "object": thing, "reason": "Started", "message": f"{thing} started"}
                for thing in ("pod/web", "node/node1", "deployment/web", "fault/3", "dns", "machine/gw", "pod/shop/web")
            ],
        )
    ),
]


@pytest.mark.parametrize(("kind", "shape"), OBJECTS)
def test_the_official_client_reads_every_object_and_knows_all_of_its_fields(kind: str, shape: Shape) -> None:
    read = deserialized(shape, kind)
    assert (read.kind, read.metadata.creation_timestamp) == (kind, TIME)
    assert list(strangers(shape, MODELS[kind])) == []
    listed = deserialized({"apiVersion": "v1", "kind": "List", "items": [shape, shape]}, kind, is_list=True)
    assert [one.metadata.uid for one in listed.items] == [shape["metadata"]["uid"]] * 2


def test_every_kind_of_kubernetes_is_read() -> None:
    assert (
        {kind for kind, _ in OBJECTS} == set(MODELS) == {one.name for one in KINDS if one.api_version != "testbed/v1"}
    )


def test_states_of_containers_are_objects() -> None:
    def states(which: str) -> list[tuple[Shape, Shape]]:
        return [(one["state"], one["lastState"]) for one in PODS[which]["status"]["containerStatuses"]]

    crashed = {"terminated": {"exitCode": 1, "reason": "Error"}}
    for which, reason in (("running", "Error"), ("out of memory", "OOMKilled")):
        assert states(which) == [({"running": {"startedAt": AT}}, {"terminated": {"exitCode": 137, "reason": reason}})]
    assert states("with two")[1] == ({"terminated": {"exitCode": 0, "reason": "Completed"}}, {})
    assert states("crashing") == [
        ({"waiting": {"reason": "CrashLoopBackOff", "message": "exit code 1"}}, crashed),
    ]
    assert states("new") == [({"waiting": {"reason": "ContainerCreating"}}, {})]


def test_a_client_waits_for_the_condition_ready() -> None:
    def ready(shape: Shape) -> tuple[str, str | None]:
        (found,) = [one for one in deserialized(shape, "Pod").status.conditions if one.type == "Ready"]
        return found.status, found.message

    assert ready(PODS["running"]) == ("True", None)
    assert ready(PODS["crashing"]) == ("False", "nginx: exit code 1")
    assert ready(PODS["ending"]) == ("False", "Terminating")
    (network, node) = deserialized(NODES["drained, without a subnet"], "Node").status.conditions
    assert (network.type, network.status, node.type, node.status) == ("NetworkUnavailable", "True", "Ready", "False")
    assert deserialized(NODES["drained, without a subnet"], "Node").spec.unschedulable
    assert deserialized(NODES["cordoned"], "Node").spec.unschedulable
    shown = [NODE_COLUMNS[3].cell(NODES[name]) for name in ("ready", "drained, without a subnet", "cordoned")]
    assert shown == ["ready", "fenced, drained", "ready, cordoned"]


def test_a_pod_that_ends_has_a_time_of_its_deletion_and_one_of_a_deployment_its_owner() -> None:
    assert deserialized(PODS["ending"], "Pod").metadata.deletion_timestamp == TIME
    (owner,) = deserialized(PODS["with two"], "Pod").metadata.owner_references
    assert (owner.kind, owner.name, owner.controller) == ("ReplicaSet", SET.key.name, True)
    assert owner.uid == SET_SHAPE["metadata"]["uid"]
    (its_owner,) = deserialized(SET_SHAPE, "ReplicaSet").metadata.owner_references
    assert (its_owner.kind, its_owner.name) == ("Deployment", "web")
    assert its_owner.uid == deployment_shape(LAB, DEPLOYMENT, AT, PROGRESS, [SET])["metadata"]["uid"]


def test_strategies_have_their_defaults() -> None:
    whole = deployment_shape(LAB, DEPLOYMENT, AT, PROGRESS, [SET])["spec"]
    assert whole["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "25%"},
    }
    assert (whole["revisionHistoryLimit"], whole["progressDeadlineSeconds"]) == (10, 600)
    strategy = daemon_set_shape(LAB, DAEMONS, AT, DaemonNumbers())["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}}


def test_a_uid_is_of_one_object_alone() -> None:
    same = PODS["running"]["metadata"]["uid"]
    assert pod(status())["metadata"]["uid"] == same
    later = pod(status(), created_at="2026-01-01T00:00:06Z")["metadata"]["uid"]
    other_lab = LabIdentity("two-nodes", "2026-01-02T00:00:00Z")
    usual = PodSurroundings(created_at=AT, deleted_at=None, host_address="192.168.8.227", link=None)
    elsewhere = pod_shape(other_lab, POD, status(), usual)["metadata"]["uid"]
    assert len({same, later, elsewhere, NODES["ready"]["metadata"]["uid"]}) == 4


def test_namespaces_are_those_of_kubernetes() -> None:
    outside = ("Node", "Namespace")
    assert {shape["metadata"].get("namespace") for kind, shape in OBJECTS if kind in outside} == {None}
    inside = [shape for kind, shape in OBJECTS if kind not in (*outside, "Event")]
    assert {shape["metadata"]["namespace"] for shape in inside} == {"default"}
    assert OBJECTS[-1][1]["involvedObject"] == {"kind": "Pod", "apiVersion": "v1", "name": "web", "namespace": "shop"}
    about = {shape["involvedObject"]["kind"]: shape["involvedObject"] for kind, shape in OBJECTS if kind == "Event"}
    assert about["Node"] == {"kind": "Node", "apiVersion": "v1", "name": "node1"}
    assert about["Deployment"]["apiVersion"] == "apps/v1"
    assert (about["Fault"]["apiVersion"], about["Dns"]["name"]) == ("testbed/v1", "dns")


def test_our_own_nodes_are_in_one_place_and_of_their_type() -> None:
    types = {"Pod": PodOwnFacts, "Node": NodeOwnFacts, "Deployment": DeploymentFacts, "Service": ServiceOwnFacts}
    for kind, shape in OBJECTS:
        assert ("testbed" in shape) is (kind in types)
        if kind in types:
            assert list(mismatches(shape["testbed"], types[kind])) == []


def test_a_change_that_kubernetes_would_not_have_is_seen() -> None:
    wrong = pod(status())
    wrong["status"]["veth"] = "vethweb"
    wrong["status"]["containerStatuses"][0]["restartCount"] = "2"
    assert list(strangers(wrong, "V1Pod")) == [
        ".status.containerStatuses[0].restartCount: '2' is no int",
        ".status.veth is not in V1PodStatus",
    ]
    del wrong["status"]["containerStatuses"][0]["imageID"]
    with pytest.raises(ValueError, match="image_id"):
        deserialized(wrong, "Pod")


def test_a_node_has_the_labels_that_a_node_selector_finds() -> None:
    labels = NODES["ready"]["metadata"]["labels"]
    assert labels == {**node_labels("node1"), "disk": "ssd"}
    assert NODES["ready"]["status"]["nodeInfo"]["architecture"] == labels["kubernetes.io/arch"]


class _Pod:
    manifest = POD


def test_a_pod_is_written_again_only_after_a_change() -> None:
    kept, one = KeptShapes(), cast("Pod", _Pod())
    usual: dict[str, Any] = {"created_at": AT, "deleted_at": None, "host_address": "192.168.8.227", "link": "vethweb"}
    first = kept.shape(LAB, one, status(), PodSurroundings(**usual))
    assert kept.shape(LAB, one, status(), PodSurroundings(**usual)) is first
    changed = kept.shape(LAB, one, status(ready=False), PodSurroundings(**usual))
    assert changed == pod(status(ready=False))
    ended = kept.shape(LAB, one, status(ready=False), PodSurroundings(**{**usual, "deleted_at": LATER}))
    assert ended == pod(status(ready=False), deleted_at=LATER)
    assert kept.shape(LAB, cast("Pod", _Pod()), status(), PodSurroundings(**usual)) is not first
