"""A lab with IPv4 and IPv6 side by side; flannel's e2e: «provides dual-stack pod-to-pod connectivity»."""

import json
import re
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv6Address, IPv6Network

import pytest

from tests.e2e.hostile import FORGED, Hostile
from tests.e2e.lab import Lab, lab_of

pytestmark = [pytest.mark.slow]

NGINX, ECHO, SHELL = "fd00:a:0:46::2", "fd00:a:0:90::2", "fd00:a:0:46::3"
DEVICES = {"vxlan": "via fd00:a:0:90:: dev flannel-v6.1", "host-gw": "via fd00:8::228 dev node1-eth0"}


@pytest.fixture(scope="module", params=["vxlan", "host-gw"])
def dual(request: pytest.FixtureRequest, _as_root: None) -> Iterator[Lab]:
    with lab_of("dual_stack", "--backend", request.param) as lab:
        yield lab


def backend(lab: Lab) -> str:
    return str(lab.node("node1")["backend"])


@pytest.mark.parametrize("family", [(), ("-6",)])
def test_every_pod_reaches_every_other_by_either_family(dual: Lab, family: tuple[str, ...]) -> None:
    pairs = dual.json("ping", *family)
    assert len(pairs) == 6
    assert all(pair["received"] == 1 for pair in pairs)
    # Two forwarding kernels and nobody else take from the TTL.
    assert {pair["ttl"] for pair in pairs if "echo" in (pair["source"], pair["destination"])} == {62}
    assert all((":" in pair["address"]) == bool(family) for pair in pairs)


def test_status_and_get_show_both_addresses(dual: Lab) -> None:
    assert dual.node("node1") | {"ipv6_address": "fd00:8::227", "ipv6_subnet": "fd00:a:0:46::/64"} == dual.node("node1")
    assert dual.node("node1")["peers"] == {"known": 1, "expected": 1}
    assert dual.json("get", "pods", "echo")["status"]["podIPs"] == [{"ip": "10.0.90.2"}, {"ip": ECHO}]
    assert f"10.0.90.2, {ECHO}" in dual.must("get", "pods", "-o", "wide")
    assert f"10.0.90.2, {ECHO}" in dual.must("status")
    lease = dual.json("get", "leases")["items"][0]
    assert (lease["spec"]["ipv6Subnet"], lease["spec"]["publicIPv6"]) == ("fd00:a:0:46::/64", "fd00:8::227")
    assert lease["metadata"]["name"] == "10.0.46.0-24&fd00:a:0:46::-64"
    assert "fd00:8::228" in dual.must("get", "routes", "node1")


def test_a_node_has_the_routes_bridge_and_files_of_both_families(dual: Lab) -> None:
    assert f"fd00:a:0:90::/64 {DEVICES[backend(dual)]}" in dual.run("node1", "ip", "-6", "route")
    assert "inet6 fd00:a:0:46::1/64" in dual.run("node1", "ip", "address", "show", "docker0")
    env = dual.run("node1", "cat", "/run/flannel/subnet.env")
    assert "FLANNEL_IPV6_NETWORK=fd00:a::/48\nFLANNEL_IPV6_SUBNET=fd00:a:0:46::1/64\n" in env


def test_a_pod_has_both_addresses_and_its_name_means_both(dual: Lab) -> None:
    inside = json.loads(dual.run("shell", "ip", "-j", "address", "show", "eth0"))[0]["addr_info"]
    assert [(one["local"], one["prefixlen"]) for one in inside] == [("10.0.46.3", 24), (SHELL, 64)]
    assert f"10.0.46.3 shell\n{SHELL} shell\n" in dual.run("shell", "cat", "/etc/hosts")


@pytest.mark.parametrize(("server", "port"), [(ECHO, 8080), (NGINX, 80)])
def test_programs_answer_by_ipv6(dual: Lab, server: str, port: int) -> None:
    code = dual.run(
        "shell", "curl", "-sg", "-m5", "-o", "/dev/null", "-w", "%{http_code}", f"http://[{server}]:{port}/"
    )
    assert code == "200"


def test_pods_keep_their_address_to_pods_and_have_the_nodes_to_the_outside(dual: Lab) -> None:
    assert dual.run("shell", "curl", "-sg", "-m5", f"http://[{ECHO}]:8080/clientip") == f"{SHELL}\n"
    # Who answers on node2 sees whose address the packet has.
    dual.run(
        "node2",
        "sh",
        "-c",
        "nft add table ip6 seen; nft 'add chain ip6 seen in { type filter hook input priority 0; }'",
    )
    dual.run("node2", "nft", "add rule ip6 seen in icmpv6 type echo-request ip6 saddr fd00:8::227 counter")
    assert dual.pings("shell", "fd00:8::228")
    counted = dual.run("node2", "nft", "list", "table", "ip6", "seen")
    assert re.search(r"packets [1-9]", counted), counted


def test_describe_shows_the_overlay_device_of_each_family(dual: Lab) -> None:
    told = dual.json("describe", "node", "node1")
    if backend(dual) == "host-gw":
        assert "host-gw" in told["Overlay device"]
        assert "Overlay device of IPv6" not in told
    else:
        first, second = told["Overlay device"], told["Overlay device of IPv6"]
        assert (first["name"], first["address"]) == ("flannel.1", ["10.0.46.0/32"])
        assert (second["name"], second["address"]) == ("flannel-v6.1", ["fd00:a:0:46::/128"])


def test_a_pod_sends_from_no_other_ipv6_address(dual: Lab) -> None:
    forged = "fd00:a:0:46::99"
    dual.must("shell", stdin=f"ip netns exec shell ip address add {forged}/64 dev eth0 nodad preferred_lft 0\n")
    assert dual.exec("shell", "ping", "-c1", "-W1", ECHO).code == 0
    assert dual.exec("shell", "ping", "-c1", "-W1", "-I", forged, ECHO).code != 0
    dual.must("shell", stdin=f"ip netns exec shell ip address delete {forged}/64 dev eth0\n")


def test_nobody_believes_a_pod_that_claims_anothers_ipv6_address(dual: Lab) -> None:
    claimed, hostile = "fd00:a:0:46::77", Hostile(dual.handle)
    own = hostile.mac_of("shell", "eth0")
    # Whoever looks for an address takes what is advertised about it.
    for place in ("nginx", "node1"):
        dual.run(place, "sh", "-c", f"ping -6 -q -i 0.2 -c 30 {claimed} >/dev/null 2>&1 & echo")
    dropped = hostile.dropped("its own advertisement")
    hostile.forge("neighbour", SHELL, claimed, place="shell")
    for place in ("nginx", "node1"):
        neighbours = dual.run(place, "ip", "-6", "neigh").splitlines()
        assert all(line.startswith(f"{SHELL} ") for line in neighbours if own in line), neighbours
    assert hostile.dropped("its own advertisement") - dropped == FORGED
    # Its own is taken: nobody has it by heart.
    dual.must("shell", stdin="ip netns exec nginx ip -6 neigh flush nud reachable nud stale\n")
    assert dual.json("ping", "-6", "nginx", "shell")[0]["received"] == 1


def test_iperf_measures_by_ipv6_where_the_destination_has_it(dual: Lab) -> None:
    def bytes_by_ipv6() -> int:
        counters = dual.run("nginx", "cat", "/proc/net/snmp6")
        return int(re.findall(r"^Ip6InOctets\s+(\d+)$", counters, re.MULTILINE)[0])

    before = bytes_by_ipv6()
    assert dual.json("iperf", "-6", "-t", "1", "shell", "nginx")["bits_per_second"] > 0
    assert bytes_by_ipv6() - before > 100_000
    assert dual.json("iperf", "-6", "-u", "-t", "1", "shell", "echo")["packets"] > 0
    assert "etcd1 has no IPv6 address" in dual.testbed("iperf", "-6", "shell", "etcd1").err


def test_a_subnet_without_owner_is_answered_by_the_node(dual: Lab) -> None:
    (pair,) = dual.json("ping", "shell", "fd00:a:0:77::2")
    assert (pair["received"], pair["error"]) == (0, "no route (from fd00:a:0:46::1)")


def test_everything_outside_is_answered_each_time(dual: Lab) -> None:
    for source, address in (("shell", "2001:db8::1"), ("shell", "192.0.2.1"), ("node1", "2001:db8::1")):
        answer = dual.exec(source, "ping", "-c12", "-W1", "-i0.1", address)
        assert "+12 errors" in answer.out, answer.out


def test_a_pod_and_an_agent_that_come_again_have_both_addresses(dual: Lab) -> None:
    before = dual.run("node2", "cat", "/run/flannel/subnet.env")
    dual.must("restart", "agent", "node2")
    assert dual.run("node2", "cat", "/run/flannel/subnet.env") == before
    pause = dual.json("describe", "pod", "echo")["Pause process"]
    dual.kill_9(pause)
    dual.handle.wait_until(
        lambda: dual.json("describe", "pod", "echo")["Pause process"] not in (None, pause), 10, "again"
    )
    dual.handle.wait_until(lambda: dual.pings("shell", ECHO), 30, "the pod is reached again")
    assert dual.json("ping", "-6", "echo", "nginx")[0]["received"] == 1


@pytest.mark.row("C21")
def test_a_link_that_went_down_has_its_ipv6_address_and_routes_again(dual: Lab) -> None:
    dual.must("fault", "link", "down", "node2", "s1")
    assert not dual.pings("shell", ECHO)
    dual.must("fault", "heal")
    dual.handle.wait_until(lambda: dual.pings("shell", ECHO), 30, "reached again by IPv6")


def test_check_looks_at_both_families(dual: Lab) -> None:
    well = dual.json("check")
    assert well["well"], well
    assert len([one for one in well["checks"] if one["check"].startswith("every pair by IPv6: ")]) == 2
    dual.run("node1", "nft", "table ip6 secret { chain fw { type filter hook forward priority 0; drop; }; }")
    try:
        answer = dual.testbed("check")
    finally:
        dual.run("node1", "nft", "delete", "table", "ip6", "secret")
    assert answer.code == 1
    assert re.search("every pair: small packets +yes", answer.out), answer.out
    assert re.search("every pair by IPv6: small packets +no +", answer.out), answer.out
    assert "sudo testbed trace -6 " in answer.out


def test_a_partition_is_one_for_both_families_and_for_pods(dual: Lab) -> None:
    dual.must("fault", "partition", "node1", "/", "node2")
    for family in ((), ("-6",)):
        assert dual.testbed("ping", *family, "shell", "echo", "-o", "json").json[0]["received"] == 0
        assert dual.testbed("ping", *family, "node1", "node2", "-o", "json").json[0]["received"] == 0
        assert dual.json("ping", *family, "shell", "nginx")[0]["received"] == 1
    dual.must("fault", "heal")
    for family in ((), ("-6",)):
        dual.handle.wait_until(partial(reaches, dual, *family), 30, "reached again")


def reaches(lab: Lab, *family: str) -> bool:
    return bool(lab.testbed("ping", *family, "shell", "echo", "-o", "json").json[0]["received"])


def code_of(lab: Lab, source: str, url: str, *flags: str) -> str:
    answer = lab.exec(source, "curl", "-sg", "-m5", "-o", "/dev/null", "-w", "%{http_code}", *flags, url)
    return answer.out


@pytest.mark.parametrize("source", ["shell", "echo", "node1", "node2"])
def test_a_service_of_both_families_answers_by_either_address(dual: Lab, source: str) -> None:
    spec = dual.json("get", "services", "echo")["spec"]
    ipv4, ipv6 = spec["clusterIPs"]
    assert (spec["clusterIP"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == (
        ipv4,
        ["IPv4", "IPv6"],
        "PreferDualStack",
    )
    assert IPv6Address(ipv6) in IPv6Network("fd00:10:96::/112")
    for address in (ipv4, f"[{ipv6}]"):
        assert code_of(dual, source, f"http://{address}/") == "200", address
    assert f"{ipv4}, {ipv6}" in dual.must("get", "services")


def test_a_name_means_both_addresses_and_clients_are_seen_as_they_are(dual: Lab) -> None:
    for flag, address in (("-4", "10.0.46.3"), ("-6", SHELL)):
        assert dual.run("shell", "curl", flag, "-s", "-m5", "http://echo/clientip") == f"{address}\n"


def kdig(lab: Lab, *question: str) -> str:
    return lab.run("shell", "kdig", "@10.96.0.10", "+short", "+timeout=5", *question)


def test_ipv6_addresses_have_names_and_names_have_ipv6_addresses(dual: Lab) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"clusterIP": "None", "selector": {"app": "echo"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack"}
    peers = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "peers"}, "spec": spec}
    services, cluster_ip = "default.svc.cluster.local", dual.json("get", "services", "echo")["spec"]["clusterIPs"][1]
    dual.must("apply", "-f", "-", stdin=json.dumps(peers))
    try:
        dual.handle.wait_until(lambda: kdig(dual, "-x", ECHO) == f"echo.peers.{services}.\n", 20, "it has a name")
        assert kdig(dual, f"peers.{services}", "AAAA") == kdig(dual, f"echo.peers.{services}", "AAAA") == f"{ECHO}\n"
        assert kdig(dual, "-x", cluster_ip) == f"echo.{services}.\n"
    finally:
        dual.must("delete", "service", "peers")


def test_a_service_of_ipv6_alone_answers_by_its_node_port_too(dual: Lab) -> None:
    spec = dual.json("get", "services", "nginx")["spec"]
    assert ":" in spec["clusterIP"]
    assert code_of(dual, "shell", f"http://[{spec['clusterIP']}]/") == "200"
    assert code_of(dual, "node2", "http://[fd00:8::227]:30080/") == "200"
    # Nobody of IPv4 has that port.
    assert code_of(dual, "node2", "http://192.168.8.227:30080/") == "000"


def says_host(lab: Lab, place: str, url: str) -> bool:
    return lab.exec(place, "curl", "-sg", "-m5", url).out == "host\n"


def test_a_host_port_answers_by_either_family(dual: Lab) -> None:
    ports = {"containerPort": 8080, "hostPort": 8888}
    spec = {"nodeName": "node2", "containers": [{"name": "echo", "image": "echo", "ports": [ports]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host"}, "spec": spec}
    dual.must("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        for source in ("shell", "echo", "node1", "node2"):
            for address in ("192.168.8.228", "[fd00:8::228]"):
                url = f"http://{address}:8888/hostname"
                dual.handle.wait_until(partial(says_host, dual, source, url), 10, f"{url} answers {source}")
    finally:
        dual.must("delete", "pod", "host")


def test_ipv6_rules_that_somebody_removes_are_made_again(dual: Lab) -> None:
    dual.run("node1", "nft", "delete", "table", "ip6", "testbed-services")
    address = dual.json("get", "services", "echo")["spec"]["clusterIPs"][1]
    dual.handle.wait_until(lambda: code_of(dual, "shell", f"http://[{address}]/") == "200", 10, "it answers again")


def test_a_node_that_comes_has_both_families_and_leaves_nothing_behind(dual: Lab) -> None:
    dual.must("node", "add", "node3")
    assert dual.json("ping", "-6", "shell", "node3")[0]["received"] == 1
    assert all(dual.node(name)["peers"] == {"known": 2, "expected": 2} for name in ("node1", "node2", "node3"))
    dual.must("node", "delete", "node3")
    assert {lease["spec"]["node"] for lease in dual.json("get", "leases")["items"]} == {"node1", "node2"}
    assert "fd00:8::101" not in dual.run("node1", "ip", "-6", "neigh")


@pytest.mark.usefixtures("_as_root")
def test_udp_is_refused_before_anything_is_made(no_lab: Lab) -> None:
    answer = no_lab.up("dual_stack", "--backend", "udp")
    assert answer.code == 2
    assert answer.err.startswith("error: --backend udp: EnableIPv6: the udp backend carries IPv4 only (got true; want ")
    assert no_lab.testbed("status").code != 0
