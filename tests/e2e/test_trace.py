"""The way of one packet, as `testbed trace` tells it, on the product's default cluster."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hops import hop_at, way
from tests.e2e.lab import Lab
from tests.tshark import tshark
from tests.waiting import wait_until

PROBE = ("trace", "nginx:2379", "tomcat:8080")
THERE = [
    ("nginx", "eth0", "out"),
    ("node1", "vethnginx", "in"),
    ("node1", "docker0", "in"),
    ("node1", "flannel0", "out"),
    ("node1", "node1-eth0", "out"),
    ("s1", "s1-eth1", "in"),
    ("s1", "s1-eth2", "out"),
    ("node2", "node2-eth0", "in"),
    ("node2", "flannel0", "in"),
    ("node2", "docker0", "out"),
    ("node2", "vethtomcat", "out"),
    ("tomcat", "eth0", "in"),
]
OTHER_WAY = {"in": "out", "out": "in"}
BACK = [(node, interface, OTHER_WAY[direction]) for node, interface, direction in reversed(THERE)]
RUNS = 5
CLUSTER_IP = "10.96.0.80"


@pytest.fixture(scope="module")
def traced(nginx_tomcat: Lab) -> dict[str, Any]:
    answer: dict[str, Any] = nginx_tomcat.json(*PROBE)
    return answer


def test_every_interface_is_named_in_order_and_both_ways(traced: dict[str, Any]) -> None:
    assert traced["outcome"] == "answered"
    assert way(traced, "request") == THERE
    assert way(traced, "reply") == BACK
    assert traced["unwatched"] == []


def test_outer_and_inner_addresses_are_those_of_the_wire(traced: dict[str, Any]) -> None:
    uplink = hop_at(traced, "node1", "node1-eth0")
    inner, outer = uplink["inner"], uplink["outer"]
    assert (outer["src"], outer["sport"], outer["dst"], outer["dport"]) == (
        "192.168.8.227",
        8285,
        "192.168.8.228",
        8285,
    )
    assert (inner["src"], inner["sport"], inner["dst"], inner["dport"]) == ("10.0.46.2", 2379, "10.0.90.2", 8080)
    assert outer["length"] == inner["length"] + 28
    assert len({hop["inner"]["id"] for hop in traced["hops"] if hop["leg"] == "request"}) == 1


def test_each_kernel_counts_the_ttl_down_once(traced: dict[str, Any]) -> None:
    assert hop_at(traced, "node1", "docker0")["inner"]["ttl"] == 64
    assert hop_at(traced, "node1", "flannel0")["inner"]["ttl"] == 63
    assert hop_at(traced, "tomcat", "eth0")["inner"]["ttl"] == 62


def test_reasons_are_route_lease_and_bridge_port(traced: dict[str, Any]) -> None:
    assert "10.0.0.0/16 dev flannel0" in hop_at(traced, "node1", "flannel0")["why"]
    assert "10.0.90.0/24 → 192.168.8.228:8285" in hop_at(traced, "node1", "node1-eth0")["why"]
    assert "behind s1-eth2" in hop_at(traced, "s1", "s1-eth2")["why"]
    assert "behind vethtomcat" in hop_at(traced, "node2", "vethtomcat")["why"]
    assert "delivered" in hop_at(traced, "tomcat", "eth0")["why"]


def test_same_source_port_again_and_again_is_complete_every_time(nginx_tomcat: Lab) -> None:
    for _ in range(RUNS):
        again = nginx_tomcat.json(*PROBE)
        times = [hop["at_us"] for hop in again["hops"]]
        assert times == sorted(times)
        assert way(again, "request") + way(again, "reply") == THERE + BACK


@pytest.mark.parametrize("how", [("--icmp",), ("--udp",)], ids=["icmp", "udp"])
def test_other_protocols_take_the_same_path(how: tuple[str, ...], nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("trace", "nginx", "tomcat", *how, "-o", "json").json
    assert way(answer, "request") == THERE
    assert way(answer, "reply" if how == ("--icmp",) else "error") == BACK


def test_text_has_the_lease_and_the_outcome(nginx_tomcat: Lab) -> None:
    shown = nginx_tomcat.must(*PROBE)
    assert "[192.168.8.227 → 192.168.8.228 udp 8285] 10.0.46.2:2379 → 10.0.90.2:8080\n" in shown
    assert "route default via 10.0.46.1 dev eth0" not in nginx_tomcat.must(*PROBE, "--no-why")
    assert "outcome: answered" in shown


def test_pods_of_one_node_meet_on_the_bridge(nginx_tomcat: Lab) -> None:
    trace = nginx_tomcat.json("trace", "client", "nginx:80")
    there = [
        ("client", "eth0", "out"),
        ("node1", "vethclient", "in"),
        ("node1", "vethnginx", "out"),
        ("nginx", "eth0", "in"),
    ]
    assert way(trace, "request") == there
    assert way(trace, "reply") == [(node, name, OTHER_WAY[direction]) for node, name, direction in reversed(there)]
    assert {hop["inner"]["ttl"] for hop in trace["hops"]} == {64}, "nobody routes it"


def test_containers_of_one_pod_meet_on_the_loopback(nginx_tomcat: Lab) -> None:
    trace = nginx_tomcat.json("trace", "nginx", "localhost:80")
    assert trace["outcome"] == "answered"
    assert {(hop["node"], hop["interface"]) for hop in trace["hops"]} == {("nginx", "lo")}
    assert [hop["direction"] for hop in trace["hops"]] == ["out", "in", "out", "in"]


def test_captured_packets_are_written_for_wireshark(nginx_tomcat: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trace.pcapng"
    trace = nginx_tomcat.json("trace", "nginx", "tomcat", "--pcap", str(file))
    seen = tshark(file, "frame.interface_name", only="icmp")
    assert len(seen) == len(trace["hops"])
    assert ["node1:uplink"] in seen
    assert tshark(file, "frame.number", only="_ws.malformed") == []


def test_header_fields_are_those_that_tshark_reads(nginx_tomcat: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trace.pcapng"
    trace = nginx_tomcat.json("trace", "nginx", "tomcat", "--raw", "--pcap", str(file))
    number = [hop["where"] for hop in trace["hops"]].index("node1 uplink")
    # The capture has the frames in the order of the hops' times; the uplink is asked for by name.
    rows = tshark(
        file,
        "frame.interface_name",
        "frame.len",
        "eth.dst",
        "ip.src",
        "ip.ttl",
        "ip.checksum",
        "udp.length",
        only='icmp.type==8 && frame.interface_name=="node1:uplink"',
    )
    frame = trace["hops"][number]["frame"]
    values: dict[str, list[str]] = {}
    for layer in frame["layers"]:
        for field in layer["fields"]:
            values.setdefault(f"{layer['name']} {field['name']}", []).append(field["value"])
    assert [layer["name"] for layer in frame["layers"]] == ["Ethernet", "IPv4", "UDP", "IPv4", "ICMP", "payload"]
    assert rows == [
        [
            "node1:uplink",
            str(frame["length"]),
            values["Ethernet destination"][0],
            ",".join(values["IPv4 source"]),
            ",".join(values["IPv4 ttl"]),
            ",".join(values["IPv4 checksum"]),
            values["UDP length"][0],
        ]
    ]


def test_bytes_are_shown_on_wish_only(nginx_tomcat: Lab, tmp_path: Path) -> None:
    shown = nginx_tomcat.must("trace", "nginx", "tomcat", "--raw")
    assert "5-8  node1 uplink out … node2 uplink in, 126 bytes" in shown
    assert "IPv4, 20 bytes: total length 84" in shown
    assert "frame" not in nginx_tomcat.json("trace", "nginx", "tomcat")["hops"][0]
    page = tmp_path / "trace.html"
    trace = nginx_tomcat.json("trace", "nginx", "tomcat", "--html", str(page))
    assert page.read_text().count('<details name="hop">') == len(trace["hops"])
    assert "frame" not in trace["hops"][0]


def test_steps_come_key_by_key_on_a_terminal(nginx_tomcat: Lab) -> None:
    with nginx_tomcat.terminal("trace", "nginx", "tomcat", "--step") as screen:
        screen.expect("route default via")
        assert "vethnginx" not in screen.seen
        screen.type(" ")
        screen.expect("the other end of nginx eth0")
        assert "own MAC address" not in screen.seen
        screen.type("  ")  # two at once are two steps
        screen.expect("own MAC address")
        screen.expect("dev flannel0")
        assert "lease 10.0.90.0/24" not in screen.seen
        screen.type("q")
        screen.expect("outcome: answered")
        assert screen.end() == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nobody", "tomcat"), 1, "no pod or node named nobody (there are: "),
        (("nginx", "nobody"), 1, "no pod, node or address nobody (there are: "),
        (("nginx", "svc/nobody:80"), 1, "no service nobody (there are: nginx"),
        (("nginx", "tomcat:0"), 2, "not a port (got '0'; want 1 to 65535)"),
        (("nginx:1", "tomcat", "--icmp"), 2, "ICMP has no ports"),
        (("nginx:80", "tomcat:8080"), 1, "source port 80: Address already in use"),
        (("nginx", "tomcat", "--step"), 2, "not on a terminal"),
        (("nginx", "tomcat", "--pcap", "/proc/no/such"), 2, "No such file"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    words: tuple[str, ...], code: int, said: str, nginx_tomcat: Lab
) -> None:
    answer = nginx_tomcat.testbed("trace", *words)
    assert answer.code == code
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_trace_leaves_nothing_behind(nginx_tomcat: Lab) -> None:
    lab_pid = "pgrep -f testbed.supervisor.lab_init | head -1"
    count = ("exec", "node1", "--", "sh", "-c", f"ls /proc/$({lab_pid})/fd | wc -l; ls /proc/$({lab_pid})/task | wc -l")
    nginx_tomcat.must(*PROBE)
    before = nginx_tomcat.must(*count).split()
    for _ in range(3):
        nginx_tomcat.must(*PROBE)

    def is_as_before() -> bool:
        after = nginx_tomcat.must(*count).split()
        return all(int(now) <= int(then) + 2 for now, then in zip(after, before, strict=True))

    wait_until(is_as_before, timeout_s=20, what=f"as many descriptors and threads as before, {before}")


def test_cluster_ip_is_translated_by_the_services_rule(nginx_tomcat: Lab) -> None:
    trace = nginx_tomcat.json("trace", "tomcat", "svc/nginx:80")
    assert trace["outcome"] == "answered"
    assert trace["hops"][0]["inner"]["dst"] == CLUSTER_IP
    whys = [hop["why"] for hop in trace["hops"]]
    rule = f"service nginx (map cluster-ips: {CLUSTER_IP} . tcp . 80): DNAT destination {CLUSTER_IP}:80 → 10.0.46.2:80"
    assert sum(rule in why for why in whys) == 1
    assert any(f"conntrack translates it back: source 10.0.46.2:80 → {CLUSTER_IP}:80" in why for why in whys)


@pytest.mark.slow
def test_cluster_ip_without_a_port_is_explained(nginx_tomcat: Lab) -> None:
    out = nginx_tomcat.testbed("trace", "client", "svc/nginx", "--timeout", "0.4", "-o", "json").json
    assert out["outcome"] != "answered"
    why = "10.96.0.80 is the cluster IP of nginx (80/TCP); only the Service's ports answer"
    assert why in out["reasons"]


@pytest.mark.slow
def test_a_hundred_traces_are_complete(nginx_tomcat: Lab) -> None:
    for number in range(100):
        again = nginx_tomcat.json(*PROBE)
        times = [hop["at_us"] for hop in again["hops"]]
        assert times == sorted(times), number
        assert way(again, "request") + way(again, "reply") == THERE + BACK, number


@pytest.mark.slow
def test_load_on_the_native_data_path_does_not_hide_the_probe(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.node("node1")["datapath"] == "native"
    with nginx_tomcat.running("iperf", "client", "tomcat", "-t", "8", "-o", "json") as load:
        for number in range(8):
            again = nginx_tomcat.json(*PROBE)
            assert way(again, "request") + way(again, "reply") == THERE + BACK, number
        out = load.communicate(timeout=30)[0]
    assert json.loads(out)["bits_per_second"] > 1e9
