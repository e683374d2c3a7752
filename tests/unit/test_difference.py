"""From a running cluster file to a changed one: what comes, changes, goes, and what a running lab cannot change."""

from typing import Any, cast

import pytest

from testbed.cluster.difference import NewNode, difference
from testbed.cluster.spec import Cluster, read_cluster
from testbed.host import converge

BASE = """
apiVersion: testbed/v1
kind: Cluster
metadata: {name: growing}
network: {Network: 10.0.0.0/16, Backend: {Type: udp}}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec: {containers: [{name: c, image: shell}]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec: {nodeName: node2, containers: [{name: c, image: echo}]}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}
"""


def cluster(text: str) -> Cluster:
    return read_cluster(text.encode(), "growing.yaml")


def lines(running: str, wanted: str) -> list[str]:
    plan = difference(cluster(running), cluster(wanted))
    assert not plan.refused
    return list(plan.lines())


def test_the_same_file_asks_for_nothing() -> None:
    assert lines(BASE, BASE + "\n# a comment\n") == []


def test_nodes_come_first_and_go_last() -> None:
    wanted = BASE.replace("node1: {}, node2: {}", "node2: {}, node3: {subnet: 10.0.77.0/24}")
    plan = difference(cluster(BASE), cluster(wanted + SERVICE))
    assert list(plan.lines()) == ["+ node node3", "+ service echo", "- node node1"]
    assert plan.new_nodes == (NewNode("node3", "s1", None, "10.0.77.0/24", {}),)
    assert not plan.refused


def test_a_new_node_has_the_labels_of_the_file() -> None:
    wanted = BASE.replace("node2: {}}", "node2: {}, node3: {labels: {disk: ssd}}}")
    (node,) = difference(cluster(BASE), cluster(wanted)).new_nodes
    assert node == NewNode("node3", "s1", None, None, {"disk": "ssd"})


def test_objects_that_go_free_their_names_and_ports_before_others_come() -> None:
    wanted = BASE.replace("name: stays}", "name: comes}").replace("image: echo", "image: nginx")
    assert lines(BASE + SERVICE, wanted) == ["- pod stays", "- service echo", "+ pod comes", "~ pod echo"]


def test_a_pod_without_a_node_name_is_unchanged_wherever_a_new_placement_would_put_it() -> None:
    wanted = BASE.replace("node1: {}, node2: {}", "node0: {}, node1: {}, node2: {}")
    assert lines(BASE, wanted) == ["+ node node0"]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("growing", "shrinking", "metadata.name: got shrinking; want growing"),
        ("10.0.0.0/16", "10.1.0.0/16", "network"),
        ("{Type: udp}", "{Type: vxlan}", "network"),
        ("192.168.8.0/24}", "192.168.9.0/24}", "underlay.cidr"),
        ("192.168.8.0/24}", "192.168.8.0/24, mtu: 1400}", "underlay.mtu"),
        ("192.168.8.0/24}", "192.168.8.0/24, topology: linear}", "underlay: switches"),
        ("node1: {}", "node1: {ip: 192.168.8.50}", "nodes.node1.ip"),
        ("node2: {}}", "node2: {}}\netcd: {members: 3}", "etcd"),
        ("node2: {}}", "node2: {}}\ndns: false", "dns"),
        ("node2: {}}", "node2: {}, node3: {subnet: 10.0.77.0/24, reserved: true}}", "nodes.node3.reserved"),
    ],
)
def test_an_unchangeable_setting_of_a_running_lab_is_refused_by_name(before: str, after: str, named: str) -> None:
    assert before in BASE
    refused = difference(cluster(BASE), cluster(BASE.replace(before, after))).refused
    assert any(line.startswith(named) for line in refused), refused


def test_a_lab_whose_file_has_no_objects_gets_its_rules_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(converge, "ask_with_contents", lambda lab, question, contents, **more: asked.append(more))
    converge._apply(cast("Any", None), cluster("nodes: [node1]"), "growing.yaml", ["registry/*=echo"])
    assert [(one["images"], one["keep_images"]) for one in asked] == [(["registry/*=echo"], True)]
