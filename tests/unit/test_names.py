"""Names as values: the records of Services and pods, the zone files, the server's config, one question."""

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from testbed.cluster.dns import resolv_conf
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import key_of
from testbed.cluster.problems import SpecError
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import allocate
from testbed.cluster.spec import read_cluster
from testbed.dns.query import NotAnAnswer, serial_answer, serial_question
from testbed.dns.records import Record, by_zone, records, zones_of
from testbed.dns.zone import server_config, zone_file
from testbed.services.endpoints import PodFacts

NETWORK = IPv4Network("10.0.0.0/16")
CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {{name: one}}
network: {{Network: {network}}}
underlay: {{cidr: 192.168.8.0/24}}
nodes: {{node1: {{}}}}
{more}"""


def service(name: str = "web", **spec: object) -> Service:
    """Return a Service in front of the pods of `pod`, with its numbers."""
    whole = {"selector": {"app": "web"}, "clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}], **spec}
    read = Service.model_validate({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})
    return allocate([read], dual_stack=True)[key_of(name)]


def pod(name: str, address: str | None, *, ready: bool = True, ipv6: str | None = None, **spec: object) -> PodFacts:
    """Return a pod of label app=web."""
    containers = [{"name": "c", "image": "echo", "ports": [{"name": "http", "containerPort": 8080}]}]
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "containers": containers, **spec},
    }
    return PodFacts(
        PodManifest.model_validate(manifest),
        IPv4Address(address) if address else None,
        ready,
        ipv6=IPv6Address(ipv6) if ipv6 else None,
    )


def answers(found: tuple[Record, ...], name: str, kind: str) -> list[str]:
    return [one.data for one in found if one.name == name and one.type == kind]


def test_the_zones_of_a_cluster_with_a_service_and_a_headless_one_are_exactly_these() -> None:
    headless = service("peers", clusterIP="None", ports=[{"name": "http", "port": 80, "targetPort": "http"}])
    found = records([service(), headless], [pod("web1", "10.0.46.2")])
    zones = by_zone(found, zones_of(NETWORK))
    assert {zone: zone_file(zone, held, 7) for zone, held in zones.items()} == {
        "cluster.local": """\
$TTL 5
cluster.local. SOA ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5
cluster.local. NS ns.dns.cluster.local.
10-0-46-2.default.pod.cluster.local. A 10.0.46.2
_dns-tcp._tcp.kube-dns.kube-system.svc.cluster.local. SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.
_dns._udp.kube-dns.kube-system.svc.cluster.local. SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.
_http._tcp.peers.default.svc.cluster.local. SRV 0 100 8080 web1.peers.default.svc.cluster.local.
_http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local.
dns-version.cluster.local. TXT "1.1.0"
kube-dns.kube-system.svc.cluster.local. A 10.96.0.10
ns.dns.cluster.local. A 10.96.0.10
peers.default.svc.cluster.local. A 10.0.46.2
web.default.svc.cluster.local. A 10.96.0.20
web1.peers.default.svc.cluster.local. A 10.0.46.2
""",
        "10.in-addr.arpa": """\
$TTL 5
10.in-addr.arpa. SOA ns.dns.cluster.local. hostmaster.10.in-addr.arpa. 7 7200 1800 86400 5
10.in-addr.arpa. NS ns.dns.cluster.local.
10.0.96.10.in-addr.arpa. PTR kube-dns.kube-system.svc.cluster.local.
2.46.0.10.in-addr.arpa. PTR web1.peers.default.svc.cluster.local.
20.0.96.10.in-addr.arpa. PTR web.default.svc.cluster.local.
""",
    }


def test_records_do_not_depend_on_the_order_of_objects() -> None:
    services = [service("a"), service("b", clusterIP="10.96.0.21")]
    pods = [pod("web1", "10.0.1.2"), pod("web2", "10.0.2.2")]
    assert records(services, pods) == records(services[::-1], pods[::-1])


def test_headless_service_leads_to_ready_pods_only() -> None:
    pods = [pod("web1", "10.0.1.2"), pod("web2", "10.0.2.2", ready=False), pod("web3", None)]
    found = records([service("peers", clusterIP="None")], pods)
    assert answers(found, "peers.default.svc.cluster.local", "A") == ["10.0.1.2"]
    # A pod has its own name all the same.
    assert answers(found, "10-0-2-2.default.pod.cluster.local", "A") == ["10.0.2.2"]


def test_headless_service_without_a_ready_pod_has_no_name() -> None:
    found = records([service("peers", clusterIP="None")], [pod("web1", "10.0.1.2", ready=False)])
    assert [one for one in found if "peers" in one.name] == []


def test_pod_that_ends_is_no_endpoint() -> None:
    ending = pod("web1", "10.0.1.2")
    found = records(
        [service("peers", clusterIP="None")], [PodFacts(ending.manifest, ending.address, True, terminating=True)]
    )
    assert answers(found, "peers.default.svc.cluster.local", "A") == []


@pytest.mark.parametrize(("hostname", "label"), [(None, "web1"), ("alpha", "alpha")])
def test_endpoint_is_called_by_its_host_name_else_by_its_pods_name(hostname: str | None, label: str) -> None:
    found = records([service("peers", clusterIP="None")], [pod("web1", "10.0.1.2", hostname=hostname)])
    assert answers(found, f"{label}.peers.default.svc.cluster.local", "A") == ["10.0.1.2"]


def test_port_without_a_name_has_no_srv_record() -> None:
    found = records([service(ports=[{"port": 80}])], [pod("web1", "10.0.1.2")])
    assert [one.name for one in found if one.type == "SRV" and "kube-dns" not in one.name] == []


def test_ports_of_both_protocols_have_records_of_their_own() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "ask", "port": 80, "protocol": "UDP"}]
    found = records([service(ports=ports)], [])
    names = {one.name for one in found if one.type == "SRV" and "kube-dns" not in one.name}
    assert names == {"_http._tcp.web.default.svc.cluster.local", "_ask._udp.web.default.svc.cluster.local"}


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.0.0.0/16", ["10.in-addr.arpa"]),
        ("172.16.0.0/12", ["10.in-addr.arpa", "172.in-addr.arpa"]),
        ("100.0.0.0/7", ["10.in-addr.arpa", "100.in-addr.arpa", "101.in-addr.arpa"]),
    ],
)
def test_addresses_of_pods_and_services_are_looked_up_backwards(network: str, zones: list[str]) -> None:
    assert list(zones_of(IPv4Network(network))) == ["cluster.local", *zones]


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("fd00:a::/48", ["0.0.0.0.a.0.0.0.0.0.d.f.ip6.arpa"]),
        ("fd00:a::/44", ["0.0.0.a.0.0.0.0.0.d.f.ip6.arpa"]),
        ("fd00:a:0:8000::/50", [f"{nibble}.0.0.0.0.a.0.0.0.0.0.d.f.ip6.arpa" for nibble in "89ab"]),
    ],
)
def test_ipv6_addresses_are_looked_up_backwards_too(network: str, zones: list[str]) -> None:
    services = "0." * 16 + "6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa"
    assert list(zones_of(NETWORK, IPv6Network(network))) == ["cluster.local", "10.in-addr.arpa", *zones, services]


NETWORK_IPV6 = IPv6Network("fd00:a::/48")
OF_BOTH = {"ipFamilyPolicy": "PreferDualStack"}


def test_an_ipv6_cluster_ip_has_a_name_in_reverse() -> None:
    found = records([service(clusterIP="fd00:10:96::80")], [])
    reverse = IPv6Address("fd00:10:96::80").reverse_pointer
    served = [one for held in by_zone(found, zones_of(NETWORK, NETWORK_IPV6)).values() for one in held]
    assert answers(tuple(served), "web.default.svc.cluster.local", "AAAA") == ["fd00:10:96::80"]
    assert answers(tuple(served), reverse, "PTR") == ["web.default.svc.cluster.local."]


@pytest.mark.parametrize(
    ("families", "ipv4", "ipv6"),
    [
        ({}, ["10.0.1.2"], []),
        (OF_BOTH, ["10.0.1.2"], ["fd00:a:0:1::2"]),
        ({"ipFamilies": ["IPv6"]}, [], ["fd00:a:0:1::2"]),
    ],
)
def test_a_headless_service_has_the_addresses_of_its_families(
    families: Mapping[str, object], ipv4: list[str], ipv6: list[str]
) -> None:
    pods = [pod("web1", "10.0.1.2", ipv6="fd00:a:0:1::2"), pod("web2", "10.0.2.2", ipv6="fd00:a:0:2::2", ready=False)]
    found = records([service("peers", clusterIP="None", **families)], pods)
    for name in ("peers.default.svc.cluster.local", "web1.peers.default.svc.cluster.local"):
        assert (answers(found, name, "A"), answers(found, name, "AAAA")) == (ipv4, ipv6)
    assert answers(found, "_http._tcp.peers.default.svc.cluster.local", "SRV") == [
        "0 100 80 web1.peers.default.svc.cluster.local."
    ]
    named = [answers(found, IPv4Address("10.0.1.2").reverse_pointer, "PTR")] if ipv4 else []
    named += [answers(found, IPv6Address("fd00:a:0:1::2").reverse_pointer, "PTR")] if ipv6 else []
    assert named == [["web1.peers.default.svc.cluster.local."]] * len(named)


def test_a_headless_service_of_both_families_has_no_ipv6_addresses_where_pods_have_none() -> None:
    found = records([service("peers", clusterIP="None", **OF_BOTH)], [pod("web1", "10.0.1.2")])
    assert [one for one in found if one.type == "AAAA"] == []


def test_a_pod_has_a_name_by_its_ipv6_address() -> None:
    found = records([], [pod("web1", "10.0.1.2", ipv6="fd00:a:0:1::2")])
    assert answers(found, "fd00-a-0-1--2.default.pod.cluster.local", "AAAA") == ["fd00:a:0:1::2"]


def test_server_serves_these_zones_and_the_root_s() -> None:
    text = server_config(("cluster.local", "10.in-addr.arpa"), IPv4Address("10.96.0.10"), Path("/run/dns"))
    assert text.count("- domain: ") == 3
    assert "listen: 10.96.0.10@53\n" in text


def test_every_pod_gets_the_usual_search_list() -> None:
    assert resolv_conf("default").splitlines() == [
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
    ]


# The cluster file


def dns_of(network: str = "10.0.0.0/16", more: str = "") -> bool:
    return read_cluster(CLUSTER.format(network=network, more=more).encode(), "x.yaml").dns


def test_a_cluster_has_dns_unless_it_is_disabled() -> None:
    assert dns_of()
    assert not dns_of(more="dns: false\n")


def test_a_cluster_whose_pods_could_have_the_servers_address_has_none() -> None:
    assert not dns_of("10.0.0.0/8")


def test_asking_for_names_where_they_cannot_be_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"x\.yaml:7:\d+: .*10\.96\.0\.10 is a pod's too \(got Network 10\.0\.0\.0/8"):
        dns_of("10.0.0.0/8", "dns: true\n")


def test_no_service_gets_the_address_of_the_dns() -> None:
    more = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {clusterIP: 10.96.0.10, selector: {app: web}, ports: [{port: 80}]}\n"
    )
    with pytest.raises(SpecError, match=r"x\.yaml:11:\d+: .*the address of the cluster's DNS \(got 10\.96\.0\.10"):
        dns_of(more=more)


# One question


def answer_to(question: bytes, serial: int = 7, flags: int = 0x8400) -> bytes:
    """Build a server's answer: header, question, and one record whose name points to the question's."""
    data = b"\x02ns\xc0\x0c" + b"\x01h\xc0\x0c" + struct.pack("!5I", serial, 7200, 1800, 86400, 5)
    header = question[:2] + struct.pack("!5H", flags, 1, 1, 0, 0)
    return header + question[12:] + struct.pack("!HHHIH", 0xC00C, 6, 1, 5, len(data)) + data


def test_question_for_a_serial_follows_rfc_1035() -> None:
    assert serial_question("cluster.local", 0x1234) == bytes.fromhex(
        "1234 0000 0001 0000 0000 0000 07 636c7573746572 05 6c6f63616c 00 0006 0001"
    )


def test_serial_is_read_from_the_answer() -> None:
    question = serial_question("cluster.local", 5)
    assert serial_answer(question, answer_to(question, 4_000_000_000)) == 4_000_000_000


def test_an_answer_to_another_question_is_no_serial() -> None:
    question, other = serial_question("cluster.local", 5), serial_question("cluster.local", 6)
    for wrong in (b"", answer_to(question)[:30], answer_to(other), answer_to(question, flags=0x8405)):
        with pytest.raises(NotAnAnswer):
            serial_answer(question, wrong)
