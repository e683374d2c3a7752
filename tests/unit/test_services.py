"""Services as values: numbers, endpoints, the table of a node, and the script from one table to another."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from types import SimpleNamespace
from typing import Any

import pytest

from agent.kernel.nftables import read_generation
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import key_of
from testbed.cluster.problems import SpecError
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import SERVICE_RANGE, NothingFree, allocate, number
from testbed.cluster.spec import read_cluster
from testbed.lab.ruleset import Ruleset, difference, whole
from testbed.services.endpoints import BoundPort, Endpoint, HostPort, PodFacts, bind, endpoints_of, host_ports
from testbed.services.rules import everywhere, skeleton, wanted
from testbed.services.services import Services

NETWORK = IPv4Network("10.0.0.0/16")
HERE = Endpoint(IPv4Address("10.0.46.2"), 8080, key_of("web1"), "node1")
THERE = Endpoint(IPv4Address("10.0.90.2"), 8080, key_of("web2"), "node2")
ADDRESS = IPv4Address("10.96.3.7")


def service(name: str = "web", **spec: object) -> Service:
    """Return a Service of port 80, as a file has it."""
    whole_spec = {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return Service.model_validate(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole_spec}
    )


def pod(
    name: str, address: str | None, *, ready: bool = True, terminating: bool = False, **container: object
) -> PodFacts:
    """Return a pod on node1 that belongs to the Services of `service`."""
    manifest = PodManifest.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "echo", **container}]},
        }
    )
    return PodFacts(manifest, IPv4Address(address) if address else None, ready, terminating)


def bound(*endpoints: Endpoint, **changes: object) -> BoundPort:
    """Return a port of a Service with these endpoints."""
    values: dict[str, Any] = {
        **{
            "service": key_of("web"),
            "name": "",
            "protocol": "tcp",
            "cluster_ip": ADDRESS,
            "port": 80,
            "node_port": None,
        },
        "affinity_s": None,
        "local_only": False,
        "endpoints": endpoints,
    }
    return BoundPort(**{**values, **changes})


def table(*ports: BoundPort, node: str = "node1", host: tuple[HostPort, ...] = ()) -> Ruleset:
    return wanted(node, everywhere(ports), host, NETWORK)


# Numbers


def test_the_same_name_gets_the_same_numbers_again() -> None:
    first = allocate([service(type="NodePort")])[key_of("web")]
    again = allocate([service("other"), service(type="NodePort")])[key_of("web")]
    assert IPv4Address(first.spec.cluster_ip or "") in SERVICE_RANGE
    assert first == again
    assert first.spec.ports[0].node_port in range(30000, 32768)


def test_a_service_keeps_its_numbers_when_another_asks_for_them_later() -> None:
    had = allocate([service(type="NodePort", clusterIP="10.96.0.9", ports=[{"port": 80, "nodePort": 30001}])])
    after = number(service(type="NodePort", sessionAffinity="ClientIP"), had)
    assert (after.spec.ports[0].node_port, after.spec.cluster_ip) == (30001, "10.96.0.9")


def test_two_names_of_one_number_get_two() -> None:
    many = [service(f"s{number}", type="NodePort") for number in range(200)]
    found = allocate(many).values()
    assert len({one.spec.cluster_ip for one in found}) == len({one.spec.ports[0].node_port for one in found}) == 200


def test_exhausted_node_ports_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.cluster.service_addresses.NODE_PORTS", (30000, 30004))
    with pytest.raises(NothingFree, match="all 5 are taken"):
        allocate([service(f"s{number}", type="NodePort") for number in range(6)])


def test_a_headless_service_has_no_number() -> None:
    assert allocate([service(clusterIP="None")])[key_of("web")].spec.cluster_ip == "None"


# Endpoints


def test_only_ready_pods_with_all_labels_serve() -> None:
    pods = [
        pod("ready", "10.0.46.2"),
        pod("not-ready", "10.0.46.3", ready=False),
        pod("ending", "10.0.46.4", terminating=True),
        pod("without-address", None),
    ]
    ready, other = endpoints_of(service(), pods)
    assert [[one.pod.name for one in port] for port in ready] == [["ready"]]
    assert [[one.pod.name for one in port] for port in other] == [["not-ready", "ending"]]
    assert endpoints_of(service(selector={"app": "web", "tier": "back"}), pods) == ([[]], [[]])


def test_publish_not_ready_addresses_has_pods_that_are_not_ready_yet_but_none_that_ends() -> None:
    pods = [
        pod("ready", "10.0.46.2"),
        pod("starting", "10.0.46.3", ready=False),
        pod("ending", "10.0.46.4", terminating=True),
        pod("early", None, ready=False),
    ]
    (all_of_them,), (others,) = endpoints_of(service(publishNotReadyAddresses=True), pods)
    assert [str(one.pod) for one in all_of_them] == ["ready", "starting"]
    assert [str(one.pod) for one in others] == ["ending"]
    (only_ready,), (waiting,) = endpoints_of(service(), pods)
    assert [str(one.pod) for one in only_ready] == ["ready"]
    assert [str(one.pod) for one in waiting] == ["starting", "ending"]


@pytest.mark.parametrize(
    ("phase", "policy", "serves"),
    [
        ("Running", "Never", True),
        ("Succeeded", "Never", False),
        ("Failed", "OnFailure", False),
        ("Failed", "Always", True),
    ],
)
def test_a_completed_pod_serves_nothing_and_frees_its_host_port(phase: str, policy: str, serves: bool) -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}]
    manifest = pod("job", None, ports=ports).manifest
    spec = manifest.spec.model_copy(update={"restart_policy": policy})
    status = SimpleNamespace(address="10.0.46.2", ipv6_address=None, ready=False, terminating=False, phase=phase)
    job = SimpleNamespace(manifest=manifest.model_copy(update={"spec": spec}), status=lambda: status)
    nothing: Any = None
    pods: Any = [job]
    facts = Services(nothing, pods, nothing, nothing, nothing).pods()
    (serving,), _ = endpoints_of(service(publishNotReadyAddresses=True), facts)
    assert (bool(serving), bool(host_ports("node1", facts))) == (serves, serves)


def test_a_target_port_may_be_a_name_of_each_pods_own() -> None:
    pods = [
        pod("a", "10.0.46.2", ports=[{"name": "http", "containerPort": 8080}]),
        pod("b", "10.0.46.3", ports=[{"name": "http", "containerPort": 9090}]),
        pod("c", "10.0.46.4", ports=[{"name": "http", "containerPort": 80, "protocol": "UDP"}]),
    ]
    ready, _ = endpoints_of(service(ports=[{"port": 80, "targetPort": "http"}]), pods)
    assert [(one.pod.name, one.port) for one in ready[0]] == [("a", 8080), ("b", 9090)]


def test_a_headless_service_binds_nothing_on_nodes() -> None:
    numbered = allocate([service(clusterIP="None"), service("other")])
    assert [one.service.name for one in bind(numbered.values(), [pod("a", "10.0.46.2")])] == ["other"]


def test_host_ports_are_of_pods_on_the_node_that_have_a_network_of_their_own() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8081, "hostIP": "192.168.8.1"}]
    found = host_ports("node1", [pod("a", "10.0.46.2", ports=ports)])
    assert [(str(one.address), one.port, one.to.port) for one in found] == [
        ("None", 8080, 80),
        ("192.168.8.1", 8081, 81),
    ]
    assert host_ports("node2", [pod("a", "10.0.46.2", ports=ports)]) == ()


def test_a_host_port_without_an_address_is_one_for_both_families() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8081, "hostIP": "192.168.8.1"}]
    both = replace(pod("a", "10.0.46.2", ports=ports), ipv6=IPv6Address("fd00:a:0:46::2"))
    assert [(one.port, str(one.to.address), one.to.port) for one in host_ports("node1", [both], 6)] == [
        (8080, "fd00:a:0:46::2", 80)
    ]
    assert host_ports("node1", [pod("a", "10.0.46.2", ports=ports)], 6) == ()


# Tables


def test_a_service_is_one_element_of_a_map_and_one_rule() -> None:
    found = table(bound(HERE, THERE))
    assert found.maps["cluster-ips"] == {"10.96.3.7 . tcp . 80": "goto service-web-tcp-80"}
    assert found.chains["service-web-tcp-80"] == (
        "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.46.2 . 8080, 1 : 10.0.90.2 . 8080 }",
    )
    assert found.maps["node-ports"] == {}
    assert found.sets["hairpin"] == {"10.0.46.2 . 10.0.46.2", "10.0.90.2 . 10.0.90.2"}


def test_without_endpoints_it_is_refused_everywhere() -> None:
    found = table(bound(node_port=30080))
    assert found.maps["refused-cluster-ips"] == {"10.96.3.7 . tcp . 80": "goto refuse"}
    assert found.maps["refused-node-ports"] == {"tcp . 30080": "goto refuse"}
    assert found.chains == {}
    assert found.maps["cluster-ips"] == {}


def test_a_local_node_port_sends_only_to_pods_of_its_node_and_drops_where_there_is_none() -> None:
    local = bound(HERE, THERE, node_port=30080, local_only=True)
    inside = ("ip saddr 10.0.0.0/16 goto service-web-tcp-80", "fib saddr type local goto marked-web-tcp-80")
    assert table(local).chains["local-web-tcp-80"] == (*inside, "meta l4proto tcp dnat to 10.0.46.2:8080")
    assert table(local, node="node3").chains["local-web-tcp-80"] == inside
    assert table(local, node="node3").maps["refused-node-ports"] == {"tcp . 30080": "goto ignore"}
    assert table(local).maps["refused-node-ports"] == {}


def test_affinity_remembers_clients_per_endpoint() -> None:
    found = table(bound(HERE, THERE, affinity_s=60))
    assert [one.rpartition("; ")[2] for one in found.declared.values()] == ["timeout 60s;"] * 2
    first, second, choice = found.chains["service-web-tcp-80"]
    assert first == "ip saddr @clients-60-web-tcp-80-10.0.46.2-8080 goto endpoint-web-tcp-80-10.0.46.2-8080"
    assert second.endswith("goto endpoint-web-tcp-80-10.0.90.2-8080")
    assert choice.startswith("numgen random mod 2 vmap { 0 : goto endpoint-web-tcp-80-10.0.46.2-8080, 1 :")


def test_a_change_of_endpoints_touches_only_their_chain() -> None:
    other = bound(HERE, service=key_of("other"), cluster_ip=IPv4Address("10.96.3.8"))
    script = difference(table(bound(HERE), other), table(bound(HERE, THERE), other))
    assert script.splitlines() == [
        "flush chain ip testbed-services service-web-tcp-80",
        "add rule ip testbed-services service-web-tcp-80 meta l4proto tcp dnat ip to "
        "numgen random mod 2 map { 0 : 10.0.46.2 . 8080, 1 : 10.0.90.2 . 8080 }",
        "add element ip testbed-services hairpin { 10.0.90.2 . 10.0.90.2 }",
    ]


def test_the_other_clients_of_an_affinity_are_not_forgotten_when_an_endpoint_goes() -> None:
    script = difference(table(bound(HERE, THERE, affinity_s=60)), table(bound(HERE, affinity_s=60)))
    assert "delete set ip testbed-services clients-60-web-tcp-80-10.0.90.2-8080" in script
    assert not any("10.0.46.2-8080 {" in line for line in script.splitlines() if "set" in line.split()[:2])
    assert "delete set ip testbed-services clients-60-web-tcp-80-10.0.46.2-8080" not in script


def test_equal_tables_need_no_script() -> None:
    assert difference(table(bound(HERE)), table(bound(HERE))) == ""


def test_a_complete_table_replaces_the_existing_one() -> None:
    script = whole(skeleton(NETWORK), table(bound(HERE)))
    assert script.startswith("table ip testbed-services\ndelete table ip testbed-services\ntable ip testbed-services {")
    assert "add element ip testbed-services cluster-ips { 10.96.3.7 . tcp . 80 : goto service-web-tcp-80 }" in script


def test_the_generation_is_read_from_the_kernels_answer() -> None:
    answer = bytes.fromhex("2c00000014 0a 0000 0100000000000000 00000007 0800010000000007 0a00030061 62630000")
    assert read_generation(answer) == 7
    with pytest.raises(OSError, match="does not report"):
        read_generation(answer[:20])


# Problems of a file

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web}}
spec: {containers: [{name: c, image: echo}]}
"""


def problems(*services: str, cluster: str = CLUSTER) -> list[str]:
    """Return what is said of a file with these Services' specs."""
    documents = [
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\nspec: {spec}\n"
        for number, spec in enumerate(services)
    ]
    try:
        found = read_cluster((cluster + "".join(documents)).encode(), "f.yaml")
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return [f"warning {problem}" for problem in found.warnings]


@pytest.mark.row("B15", "B16")
def test_every_mistake_of_services_is_reported_at_once() -> None:
    found = problems(
        "{selector: {app: web}, ports: [{port: 80, nodePort: 30080}, {port: 80}], externalTrafficPolicy: Local}",
        "{selector: {app: web}, ports: [{port: 70000}], type: ExternalName}",
        "{selector: {app: web}, ports: [{port: 80}], clusterIP: 10.1.2.3, sessionAffinity: Client}",
        "{selector: {app: web}, ports: [{port: 80, nodePort: 80}], type: NodePort}",
        "{selector: {app: web}, ports: [{port: 80}], clusterIP: None, type: NodePort}",
        "{selector: {}, ports: []}",
    )
    for part in (
        "a node port without type NodePort (got 30080; want type: NodePort, or no nodePort)",
        "only node ports have it (got type ClusterIP; want type: NodePort)",
        "one of several ports without a name (got port 80; want name: port-80)",
        "the same port twice (got 80/TCP, line 16 has it too; want another, such as 81)",
        "spec.ports[0].port: out of range (got 70000; want 1 to 65535)",
        "spec.type: not one of the known values (got ExternalName; want ClusterIP, NodePort or LoadBalancer)",
        "not an address for Services (got 10.1.2.3; want one of 10.96.0.0/12)",
        "spec.sessionAffinity: not one of the known values (got Client; want None or ClientIP)",
        "spec.ports[0].nodePort: out of range (got 80; want 30000 to 32767)",
        "a Service without a cluster IP has no node ports (got clusterIP: None; want type: ClusterIP)",
        "spec.selector: ",
        "spec.ports: too few (got 0; want at least 1)",
    ):
        assert any(part in problem for problem in found), (part, found)


@pytest.mark.row("B15", "B16")
def test_numbers_that_two_services_claim_are_reported_with_the_other_line() -> None:
    spec = "{selector: {app: web}, ports: [{port: 80, nodePort: 30080}], type: NodePort, clusterIP: 10.96.0.5}"
    assert problems(spec, spec) == [
        "error: f.yaml:21:59: spec.ports[0].nodePort: "
        "a node port twice (got 30080/TCP, line 16 has it too; want another, such as 30081)",
        "error: f.yaml:21:95: spec.clusterIP: a cluster IP twice "
        "(got 10.96.0.5, line 16 has it too; want another, such as 10.96.0.101)",
    ]


@pytest.mark.row("B14")
def test_a_selector_that_matches_nothing_is_a_warning() -> None:
    assert problems("{selector: {app: wbe}, ports: [{port: 80}]}") == [
        "warning error: f.yaml:16:18: spec.selector: "
        "no pod has these labels (got app=wbe; want labels of pods, or pods with them)"
    ]


@pytest.mark.row("B17")
def test_a_pod_network_that_holds_the_services_range_is_refused() -> None:
    found = problems(
        "{selector: {app: web}, ports: [{port: 80}]}", cluster=CLUSTER.replace("10.0.0.0/16", "10.0.0.0/8")
    )
    assert any("are pods' too (got Network 10.0.0.0/8; want one beside them)" in problem for problem in found), found


@pytest.mark.row("B16")
@pytest.mark.parametrize("whose", ["10.0.46.2", "192.168.8.227", "192.168.8.11", "10.112.0.1", "10.95.255.255"])
def test_a_cluster_ip_that_is_a_pods_or_a_machines_or_outside_the_range_is_refused(whose: str) -> None:
    (problem,) = problems(f"{{selector: {{app: web}}, ports: [{{port: 80}}], clusterIP: {whose}}}")
    assert problem.endswith(f"not an address for Services (got {whose}; want one of 10.96.0.0/12)")


@pytest.mark.row("B16")
@pytest.mark.parametrize("text", ["10.96.0", "10.96.0.256", "web", "0x0a600001"])
def test_a_cluster_ip_that_is_no_address_is_refused(text: str) -> None:
    (problem,) = problems(f'{{selector: {{app: web}}, ports: [{{port: 80}}], clusterIP: "{text}"}}')
    assert "spec.clusterIP: " in problem


@pytest.mark.row("B15")
@pytest.mark.parametrize("number", ["80", "8285", "2379", "29999", "32768", "65536", "-1", "x"])
def test_a_node_port_that_is_invalid_or_may_be_taken_is_refused(number: str) -> None:
    """Those of the overlay and of etcd are outside the range, so no Service can take them."""
    (problem,) = problems(f"{{selector: {{app: web}}, ports: [{{port: 80, nodePort: {number}}}], type: NodePort}}")
    assert "spec.ports[0].nodePort: " in problem
    assert "30000 to 32767" in problem or number == "x"


@pytest.mark.row("B12")
def test_two_services_of_one_name_and_two_ports_of_one_name_are_reported_with_the_other_line() -> None:
    spec = "{selector: {app: web}, ports: [{name: a, port: 80}, {name: a, port: 81}]}"
    (problem,) = problems(spec)
    assert "two ports of one name (got a, line 16 has it too; want another, such as a-2)" in problem
    good = "{selector: {app: web}, ports: [{port: 80}]}"
    again = CLUSTER + f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: s0}}\nspec: {good}\n"
    (problem,) = problems(good, cluster=again)
    assert "s0" in problem
    assert "line 15" in problem
