"""Services on three nodes, each test named after the check of Kubernetes' own suite that it stands for."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, lab_of
from tests.waiting import constantly, wait_until

Apply = Callable[..., None]
WEB = {"web1": "10.0.1.2", "web2": "10.0.2.2", "web3": "10.0.3.2", "web4": "10.0.3.3"}
PODS = {**WEB, "client1": "10.0.1.3", "client2": "10.0.2.3"}
NODES = {"node1": "192.168.8.1", "node2": "192.168.8.2", "node3": "192.168.8.3"}
CLUSTER_IP, NOBODY = "10.96.0.20", "10.96.0.21"
CLUSTER_PORT, NODE_PORT, NOBODYS_NODE_PORT = 80, 30080, 30081
TRIES = 30 + len(WEB) ** 2  # the peers' own number
CHANGE_S = 5.0
"""Kubernetes' suite gives an endpoint's change 30 s."""

ASK_UDP = """
import socket, sys
host, port, text, tries, source = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
limit_s = float(sys.argv[6])
for _ in range(tries):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        asker.bind(("", source))
        asker.settimeout(limit_s)
        try:
            asker.connect((host, port))
            asker.send(text.encode())
            print(asker.recv(65535).decode().strip())
        except OSError as error:
            print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Yield the cluster of services.yaml."""
    with lab_of(Path(__file__).with_name("services.yaml")) as running:
        yield running


def http(lab: Lab, source: str, url: str, tries: int = 1) -> list[str]:
    """Return what each of several requests was answered; `error N` with curl's exit code where it was not.

    curl's reasons are captured with the output of the test.
    """
    ask = f"curl -sS -m4 http://{url} || echo error $?"
    answer = lab.exec(source, "sh", "-c", f"for i in $(seq {tries}); do {ask}; done")
    print(source, url, answer.err, file=sys.stderr)
    assert answer.code == 0, answer
    return answer.out.split("\n")[:-1]


def udp(
    lab: Lab,
    source: str,
    host: str,
    port: int,
    text: str = "hostname",
    tries: int = 1,
    own: int = 0,
    limit_s: float = 3.0,
) -> list[str]:
    """Return the same by UDP; `own` is the port to send from, `limit_s` how long to wait for each answer."""
    words = ("python3", "-c", ASK_UDP, host, str(port), text, str(tries), str(own), str(limit_s))
    return lab.run(source, *words).splitlines()


def service(name: str, **spec: object) -> str:
    """Return a Service of port 80 in front of the four pods, as a manifest."""
    whole = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})


def echo_pod(name: str, node: str, label: str, **container: object) -> str:
    """Return a pod with the echo server, as a manifest."""
    metadata = {"name": name, "labels": {"app": label, "pod": name}}
    spec = {"nodeName": node, "containers": [{"name": "echo", "image": "echo", **container}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


@pytest.fixture
def apply(lab: Lab) -> Iterator[Apply]:
    """Apply manifests and wait for them; what is new by them goes when the test ends."""
    made: list[str] = []

    def put(*manifests: str) -> None:
        objects = [json.loads(one) for one in manifests]
        made.extend(f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects)
        lab.must("apply", "-f", "-", "--wait", stdin="\n---\n".join(manifests))

    yield put
    by_kind: dict[str, list[str]] = {}
    for kind, name in (one.split("/") for one in dict.fromkeys(made)):
        by_kind.setdefault(kind, []).append(name)
    for kind, names in by_kind.items():
        lab.must("delete", kind, *names, "--ignore-not-found", "--grace-period", "0")


def cluster_ip(lab: Lab, name: str) -> str:
    address: str = lab.json("get", "services", name)["spec"]["clusterIP"]
    return address


def endpoints(lab: Lab, name: str) -> set[str]:
    """Return the pods that serve."""
    found = lab.json("get", "endpoints", name)["subsets"]
    return {address["targetRef"]["name"] for subset in found for address in subset.get("addresses", ())}


def forwards_to(lab: Lab, source: str, url: str, wanted: set[str], within_s: float = CHANGE_S) -> None:
    """Wait until each of these pods, and no other, answers."""
    tries = 12 * len(wanted)
    wait_until(lambda: set(http(lab, source, url, tries)) == wanted, timeout_s=within_s, what=f"{wanted} serve {url}")


# Granular checks


@pytest.mark.slow
@pytest.mark.row("N1")
@pytest.mark.parametrize(
    "source",
    [
        "client1",
        "node3",
        pytest.param("client2", marks=pytest.mark.slow),
        pytest.param("node1", marks=pytest.mark.slow),
    ],
)
def test_granular_checks_pods_and_nodes_reach_every_pod_by_http_and_udp(source: str, lab: Lab) -> None:
    for name, address in WEB.items():
        assert http(lab, source, f"{address}:8080/hostname") == [name]
        assert udp(lab, source, address, 8080) == [name]


@pytest.mark.row("K1", "N21")
@pytest.mark.slow
def test_no_snat_between_all_pods(lab: Lab) -> None:
    """K1: every pod sees every other by its own address."""
    for source, own in PODS.items():
        for target, address in WEB.items():
            if target != source:
                assert http(lab, source, f"{address}:8080/clientip") == [own], (source, target)


@pytest.mark.row("K2")
def test_a_node_is_seen_by_its_overlay_address_elsewhere_and_by_its_bridge_at_home(lab: Lab) -> None:
    """K2."""
    for number, node in enumerate(NODES, 1):
        for address in WEB.values():
            seen = f"10.0.{number}.1" if address.startswith(f"10.0.{number}.") else f"10.0.{number}.0"
            assert http(lab, node, f"{address}:8080/clientip") == [seen]
            assert udp(lab, node, address, 8080, "clientip") == [seen]


# Services


@pytest.mark.row("K4", "N8")
@pytest.mark.parametrize("source", ["client1", "node2", "web3"], ids=["pod", "node", "endpoint"])
def test_service_spreads_over_all_endpoints_by_http_and_udp(source: str, lab: Lab) -> None:
    """pod-Service, node-Service, endpoint-Service; K4."""
    assert set(http(lab, source, f"{CLUSTER_IP}:{CLUSTER_PORT}/hostname", TRIES)) == set(WEB)
    assert set(udp(lab, source, CLUSTER_IP, CLUSTER_PORT, tries=TRIES)) == set(WEB)


@pytest.mark.row("K4", "N4")
@pytest.mark.parametrize(
    "source",
    ["client1", "gw", pytest.param("node3", marks=pytest.mark.slow), pytest.param("web3", marks=pytest.mark.slow)],
)
def test_functioning_node_port_on_every_node(source: str, lab: Lab) -> None:
    for address in NODES.values():
        assert set(http(lab, source, f"{address}:{NODE_PORT}/hostname", TRIES)) == set(WEB)
        assert set(udp(lab, source, address, NODE_PORT, tries=TRIES)) == set(WEB)


@pytest.mark.row("K12")
def test_node_port_answers_on_a_node_without_backend_and_not_on_loopback(lab: Lab, apply: Apply) -> None:
    """K12."""
    apply(
        service(
            "one",
            type="NodePort",
            selector={"pod": "web1"},
            ports=[{"port": 80, "targetPort": 8080, "nodePort": 30090}],
        )
    )
    for source in ("gw", "node3", "client2"):
        assert http(lab, source, "192.168.8.3:30090/hostname") == ["web1"]
    assert http(lab, "node3", "127.0.0.1:30090/hostname") == ["error 7"]


@pytest.mark.row("K5", "N9")
def test_hairpin_a_pod_reaches_itself_through_its_service(lab: Lab, apply: Apply) -> None:
    """K5."""
    apply(service("self", selector={"pod": "web2"}))
    assert http(lab, "web2", f"{cluster_ip(lab, 'self')}/hostname", 10) == ["web2"] * 10
    assert udp(lab, "web2", CLUSTER_IP, CLUSTER_PORT, tries=TRIES).count("web2") > 0


@pytest.mark.row("K6", "N10")
@pytest.mark.parametrize("server", ["web1", "web2"], ids=["same node", "other node"])
def test_preserve_source_pod_address_through_cluster_ip(server: str, lab: Lab, apply: Apply) -> None:
    """K6."""
    apply(service("one", selector={"pod": server}))
    assert http(lab, "client1", f"{cluster_ip(lab, 'one')}/clientip", 5) == [PODS["client1"]] * 5


@pytest.mark.row("K7", "N15")
@pytest.mark.parametrize("source", ["client1", "node2", "gw"])
def test_rejected_when_no_endpoints(source: str, lab: Lab) -> None:
    """K7: refused, and at once."""
    targets = [f"{address}:{NOBODYS_NODE_PORT}" for address in NODES.values()]
    for target in [*targets, *([] if source == "gw" else [f"{NOBODY}:80"])]:
        code, seconds = lab.run(
            source, "sh", "-c", f"curl -s -m5 -o /dev/null -w '%{{time_total}}' http://{target}/; echo \" $?\""
        ).split()[::-1]
        assert code == "7", target
        assert float(seconds) < 3.0, target


CONNECT_TO_ALL = """
import socket, sys, time
waiting, until = sys.argv[2:], time.monotonic() + float(sys.argv[1])
while waiting and time.monotonic() < until:
    still = []
    for address in waiting:
        with socket.socket() as asker:
            asker.settimeout(1)
            if asker.connect_ex((address, 80)):
                still.append(address)
    waiting = still
print(*waiting)
"""


@pytest.mark.slow
@pytest.mark.row("N6")
def test_service_endpoints_latency_a_hundred_new_services_answer_soon(lab: Lab, apply: Apply) -> None:
    """The peers' limit is 50 s for the slowest of 100; ours is CHANGE_S from every node."""
    addresses = [f"10.96.9.{number}" for number in range(1, 101)]
    apply(*(service(f"latency{number}", clusterIP=one) for number, one in enumerate(addresses)))
    for node in NODES:
        assert lab.run(node, "python3", "-c", CONNECT_TO_ALL, str(CHANGE_S), *addresses) == "\n", node


@pytest.mark.slow
@pytest.mark.row("K9", "N5")
@pytest.mark.parametrize("where", ["cluster ip", "node port"])
def test_session_affinity_keeps_a_client_and_can_be_switched(where: str, lab: Lab, apply: Apply) -> None:
    """K9."""
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30091}]

    def put(affinity: str) -> str:
        apply(service("sticky", type="NodePort", ports=ports, sessionAffinity=affinity))
        return f"{cluster_ip(lab, 'sticky')}/hostname" if where == "cluster ip" else "192.168.8.2:30091/hostname"

    url = put("ClientIP")
    assert len(set(http(lab, "client1", url, 15))) == 1
    put("None")
    forwards_to(lab, "client1", url, set(WEB))
    put("ClientIP")
    wait_until(lambda: len(set(http(lab, "client1", url, 15))) == 1, timeout_s=CHANGE_S, what="the client stays")


@pytest.mark.row("K9")
@pytest.mark.slow
def test_session_affinity_ends_with_its_timeout(lab: Lab, apply: Apply) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    apply(service("brief", sessionAffinity="ClientIP", sessionAffinityConfig=config))
    url = f"{cluster_ip(lab, 'brief')}/hostname"
    first = http(lab, "client1", url)
    assert http(lab, "client1", url, 5) == first * 5

    def another_after_silence() -> bool:
        lab.run("client1", "sleep", "1.3")
        return http(lab, "client1", url) != first

    wait_until(another_after_silence, timeout_s=60, what="another pod is chosen after more than a second of silence")


@pytest.mark.row("N11")
@pytest.mark.slow
def test_multiple_services_with_one_selector_live_and_die_apart(lab: Lab, apply: Apply) -> None:
    apply(service("first"), service("second"))
    first, second = cluster_ip(lab, "first"), cluster_ip(lab, "second")
    forwards_to(lab, "client1", f"{first}/hostname", set(WEB))
    lab.must("delete", "service", "first")
    assert set(http(lab, "client1", f"{second}/hostname", TRIES)) == set(WEB)
    assert lab.exec("client1", "curl", "-s", "-m2", f"http://{first}/hostname").code != 0


@pytest.mark.row("N16")
@pytest.mark.slow
def test_up_and_down_services(lab: Lab, apply: Apply) -> None:
    apply(service("up1"), service("up2"))
    first, second = cluster_ip(lab, "up1"), cluster_ip(lab, "up2")
    lab.must("delete", "service", "up1")
    apply(service("up3"))
    assert lab.exec("client2", "curl", "-s", "-m2", f"http://{first}/").code != 0 or first == cluster_ip(lab, "up3")
    for address in (second, cluster_ip(lab, "up3")):
        assert set(http(lab, "client2", f"{address}/hostname", TRIES)) == set(WEB)


@pytest.mark.row("N2")
@pytest.mark.slow
def test_endpoints_follow_pods_with_several_ports(lab: Lab, apply: Apply) -> None:
    """Basic and multiport endpoints: nobody, one, both, the other, nobody."""
    ports = [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8080}]
    apply(service("follow", selector={"app": "follow"}, ports=ports))

    def serve(wanted: set[str]) -> None:
        wait_until(lambda: endpoints(lab, "follow") == wanted, timeout_s=CHANGE_S, what=f"{wanted} are the endpoints")
        for port in (80, 81):
            url = f"{cluster_ip(lab, 'follow')}:{port}/hostname"
            forwards_to(lab, "client1", url, wanted or {"error 7"})

    serve(set())
    apply(echo_pod("follow1", "node1", "follow"))
    serve({"follow1"})
    apply(echo_pod("follow2", "node2", "follow"))
    serve({"follow1", "follow2"})
    lab.must("delete", "pod", "follow1")
    serve({"follow2"})
    lab.must("delete", "pod", "follow2")
    serve(set())


@pytest.mark.row("N3")
@pytest.mark.slow
def test_same_port_of_different_protocols(lab: Lab, apply: Apply) -> None:
    tcp = {"name": "t", "port": 80, "targetPort": 8080}
    by_udp = {"name": "u", "port": 80, "protocol": "UDP", "targetPort": 8080}
    apply(service("both", ports=[tcp, by_udp]))
    address = cluster_ip(lab, "both")
    assert http(lab, "client1", f"{address}/hostname")[0] in WEB
    assert udp(lab, "client1", address, 80)[0] in WEB
    apply(service("both", ports=[tcp]))
    wait_until(lambda: udp(lab, "client1", address, 80)[0] not in WEB, timeout_s=CHANGE_S, what="UDP fails")
    assert http(lab, "client1", f"{address}/hostname")[0] in WEB
    apply(service("both", ports=[by_udp]))
    wait_until(lambda: http(lab, "client1", f"{address}/")[0].startswith("error"), timeout_s=CHANGE_S, what="TCP fails")
    assert udp(lab, "client1", address, 80)[0] in WEB


@pytest.mark.row("N13")
@pytest.mark.slow
def test_update_node_port(lab: Lab, apply: Apply) -> None:
    def put(number: int) -> str:
        apply(service("moved", type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": number}]))
        return f"192.168.8.2:{number}/hostname"

    old = put(30092)
    assert http(lab, "client1", old)[0] in WEB
    new = put(30093)
    assert http(lab, "client1", new)[0] in WEB
    assert http(lab, "client1", old, 10) == ["error 7"] * 10


@pytest.mark.row("N22")
@pytest.mark.slow
def test_change_of_type_releases_the_node_port(lab: Lab, apply: Apply) -> None:
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30094}]
    apply(service("typed", type="NodePort", ports=ports))
    assert http(lab, "gw", "192.168.8.1:30094/hostname")[0] in WEB
    apply(service("typed"))
    assert http(lab, "gw", "192.168.8.1:30094/hostname") == ["error 7"]
    assert http(lab, "client1", f"{cluster_ip(lab, 'typed')}/hostname")[0] in WEB


@pytest.mark.slow
def test_local_traffic_policy_stays_on_the_node_and_keeps_the_source(lab: Lab, apply: Apply) -> None:
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30095}]
    selector = {"pod": "web1"}
    apply(service("local", type="NodePort", selector=selector, ports=ports, externalTrafficPolicy="Local"))
    assert http(lab, "gw", "192.168.8.1:30095/clientip") == ["192.168.8.10"]
    assert http(lab, "gw", "192.168.8.2:30095/clientip") == ["error 28"]
    assert http(lab, "client2", "192.168.8.2:30095/hostname") == ["web1"]


@pytest.mark.row("K11", "N14")
def test_large_requests(lab: Lab) -> None:
    """K11: 2,000 bytes, which UDP has to cut in pieces."""
    text = "x" * 2000
    assert udp(lab, "client1", CLUSTER_IP, CLUSTER_PORT, text, 20) == [text] * 20
    body = f"curl -s -m10 --data-binary {text} http://{CLUSTER_IP}/echo"
    assert lab.run("client1", "sh", "-c", f"for i in $(seq 20); do {body}; done") == text * 20


@pytest.mark.slow
@pytest.mark.row("K10", "N17")
def test_rules_are_made_again_when_somebody_deletes_them(lab: Lab) -> None:
    """K10."""
    for harm in (
        "delete table ip testbed-services",
        "flush chain ip testbed-services prerouting",
        "delete element ip testbed-services cluster-ips { 10.96.0.20 . tcp . 80 }",
    ):
        lab.run("node1", "nft", harm)
        wait_until(
            lambda: http(lab, "client1", f"{CLUSTER_IP}/hostname")[0] in WEB, timeout_s=CHANGE_S, what=f"after: {harm}"
        )


@pytest.mark.slow
@pytest.mark.row("K8", "N18")
@pytest.mark.parametrize("where", ["cluster ip", "node port"])
def test_udp_survives_its_server_pod_being_replaced(where: str, lab: Lab, apply: Apply) -> None:
    """K8: one source port, so the kernel remembers whom it sent to."""
    ports = [{"port": 53, "protocol": "UDP", "targetPort": 8080, "nodePort": 30096}]
    apply(service("cycled", type="NodePort", selector={"app": "cycled"}, ports=ports))
    apply(echo_pod("cycled1", "node2", "cycled"))
    host, port = (cluster_ip(lab, "cycled"), 53) if where == "cluster ip" else ("192.168.8.1", 30096)

    def answers(name: str) -> bool:
        # A lost datagram must not wait for longer than the limit below.
        return udp(lab, "client1", host, port, own=12345, limit_s=1.0) == [name]

    wait_until(lambda: answers("cycled1"), timeout_s=CHANGE_S, what="the first pod answers")
    apply(echo_pod("cycled2", "node3", "cycled"))
    lab.must("delete", "pod", "cycled1")
    wait_until(lambda: answers("cycled2"), timeout_s=2, what="the second pod answers")


@pytest.mark.slow
@pytest.mark.row("N19")
def test_initially_unready_endpoint_gets_nothing_until_it_is_ready(lab: Lab, apply: Apply) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    apply(service("late", selector={"app": "late"}))
    lab.must("apply", "-f", "-", stdin=echo_pod("late1", "node2", "late", readinessProbe=probe))
    url = f"{cluster_ip(lab, 'late')}/hostname"
    wait_until(lambda: lab.pod("late1")["state"] == "Running", timeout_s=10, what="the pod runs")
    constantly(lambda: http(lab, "client1", url) == ["error 7"], for_s=1.5, what="nobody answers")
    lab.run("late1", "touch", "/tmp/ready")
    forwards_to(lab, "client1", url, {"late1"})
    lab.must("delete", "pod", "late1", "--grace-period", "0")


@pytest.mark.slow
def test_publish_not_ready_addresses_answers_for_a_pod_that_never_gets_ready(lab: Lab, apply: Apply) -> None:
    early = {"selector": {"app": "early"}, "publishNotReadyAddresses": True}
    apply(service("early", **early), service("peers", clusterIP="None", **early))
    apply(service("strict", selector={"app": "early"}))
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    lab.must("apply", "-f", "-", stdin=echo_pod("early1", "node2", "early", readinessProbe=never))
    url, strict = (f"{cluster_ip(lab, name)}/hostname" for name in ("early", "strict"))
    forwards_to(lab, "client1", url, {"early1"})
    constantly(lambda: http(lab, "client1", strict) == ["error 7"], for_s=1.5, what="only ready pods for the other")
    assert http(lab, "client1", url) == ["early1"]
    assert lab.run("client1", "getent", "ahostsv4", "peers").split()[0] == lab.pod("early1")["address"]
    assert not lab.pod("early1")["ready"]
    assert (endpoints(lab, "early"), endpoints(lab, "strict")) == ({"early1"}, set())
    lab.must("delete", "pod", "early1", "--grace-period", "0")
    wait_until(lambda: http(lab, "client1", url) == ["error 7"], timeout_s=CHANGE_S, what="nobody is left")


def _records(lab: Lab) -> str:
    """Return who may have refused a packet: a request failed to connect once (N12), for a reason not found."""
    drops = [(node["name"], node["drops"]) for node in lab.json("graph")["nodes"]]
    gateway = lab.run("gw", "nft", "list", "table", "ip", "testbed-outside")
    return f"{drops}\n{gateway}\n{lab.must('events')[-4_000:]}\n{lab.must('commands')[-20_000:]}"


@pytest.mark.row("N12")
@pytest.mark.slow
def test_update_endpoints_reaches_every_node_before_the_pod_ends(lab: Lab, apply: Apply) -> None:
    apply(echo_pod("extra", "node2", "web", ports=[{"containerPort": 8080, "name": "http"}]))
    forwards_to(lab, "client1", f"{CLUSTER_IP}/hostname", {*WEB, "extra"})
    lab.must("delete", "pod", "extra")
    for source in ("client1", "client2", "node3"):
        answers = http(lab, source, f"{CLUSTER_IP}/hostname", TRIES)
        assert set(answers) == set(WEB), f"{source}: {answers}\n{_records(lab)}"
        assert set(udp(lab, source, CLUSTER_IP, CLUSTER_PORT, tries=TRIES)) == set(WEB)


@pytest.mark.row("N7")
@pytest.mark.slow
def test_host_port_without_conflict(lab: Lab, apply: Apply) -> None:
    """One host port may be there several times where protocol or address differ."""

    def ports(**more: object) -> dict[str, object]:
        return {"ports": [{"containerPort": 8080, "hostPort": 8888, **more}]}

    apply(
        echo_pod("host1", "node2", "host", **ports()),
        echo_pod("host2", "node2", "host", **ports(protocol="UDP")),
        echo_pod("host3", "node3", "host", **ports(hostIP="192.168.8.3")),
    )
    for source in ("client1", "client2", "gw", "node2"):
        assert http(lab, source, "192.168.8.2:8888/hostname") == ["host1"]
        assert udp(lab, source, "192.168.8.2", 8888) == ["host2"]
        assert http(lab, source, "192.168.8.3:8888/hostname") == ["host3"]


def test_headless_service_has_endpoints_and_no_address(lab: Lab, apply: Apply) -> None:
    apply(service("headless", clusterIP="None"))
    assert endpoints(lab, "headless") == set(WEB)
    assert cluster_ip(lab, "headless") == "None"


ODD_SEGMENT = """
import socket, struct, sys
# TCP with SYN and FIN: no connection that conntrack could know begins so (RFC 9293 §3.5).
def checksum(data):
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
source, target, flags = sys.argv[1], sys.argv[2], int(sys.argv[3])
head = struct.pack(">HHIIBBHHH", 40000, 8080, 1, 0, 5 << 4, flags, 1024, 0, 0)
pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack(">BBH", 0, 6, len(head))
head = head[:16] + struct.pack(">H", checksum(pseudo + head)) + head[18:]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
for _ in range(5):
    raw.sendto(head, (target, 0))
"""
SYN, SYN_FIN = "2", "3"


@pytest.mark.slow
@pytest.mark.row("N20")
def test_packets_that_conntrack_calls_invalid_are_not_forwarded(lab: Lab) -> None:
    counted = "ip saddr 10.0.1.3 tcp sport 40000"
    table = "add table ip seen; add chain ip seen in { type filter hook forward priority filter + 10; }; "
    lab.run("node2", "nft", f"{table} add rule ip seen in {counted} counter")

    def arrived() -> int:
        words = lab.run("node2", "nft", "list", "chain", "ip", "seen", "in").split()
        return int(words[words.index("packets") + 1])

    def send(flags: str) -> None:
        lab.run("client1", "python3", "-c", textwrap.dedent(ODD_SEGMENT), PODS["client1"], WEB["web2"], flags)

    send(SYN)
    wait_until(lambda: arrived() > 0, timeout_s=5, what="good segments arrive")
    before = arrived()
    send(SYN_FIN)
    constantly(lambda: arrived() == before, for_s=1.0, what="no odd segment is forwarded")
    lab.run("node2", "nft", "delete", "table", "ip", "seen")


@pytest.mark.slow
@pytest.mark.row("F43")
def test_a_service_moves_away_from_a_backend_that_died_and_refuses_when_none_is_left(lab: Lab, apply: Apply) -> None:
    apply(service("dying", selector={"app": "dying"}))
    apply(echo_pod("dying1", "node2", "dying"), echo_pod("dying2", "node3", "dying"))
    url = f"{cluster_ip(lab, 'dying')}/hostname"
    forwards_to(lab, "client1", url, {"dying1", "dying2"})

    def only(names: set[str]) -> bool:
        return set(http(lab, "client1", url, 3)) == names

    try:
        # 7: refused at once; 28 would be a timeout.
        for node, left in (("node2", {"dying2"}), ("node3", {"error 7"})):
            lab.must("fault", "node", "crash", node)
            forwards_to(lab, "client1", url, left, within_s=2)
            constantly(partial(only, left), for_s=1, what=f"{left} serve")
        assert set(http(lab, "client1", f"{CLUSTER_IP}/hostname", 12)) == {"web1"}, "another service has one left"
    finally:
        lab.must("fault", "heal")
    forwards_to(lab, "client1", url, {"dying1", "dying2"}, within_s=30)
    forwards_to(lab, "client1", f"{CLUSTER_IP}/hostname", set(WEB), within_s=30)
