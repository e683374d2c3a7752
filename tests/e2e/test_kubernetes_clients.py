"""What `get -o json` prints of a real lab is read by the models of Kubernetes' official Python client."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cluster.kinds import KINDS, Kind
from testbed.control.answers.objects import (
    DeploymentFacts,
    LeaseObject,
    NameObject,
    NodeOwnFacts,
    PodOwnFacts,
    RouteTableObject,
    ServiceOwnFacts,
)
from tests.answer_types import mismatches
from tests.e2e.lab import Lab
from tests.e2e.manifests import deployment
from tests.kubernetes_models import MODELS, deserialized, strangers
from tests.waiting import wait_until

OURS = {"Lease": LeaseObject, "RouteTable": RouteTableObject, "Name": NameObject}
OWN_FACTS = {"Pod": PodOwnFacts, "Node": NodeOwnFacts, "Deployment": DeploymentFacts, "Service": ServiceOwnFacts}
NOT_IN_THE_DEFAULT_CLUSTER = ("Deployment", "ReplicaSet", "DaemonSet", "ConfigMap", "Secret", "NetworkPolicy")
OTHERS = """\
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: shell, image: shell}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {key: abc}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: none}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec: {containers: [{name: a, image: shell, command: [sh, -c, "exit 3"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ends}
spec: {restartPolicy: Never, containers: [{name: a, image: shell, command: ["true"]}]}
"""


def read_all(lab: Lab, kind: Kind) -> list[Any]:
    """Return every object of a kind, as the client's models where Kubernetes has the kind, else as JSON."""
    listed = lab.json("get", kind.plural)
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
    for item in listed["items"]:
        if kind.name in OURS:
            assert list(mismatches(item, OURS[kind.name])) == []
            continue
        assert list(strangers(item, MODELS[kind.name])) == []
        if kind.name in OWN_FACTS:
            assert list(mismatches(item["testbed"], OWN_FACTS[kind.name])) == []
    if kind.name in OURS:
        return list(listed["items"])
    return list(deserialized(listed, kind.name, is_list=True).items)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_every_kind_of_the_default_cluster_is_read(kind: Kind, nginx_tomcat: Lab) -> None:
    read = read_all(nginx_tomcat, kind)
    assert bool(read) == (kind.name not in NOT_IN_THE_DEFAULT_CLUSTER)
    if kind.name in MODELS and read:
        name = read[0].metadata.name
        named = nginx_tomcat.json("get", kind.plural, name)
        assert deserialized(named, kind.name).metadata.uid == read[0].metadata.uid
        assert yaml.safe_load(nginx_tomcat.must("get", kind.plural, name, "-o", "yaml"))["metadata"]["name"] == name


def test_facts_of_the_default_cluster_are_where_a_client_looks_for_them(nginx_tomcat: Lab) -> None:
    node = deserialized(nginx_tomcat.json("get", "node", "node1"), "Node")
    addresses = {one.type: one.address for one in node.status.addresses}
    assert addresses == {"InternalIP": "192.168.8.227", "Hostname": "node1"}
    assert (node.spec.pod_cidr, node.status.node_info.operating_system) == ("10.0.46.0/24", "linux")
    pod = deserialized(nginx_tomcat.json("get", "pod", "nginx"), "Pod")
    assert (pod.status.phase, pod.status.pod_ip, pod.status.host_ip) == ("Running", "10.0.46.2", "192.168.8.227")
    assert all(one.state.running.started_at and not one.state.waiting for one in pod.status.container_statuses)
    service = deserialized(nginx_tomcat.json("get", "service", "nginx"), "Service")
    assert (service.spec.cluster_ip, service.spec.ports[0].node_port) == ("10.96.0.80", 30080)
    endpoints = deserialized(nginx_tomcat.json("get", "endpoints", "nginx"), "Endpoints")
    (subset,) = endpoints.subsets
    assert (subset.addresses[0].target_ref.name, subset.ports[0].port) == ("nginx", 80)
    listed = nginx_tomcat.json("events")
    events = deserialized(listed, "Event", is_list=True).items
    started = {one.involved_object.name for one in events if one.reason == "Started"}
    assert started == {"node1", "node2", "nginx", "client", "tomcat"}
    everything = nginx_tomcat.json("get", "all")
    assert {item["kind"] for item in everything["items"]} == {"Node", "Pod", "Service"}


def test_pods_that_crash_end_and_belong_to_a_deployment_are_read(own_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "workloads.yaml"
    file.write_text(f"{deployment('web', 'echo', port=80, replicas=2)}{OTHERS}")
    own_lab.must("apply", "-f", str(file))
    kinds = {kind.name: kind for kind in KINDS}

    def pods() -> dict[str, Any]:
        return {pod.metadata.name: pod for pod in read_all(own_lab, kinds["Pod"])}

    def all_is_there() -> bool:
        found = pods()
        (crashes,), (ends,) = (found[name].status.container_statuses for name in ("crashes", "ends"))
        return (
            crashes.last_state.terminated is not None
            and crashes.last_state.terminated.exit_code == 3
            and ends.state.terminated is not None
            and ends.state.terminated.reason == "Completed"
            and found["ends"].status.phase == "Succeeded"
        )

    wait_until(all_is_there, timeout_s=40, what="one pod crashes, the other has completed")

    def web() -> Any:  # noqa: ANN401 - the client has no types
        (found,) = read_all(own_lab, kinds["Deployment"])
        return found

    wait_until(lambda: web().status.available_replicas == 2, timeout_s=40, what="the Deployment is available")
    conditions = {one.type: one.status for one in web().status.conditions}
    assert conditions == {"Available": "True", "Progressing": "True"}
    (replica_set,) = read_all(own_lab, kinds["ReplicaSet"])
    assert replica_set.metadata.owner_references[0].uid == web().metadata.uid
    (daemon_set,) = read_all(own_lab, kinds["DaemonSet"])
    owners = [pod.metadata.owner_references[0].uid for pod in pods().values() if pod.metadata.owner_references]
    assert sorted(owners) == sorted([replica_set.metadata.uid] * 2 + [daemon_set.metadata.uid] * 2)
    for kind in KINDS:
        assert read_all(own_lab, kind)
