"""`testbed trace` where the way is longer: services, address translation, a router, many nodes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab

pytestmark = pytest.mark.slow

THREE = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: three}
network:  {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}, node3: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: shell, image: shell}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {nodeName: node2, containers: [{name: echo, image: echo, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""
WAN = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: wan}
network:  {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: wan, parameters: {sites: 2, hosts: 1}, cidr: 192.168.8.0/22}
nodes: {node1: {}, node2: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: left}
spec: {nodeName: node1, containers: [{name: shell, image: shell}]}
---
apiVersion: v1
kind: Pod
metadata: {name: right}
spec: {nodeName: node2, containers: [{name: echo, image: echo, ports: [{containerPort: 8080}]}]}
"""
MANY = 20
LIMIT_S = 2.0
NewLab = Callable[..., Any]


def many_nodes() -> str:
    """Return a cluster file with a pod on each of many nodes."""
    names = [f"node{number}" for number in range(1, MANY + 1)]
    head = THREE.partition("nodes:")[0] + f"nodes: {{{', '.join(f'{name}: {{}}' for name in names)}}}\n"
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{0}}}\nspec: {{nodeName: {0}, containers: [{1}]}}\n"
    return head + "".join(pod.format(name, "{name: shell, image: shell}") for name in names)


@pytest.fixture(scope="module")
def three_handle(new_lab: NewLab) -> Iterator[LabHandle]:
    """Start three nodes and a Service."""
    with new_lab(THREE) as running:
        yield running


@pytest.fixture
def three(three_handle: LabHandle) -> Lab:
    """Return the same, by its verbs."""
    return Lab(three_handle.name)


def places(trace: dict[str, Any], leg: str = "request") -> list[str]:
    return list(dict.fromkeys(hop["node"] for hop in trace["hops"] if hop["leg"] == leg))


def reasons(trace: dict[str, Any], leg: str = "request") -> str:
    return "\n".join(hop["why"] for hop in trace["hops"] if hop["leg"] == leg)


def test_cluster_ip_is_translated_on_the_clients_node_by_the_services_rule(three: Lab) -> None:
    trace = three.json("trace", "client", "svc/web:80")
    assert trace["outcome"] == "answered"
    assert places(trace) == ["client", "node1", "s1", "node2", "server"]
    address = trace["probe"]["destination"]
    server = three.pod("server")["address"]
    first, last = (hop["inner"] for hop in (trace["hops"][0], trace["hops"][11]))
    assert (first["dst"], first["dport"], last["dst"], last["dport"]) == (address, 80, server, 8080)
    assert f"service web (map cluster-ips: {address} . tcp . 80): DNAT destination {address}:80 → {server}:8080" in (
        reasons(trace)
    )
    assert f"conntrack translates it back: source {server}:8080 → {address}:80" in reasons(trace, "reply")


def test_node_port_on_a_third_node_shows_both_translations(three: Lab) -> None:
    trace = three.json("trace", "client", "node3:30080")
    assert trace["outcome"] == "answered"
    assert places(trace) == ["client", "node1", "s1", "node3", "node2", "server"]
    assert "service web (map node-ports: tcp . 30080): DNAT" in reasons(trace)
    assert "masquerade: source" in reasons(trace)
    assert places(trace, "reply") == ["server", "node2", "s1", "node3", "node1", "client"]
    times = [hop["at_us"] for hop in trace["hops"]]
    assert times == sorted(times)


def test_router_of_a_wan_is_on_the_path_and_decrements_the_outer_ttl(new_lab: NewLab) -> None:
    with new_lab(WAN) as handle:
        trace = Lab(handle.name).json("trace", "left", "right:8080")
    assert trace["outcome"] == "answered"
    assert places(trace) == ["left", "node1", "s1", "r1", "s2", "node2", "right"]
    router = [hop for hop in trace["hops"] if hop["node"] == "r1" and hop["leg"] == "request"]
    assert [hop["direction"] for hop in router] == ["in", "out"]
    assert router[0]["outer"]["ttl"] - router[1]["outer"]["ttl"] == 1
    assert router[0]["inner"]["ttl"] == router[1]["inner"]["ttl"]
    assert "route" in router[1]["why"]


def test_trace_of_many_nodes_answers_soon(new_lab: NewLab) -> None:
    """Measured from the command's start to its end, Python's own start included."""
    with new_lab(many_nodes()) as handle:
        lab = Lab(handle.name)
        pods = [pod["name"] for pod in lab.json("status")["pods"]]
        lab.json("trace", pods[0], pods[-1])
        took = []
        for _ in range(3):
            begun = time.monotonic()
            trace = lab.json("trace", pods[0], pods[-1])
            took.append(time.monotonic() - begun)
        assert trace["outcome"] == "answered"
    assert min(took) < LIMIT_S, took
