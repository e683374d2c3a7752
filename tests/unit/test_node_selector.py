"""Pods go to nodes that have the labels they ask for."""

from platform import machine

import pytest

from testbed.cluster.placement import ARCHITECTURES
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster

NODES = "nodes: {node1: {}, node2: {labels: {disk: ssd}}}"


def read(selector: str, more: str = "", nodes: str = NODES) -> Cluster:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
    spec = f"spec: {{nodeSelector: {selector}, {more} containers: [{{name: c, image: shell}}]}}\n"
    return read_cluster(f"{nodes}\n---\n{pod}{spec}".encode(), "c.yaml")


@pytest.mark.parametrize(
    "selector", ["{disk: ssd}", "{kubernetes.io/hostname: node2}", "{disk: ssd, kubernetes.io/os: linux}"]
)
def test_the_node_has_every_label(selector: str) -> None:
    assert read(selector).pods[0].spec.node_name == "node2"


def test_every_node_is_linux_of_the_machine_s_architecture() -> None:
    architecture = ARCHITECTURES.get(machine(), machine())
    selector = f"{{kubernetes.io/os: linux, kubernetes.io/arch: {architecture}, beta.kubernetes.io/os: linux}}"
    assert read(selector).pods[0].spec.node_name == "node1"


@pytest.mark.parametrize(("more", "node"), [("", "node1"), ("nodeName: node1,", "node1")])
def test_without_such_a_node_the_pod_is_refused_with_the_label(more: str, node: str) -> None:
    with pytest.raises(SpecError) as caught:
        read("{disk: nvme}", more)
    assert f"no node takes this pod (got {node} has no label disk: nvme" in str(caught.value)
