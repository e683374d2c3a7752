"""A pod may have any name that Kubernetes gives, also those that the lab's own parts are known by."""

from collections.abc import Iterator

import pytest

from tests.e2e.lab import Lab, lab_of

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
    assert f"said by {pod}" in lab.must("logs", f"{prefix}{pod}")


@pytest.mark.parametrize(("source", "destination"), [("lab", "all"), ("all", "lab"), ("dns", "lab"), ("lab", "lab")])
def test_a_trace_goes_from_the_pod_to_the_pod(lab: Lab, source: str, destination: str) -> None:
    traced = lab.json("trace", source, destination)
    assert traced["outcome"] == "answered"
    if source != destination:
        assert [traced["hops"][0]["node"], traced["hops"][-1]["node"]] == [source, source]
