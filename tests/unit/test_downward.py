"""A pod's own fields and resources as variables and files: values, mistakes, and what is shown of them."""

from typing import Any

import pytest

from testbed.cluster.capacity import MachineSize, machine_size
from testbed.cluster.downward import lines_of, metadata_value, resource_value
from testbed.cluster.environment import ContainerResource
from testbed.cluster.manifest import PodManifest
from testbed.cluster.problems import SpecError
from testbed.cluster.resources import Resources
from testbed.cluster.spec import read_cluster
from testbed.pods.pod_config import VolumeFile, files_of, no_configs, values_of

NODE = MachineSize(thousandths=2500, bytes=8 << 30)
UID = "6d1c…"


def pod(container: dict[str, Any], volume: dict[str, Any] | None = None, **metadata: object) -> PodManifest:
    spec = {
        "containers": [{"name": "c", "image": "shell", **container}],
        "volumes": [] if volume is None else [{"name": "v", **volume}],
    }
    known = {"name": "p", "namespace": "shop", **metadata}
    return PodManifest.model_validate({"apiVersion": "v1", "kind": "Pod", "metadata": known, "spec": spec})


def of_field(path: str, field: str, **more: object) -> dict[str, Any]:
    return {"path": path, "fieldRef": {"fieldPath": field}, **more}


def of_resource(resource: str, divisor: str | int | None = None, container: str | None = "c") -> dict[str, Any]:
    found = {"resource": resource, "divisor": divisor, "containerName": container}
    return {key: value for key, value in found.items() if value is not None}


def test_labels_are_sorted_lines_and_values_are_quoted_as_in_go() -> None:
    assert lines_of({"zone": "us", "app": "web"}) == 'app="web"\nzone="us"'
    assert lines_of({"a": 'say "hi"\n\tc:\\d \a\x01\x7fé\u2028'}) == r'a="say \"hi\"\n\tc:\\d \a\x01\x7fé\u2028"'
    assert lines_of({}) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", UID),
        ("metadata.labels", 'app="web"'),
        ("metadata.annotations", 'note="x"'),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['note']", "x"),
        ("metadata.annotations['app']", ""),
    ],
)
def test_a_field_of_the_metadata_is_text(path: str, value: str) -> None:
    made = pod({}, labels={"app": "web"}, annotations={"note": "x"})
    assert metadata_value(made, UID, path) == value


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", None, "1"),
        ("limits.cpu", "1m", "500"),
        ("requests.cpu", 0, "1"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", None, str(64 << 20)),
        ("limits.memory", "1Mi", "64"),
        ("requests.memory", "1Gi", "1"),
    ],
)
def test_a_resource_is_a_whole_number_of_its_unit(resource: str, divisor: str | int | None, value: str) -> None:
    resources = Resources.model_validate(
        {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}
    )
    wanted = ContainerResource.model_validate(of_resource(resource, divisor))
    assert resource_value(wanted, resources, NODE) == value


def test_without_a_limit_it_is_all_of_the_node_and_a_request_is_the_limit() -> None:
    def value(resource: str, limits: dict[str, str]) -> str:
        wanted = ContainerResource.model_validate(of_resource(resource))
        return resource_value(wanted, Resources.model_validate({"limits": limits}), NODE)

    assert [value("limits.cpu", {}), value("limits.memory", {})] == ["3", str(8 << 30)]
    assert [value("requests.cpu", {}), value("requests.memory", {})] == ["0", "0"]
    assert [value("requests.cpu", {"cpu": "2"}), value("requests.memory", {"memory": "1k"})] == ["2", "1000"]


def test_the_size_of_this_machine_is_known() -> None:
    assert machine_size().thousandths >= 1000
    assert machine_size().bytes > 1 << 28


def test_a_variable_has_a_resource_of_its_own_container_or_of_another() -> None:
    own = {"name": "A", "valueFrom": {"resourceFieldRef": of_resource("limits.memory", "1Mi", None)}}
    of = {"name": "B", "valueFrom": {"resourceFieldRef": of_resource("limits.memory", "1Ki")}}
    made = pod({"env": [own, of], "resources": {"limits": {"memory": "64Mi"}}})
    assert values_of(made, made.spec.containers[0], {}, no_configs).by_name == {"A": "64", "B": "65536"}


def test_files_of_a_downward_volume_are_fields_and_resources() -> None:
    items = [
        of_field("labels", "metadata.labels"),
        of_field("deep/uid", "metadata.uid", mode=0o400),
        {"path": "memory", "resourceFieldRef": of_resource("limits.memory", "1Mi")},
    ]
    container = {"resources": {"limits": {"memory": "64Mi"}}}
    wanted = {
        "labels": VolumeFile(b'app="web"', 0o440),
        "deep/uid": VolumeFile(UID.encode(), 0o400),
        "memory": VolumeFile(b"64", 0o440),
    }
    direct = pod(container, {"downwardAPI": {"items": items, "defaultMode": 0o440}}, labels={"app": "web"})
    assert files_of(direct, direct.spec.volumes[0], no_configs, UID) == wanted
    projected = {"sources": [{"downwardAPI": {"items": items}}], "defaultMode": 0o440}
    inside = pod(container, {"projected": projected}, labels={"app": "web"})
    assert files_of(inside, inside.spec.volumes[0], no_configs, UID) == wanted
    empty = pod({}, {"downwardAPI": {}})
    assert empty.spec.volumes[0].files
    assert files_of(empty, empty.spec.volumes[0], no_configs, UID) == {}


def test_what_is_shown_of_the_volumes_can_be_applied() -> None:
    items = [of_field("name", "metadata.name"), {"path": "cpu", "resourceFieldRef": of_resource("limits.cpu", "1m")}]
    made = pod({}, {"projected": {"sources": [{"downwardAPI": {"items": items}}]}})
    assert made.to_manifest()["spec"]["volumes"] == [
        {"name": "v", "projected": {"sources": [{"downwardAPI": {"items": items}}]}}
    ]
    assert PodManifest.model_validate(made.to_manifest()) == made


@pytest.mark.parametrize(
    ("volume", "where", "said"),
    [
        ("downwardAPI: {items: [{path: a, fieldRef: {fieldPath: status.podIP}}]}", "fieldPath", "no such field for a"),
        ("downwardAPI: {items: [{path: a}]}", "items[0]", "a file has one source (got none"),
        ("downwardAPI: {items: [{path: ../a, fieldRef: {fieldPath: metadata.uid}}]}", "path", "not a path inside"),
        ("downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu}}]}", "items[0]", "containerName"),
        (
            "downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu, containerName: d}}]}",
            "containerName",
            "no such container in this pod (got d; want c)",
        ),
        (
            "projected: {sources: [{downwardAPI: {items: [{path: a, resourceFieldRef: {resource: limits.cpu, "
            "containerName: c, divisor: 1Mi}}]}}]}",
            "resourceFieldRef",
            "not a unit of this resource (got 1Mi; want 1, 1m)",
        ),
        ("downwardAPI: {items: [{path: a, resourceFieldRef: {resource: x}}]}", "resource", "not one of the known val"),
        (
            "projected: {sources: [{configMap: {name: a}, downwardAPI: {}}]}",
            "sources[0]",
            "a projection has one source (got configMap and downwardAPI",
        ),
        ("projected: {sources: [{serviceAccountToken: {}}]}", "serviceAccountToken", "unknown or unsupported key"),
    ],
)
def test_a_mistake_is_named_at_its_place(volume: str, where: str, said: str) -> None:
    head = "nodes: [node1]\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
    text = f"{head}spec: {{volumes: [{{name: v, {volume}}}], containers: [{{name: c, image: shell}}]}}"
    with pytest.raises(SpecError) as caught:
        read_cluster(text.encode(), "c.yaml")
    (problem,) = caught.value.problems
    assert problem.what.partition(": ")[0].endswith(where)
    assert said in problem.what
