"""No name of a cluster file or a command line reaches a shell, a path or a terminal as anything but a name."""

import json
from pathlib import Path

import pytest

from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster

pytestmark = pytest.mark.row("B13")

NAMES = ["", "../x", "a b", ";rm", "$(id)", "`id`", "a\nb", "-x", "grün", "a" * 64, "A", "\x1b[2J", "a\0b"]

PLACES = {
    "cluster": ("metadata: {name: c}", "metadata: {name: @}"),
    "node": ("node1: {}", "@: {}"),
    "pod": ("metadata: {name: web}", "metadata: {name: @}"),
    "hostname": ("hostname: web", "hostname: @"),
    "container": ("{name: main,", "{name: @,"),
    "port": ("name: http", "name: @"),
    "volume": ("{name: data, emptyDir: {}}", "{name: @, emptyDir: {}}"),
    "mount": ("{name: data, mountPath: /data}", "{name: @, mountPath: /data}"),
    "variable": ("{name: KEY,", "{name: @,"),
    "label": ("labels: {app: web}", "labels: {@: web}"),
    "nodeName": ("nodeName: node1", "nodeName: @"),
    "image": ("image: shell", "image: @"),
}

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  hostname: web
  nodeName: node1
  volumes: [{name: data, emptyDir: {}}]
  containers:
    - {name: main, image: shell, ports: [{containerPort: 80, name: http}],
       volumeMounts: [{name: data, mountPath: /data}], env: [{name: KEY, value: v}]}
"""
LABELLED = CLUSTER.replace("metadata: {name: web}", "metadata: {name: web, labels: {app: web}}")


def problems_of(text: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        read_cluster(text.encode(), "c.yaml")
    return tuple(map(str, caught.value.problems))


GOOD_THERE = {("label", "A"), ("variable", "A"), ("variable", "a" * 64), ("variable", "-x")}
# Empty is left out, as in Kubernetes.
GOOD_THERE |= {(place, "") for place in ("hostname", "port", "nodeName")}
CASES = [(place, name) for place in PLACES for name in NAMES if (place, name) not in GOOD_THERE]


@pytest.mark.parametrize(("place", "name"), CASES, ids=[f"{place}-{json.dumps(name[:8])}" for place, name in CASES])
def test_an_invalid_name_is_refused_on_one_printable_line(place: str, name: str) -> None:
    before, after = PLACES[place]
    source = LABELLED if place == "label" else CLUSTER
    assert source.count(before) == 1
    problems = problems_of(source.replace(before, after.replace("@", json.dumps(name))))
    assert any("want " in problem for problem in problems)
    for problem in problems:
        assert problem.isprintable(), problem
        assert problem.startswith("error: c.yaml:")


def test_the_cluster_without_the_wrong_names_is_good() -> None:
    for source in (CLUSTER, LABELLED):
        assert read_cluster(source.encode(), "c.yaml").pods[0].name == "web"


@pytest.mark.parametrize("value", ["a b", "\x1b[2J", "a\nb", "a" * 64, "-a"])
def test_a_label_s_value_is_what_kubernetes_takes(value: str) -> None:
    (problem,) = problems_of(LABELLED.replace("app: web", f"app: {json.dumps(value)}"))
    assert "metadata.labels.app: not a label's value (got " in problem
    assert problem.isprintable()


@pytest.mark.parametrize("key", ["app", "app.kubernetes.io/name", "A_b-c.d"])
def test_labels_of_kubernetes_are_taken(key: str) -> None:
    text = LABELLED.replace("app: web", f'{key}: ""')
    assert read_cluster(text.encode(), "c.yaml").pods[0].metadata.labels == {key: ""}


@pytest.mark.parametrize("field", ['command: ["a\\0b"]', 'args: ["a\\0b"]', 'env: [{name: B, value: "a\\0b"}]'])
def test_a_nul_with_which_no_program_can_be_started_is_refused(field: str) -> None:
    text = CLUSTER.replace("env: [{name: KEY, value: v}]", field)
    (problem,) = problems_of(text)
    assert "a NUL character, with which no program can be started" in problem


def test_nothing_named_in_a_file_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "run"
    for name in (f"$(touch {witness})", f";touch {witness}", f"`touch {witness}`"):
        for before, after in PLACES.values():
            problems_of(LABELLED.replace(before, after.replace("@", json.dumps(name))) + "nonsense: 1\n")
    assert not witness.exists()
