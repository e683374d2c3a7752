"""Manifests as people have them, on a running lab: Lists, empty fields, odd texts, pods named as parts of the lab."""

from collections.abc import Iterator

import pytest

from testbed.cluster.yaml_source import read_documents
from tests.e2e.lab import Lab, lab_of
from tests.waiting import wait_until

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
nodes: [node1]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: lab}, spec: {containers: [&echo {name: c, image: echo}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: all}, spec: {containers: [*echo]}}
- {apiVersion: v1, kind: Pod, metadata: {name: dns}, spec: {containers: [{<<: *echo, name: d}]}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("cluster") / "pods.yaml"
    file.write_text(CLUSTER)
    with lab_of(file) as running:
        yield running


@pytest.mark.parametrize("pod", ["lab", "dns", "all"])
@pytest.mark.parametrize("prefix", ["", "pod/"])
def test_logs_are_the_pod_s(lab: Lab, pod: str, prefix: str) -> None:
    lab.run(pod, "sh", "-c", f"echo said by {pod} > /proc/1/fd/1")
    wait_until(lambda: f"said by {pod}" in lab.must("logs", f"{prefix}{pod}"), timeout_s=30, what="the line is logged")


@pytest.mark.parametrize(("source", "destination"), [("lab", "all"), ("all", "lab"), ("dns", "lab"), ("lab", "lab")])
def test_a_trace_goes_from_the_pod_to_the_pod(lab: Lab, source: str, destination: str) -> None:
    traced = lab.json("trace", source, destination)
    assert traced["outcome"] == "answered"
    if source != destination:
        assert [traced["hops"][0]["node"], traced["hops"][-1]["node"]] == [source, source]


def test_a_list_is_applied_and_deleted_as_its_items(lab: Lab) -> None:
    pods = "".join(
        f"- apiVersion: v1\n  kind: Pod\n  metadata: {{name: {name}, creationTimestamp: }}\n"
        "  spec: {containers: [{name: c, image: shell, resources: {}}]}\n  status: {}\n"
        for name in ("a", "b")
    )
    listed = f"apiVersion: v1\nkind: List\nmetadata: {{resourceVersion: ''}}\nitems:\n{pods}"
    applied = lab.testbed("apply", "-f", "-", stdin=listed)
    assert applied.code == 0, str(applied)
    assert {"a", "b"} <= {pod["name"] for pod in lab.json("status")["pods"]}
    deleted = lab.testbed("delete", "-f", "-", stdin=listed)
    assert deleted.code == 0, str(deleted)
    assert not {"a", "b"} & {pod["name"] for pod in lab.json("status")["pods"]}


def test_a_service_account_beside_a_pod_is_ignored_with_one_warning(lab: Lab) -> None:
    account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: web}}"
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c, image: shell}]}}"
    text, ignored = f"{account}\n---\n{pod}\n---\n{account}\n", "a ServiceAccount is ignored: a lab has no accounts"
    strict = lab.testbed("apply", "-f", "-", "--strict", stdin=text)
    assert (strict.code, strict.err.count(ignored), strict.out) == (2, 2, ""), str(strict)
    for more, outcome in ((["--dry-run"], "created (dry run)"), (["--wait"], "created")):
        applied = lab.testbed("apply", "-f", "-", *more, stdin=text)
        assert (applied.code, applied.out.splitlines()[0]) == (0, f"pod/web {outcome}"), str(applied)
        assert "serviceaccount" not in applied.out
        assert applied.err.count(ignored) == 1, str(applied)
    deleted = lab.testbed("delete", "-f", "-", stdin=text)
    assert (deleted.code, deleted.out) == (0, "pod/web deleted\n"), str(deleted)


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_get_prints_can_be_applied_as_it_is(lab: Lab, form: str) -> None:
    printed = lab.must("get", "pods", "-o", form)
    applied = lab.testbed("apply", "-f", "-", stdin=printed)
    assert applied.code == 0, str(applied)
    pods = lab.json("get", "pods")["items"]
    assert [f"pod/{pod['metadata']['name']} unchanged" for pod in pods] == applied.out.splitlines()[: len(pods)]


def test_what_get_prints_as_yaml_can_be_applied_elsewhere_with_odd_values(lab: Lab) -> None:
    """A text that YAML readers take for a number or a truth comes back as the text that it is."""
    values = ["y", "off", "0o7", "1e3", "12:30", "~", "2024-01-01"]
    env = ", ".join(f'{{name: V{number}, value: "{value}"}}' for number, value in enumerate(values))
    containers = f"[{{name: c, image: shell, env: [{env}]}}]"
    pod = f"{{apiVersion: v1, kind: Pod, metadata: {{name: odd}}, spec: {{containers: {containers}}}}}"
    assert lab.testbed("apply", "-f", "-", "--wait", stdin=pod).code == 0
    try:
        text = lab.must("get", "pod/odd", "-o", "yaml")
        (document,), problems = read_documents(text.encode(), "f")
        assert problems == []
        assert [one["value"] for one in document.value["spec"]["containers"][0]["env"]] == values
        assert lab.run("odd", "sh", "-c", "echo $V0 $V3 $V4").split() == ["y", "1e3", "12:30"]
    finally:
        lab.must("delete", "pod", "odd")


def test_a_pod_knows_its_own_uid_and_its_labels_of_now(lab: Lab) -> None:
    fields = "{path: uid, fieldRef: {fieldPath: metadata.uid}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}"
    env = "[{name: ID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]"
    container = f"{{name: c, image: shell, env: {env}, volumeMounts: [{{name: v, mountPath: /v}}]}}"
    spec = f"{{volumes: [{{name: v, downwardAPI: {{items: [{fields}]}}}}], containers: [{container}]}}"
    pod = f"{{apiVersion: v1, kind: Pod, metadata: {{name: self, labels: {{app: web}}}}, spec: {spec}}}"
    applied = lab.testbed("apply", "-f", "-", "--wait", stdin=pod)
    assert applied.code == 0, str(applied)
    try:
        uid = lab.json("get", "pod/self")["metadata"]["uid"]
        assert lab.run("self", "sh", "-c", "echo $ID $(cat /v/uid /v/labels)") == f'{uid} {uid}app="web"\n'
        assert lab.testbed("apply", "-f", "-", stdin=pod.replace("app: web", "app: shop")).code == 0
        wait_until(
            lambda: lab.run("self", "cat", "/v/labels") == 'app="shop"', timeout_s=30, what="the file has the new label"
        )
        assert lab.json("get", "pod/self")["metadata"]["uid"] == uid
    finally:
        lab.must("delete", "pod", "self")
