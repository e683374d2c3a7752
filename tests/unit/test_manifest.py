"""Pods are read as Kubernetes would read them, and can be written again."""

from typing import Any

import pytest
from pydantic import ValidationError

from testbed.cluster.manifest import PodManifest
from testbed.cluster.yaml_source import read_documents

MINIMAL: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a"},
    "spec": {"containers": [{"name": "c", "image": "shell"}]},
}


def test_defaults_are_kubernetes_own() -> None:
    spec = PodManifest.model_validate(MINIMAL).spec
    assert spec.restart_policy == "Always"
    assert not spec.share_process_namespace
    assert spec.node_name is None
    assert spec.containers[0].command is None
    assert not spec.containers[0].security_context.privileged


def test_every_supported_field_is_read() -> None:
    container = {
        "name": "c",
        "image": "shell",
        "command": ["sleep"],
        "args": ["1"],
        "env": [{"name": "A", "value": "b"}],
        "workingDir": "/tmp",
        "ports": [{"containerPort": 80, "protocol": "UDP", "name": "web"}],
        "volumeMounts": [{"name": "v", "mountPath": "/v/", "readOnly": True, "subPath": "x/./y"}],
        "securityContext": {"privileged": True, "runAsUser": 33},
    }
    spec = {
        "nodeName": "node1",
        "hostname": "other",
        "restartPolicy": "OnFailure",
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": "v", "hostPath": {"path": "/srv", "type": "DirectoryOrCreate"}}],
        "containers": [container],
    }
    pod = PodManifest.model_validate(MINIMAL | {"spec": spec})
    read = pod.spec.containers[0]
    assert (read.working_dir, read.ports[0].container_port, read.ports[0].protocol) == ("/tmp", 80, "UDP")
    assert (read.volume_mounts[0].mount_path, read.volume_mounts[0].sub_path) == ("/v", "x/y")
    assert read.security_context.run_as_user == 33
    assert pod.spec.volumes[0].host_path is not None
    assert pod.spec.termination_grace_period_seconds == 0


def test_a_pod_written_again_reads_the_same() -> None:
    pod = PodManifest.model_validate(MINIMAL).on_node("node2")
    assert pod.spec.node_name == "node2"
    assert PodManifest.model_validate(pod.to_manifest()) == pod
    assert "volumes" not in pod.to_manifest()["spec"]


def test_a_pod_cannot_be_changed() -> None:
    pod = PodManifest.model_validate(MINIMAL)
    with pytest.raises(ValidationError):
        pod.spec.node_name = "node2"


def test_python_names_are_not_manifest_keys() -> None:
    with pytest.raises(ValidationError):
        PodManifest.model_validate(MINIMAL | {"spec": MINIMAL["spec"] | {"node_name": "node1"}})


def test_yaml_keeps_text_that_looks_like_a_date_and_follows_aliases() -> None:
    documents, problems = read_documents(b"a: &x 2024-01-01\nb: *x\nc: '1'\nd: [0x10, 1.5, yes, ~]\n", "f")
    assert problems == []
    assert documents[0].value == {"a": "2024-01-01", "b": "2024-01-01", "c": "1", "d": [16, 1.5, True, None]}


def test_positions_point_at_keys_and_values() -> None:
    (_, document), _ = read_documents(b"x: 1\n---\nspec:\n  list:\n    - name: a\n", "f")
    value, key = document.position(("spec", "list", 0, "name")), document.key_position(("spec", "list", 0, "name"))
    assert (value.line, value.column) == (5, 13)
    assert (key.line, key.column) == (5, 7)
