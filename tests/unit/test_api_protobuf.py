"""Requests of kubectl 1.37 in Kubernetes' protobuf encoding, recorded with `kubectl create …`."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from testbed.api.failure import Failure
from testbed.api.protobuf import MAGIC, decoded

RECORDED = Path(__file__).parents[1] / "vectors" / "kubectl"
TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}]}]},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "namespace": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
    "configmap": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"colour": "blue"},
    },
    "secret": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": {"user": "YW5uYQ=="}},
    "deployment": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": TEMPLATE},
    },
    "service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "type": "ClusterIP",
            "selector": {"app": "web"},
            "ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    },
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_recorded_create_says_the_object_that_kubectl_was_asked_for(kind: str) -> None:
    found = decoded((RECORDED / f"create-{kind}.bin").read_bytes())
    assert _without_empty(found) == OBJECTS[kind]


def _without_empty(value: object) -> object:
    """Remove empty mappings: clients send them for unset fields."""
    if isinstance(value, dict):
        return {key: _without_empty(one) for key, one in value.items() if one != {}}
    return [_without_empty(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_request_that_is_cut_off_anywhere_is_refused_and_nothing_worse(kind: str) -> None:
    whole = (RECORDED / f"create-{kind}.bin").read_bytes()
    for length in range(len(whole)):
        with contextlib.suppress(Failure):
            decoded(whole[:length])


def test_a_field_that_is_not_known_here_is_refused_when_it_holds_something() -> None:
    type_meta = b"\x0a\x0f" + b"\x0a\x02v1" + b"\x12\x09Namespace"
    empty, full = b"\xfa\x01\x00", b"\xfa\x01\x02\x08\x01"
    assert decoded(MAGIC + type_meta + b"\x12" + bytes([len(empty)]) + empty)["kind"] == "Namespace"
    with pytest.raises(Failure, match="field 31 of Namespace is not served as protobuf"):
        decoded(MAGIC + type_meta + b"\x12" + bytes([len(full)]) + full)
