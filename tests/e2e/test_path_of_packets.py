"""What a pod sees of the way to another, and what is on the wire between the nodes."""

import signal
from pathlib import Path

import pytest

from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.path_mtu import send_unfragmented
from tests.pcap import REAL_FLANNELD, ip_packets, udp_datagrams
from tests.waiting import wait_until

PORT = 8285
TOMCAT = "10.0.90.2"
NOBODY = "10.0.77.5"
ICMP = 1


def test_only_two_kernels_count_the_ttl_down(nginx_tomcat: Lab) -> None:
    assert "ttl=62" in nginx_tomcat.run("client", "ping", "-c1", "-W2", TOMCAT)


@pytest.mark.row("C20")
def test_largest_packet_passes_unfragmented(nginx_tomcat: Lab) -> None:
    assert "1 received" in nginx_tomcat.run("client", "ping", "-c1", "-W2", "-M", "do", "-s", "1444", TOMCAT)


@pytest.mark.row("C20")
def test_one_byte_more_is_answered_with_the_mtu(nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.exec("client", "ping", "-c1", "-W2", "-M", "do", "-s", "1445", TOMCAT)
    assert answer.code == 1
    assert "essage too long" in answer.out + answer.err
    assert nginx_tomcat.run("client", *send_unfragmented(TOMCAT, 1445)) == "EMSGSIZE 1472\n"


def test_packet_that_may_be_fragmented_arrives_complete(nginx_tomcat: Lab) -> None:
    assert "3008 bytes from" in nginx_tomcat.run("client", "ping", "-c1", "-W2", "-s", "3000", TOMCAT)


@pytest.mark.parametrize("source", ["client", "tomcat"])
def test_address_of_no_node_is_answered_at_once(source: str, nginx_tomcat: Lab) -> None:
    """-W1 bounds the wait: only an answer to the packet itself is counted as an error by ping."""
    answer = nginx_tomcat.exec(source, "ping", "-c1", "-W1", NOBODY)
    assert answer.code == 1
    assert "Destination Net Unreachable" in answer.out
    assert "+1 errors" in answer.out


def test_address_outside_of_the_lab_is_answered_at_once(nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.exec("client", "ping", "-c1", "-W1", "192.0.2.1")
    assert answer.code == 1
    assert "Net Unreachable" in answer.out


@pytest.mark.parametrize("address", ["192.0.2.1", "10.96.200.200"])
@pytest.mark.parametrize("source", ["client", "node1"])
def test_everything_outside_is_answered_each_time(source: str, address: str, nginx_tomcat: Lab) -> None:
    """The kernel would answer three of these and then once a second at most."""
    answer = nginx_tomcat.exec(source, "ping", "-c12", "-W1", "-i0.1", address)
    assert "+12 errors" in answer.out
    assert answer.out.count("Destination Net Unreachable") == 12
    for _ in range(3):
        answer = nginx_tomcat.exec(source, "curl", "-sS", "-m5", f"http://{address}/")
        assert answer.code == 7, answer.err  # "could not connect"; 28 is a time-out


@pytest.mark.parametrize("cluster", ["nginx_tomcat", "two_nodes"])
def test_every_pod_reaches_every_pod(cluster: str, request: pytest.FixtureRequest) -> None:
    lab: Lab = request.getfixturevalue(cluster)
    pods = [pod["name"] for pod in lab.json("status")["pods"]]
    results = lab.json("ping")
    assert {(result["source"], result["destination"]) for result in results} == {
        (source, destination) for source in pods for destination in pods if source != destination
    }
    assert [result for result in results if result["received"] != result["sent"]] == []
    pairs = len(results)
    assert f"{pairs} pairs, {pairs} sent, {pairs} received, 0 lost" in lab.must("ping")


def test_ping_of_a_pair_that_is_not_reached_fails(nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("ping", "client", NOBODY)
    assert answer.code == 1
    assert "1 lost" in answer.out


def test_node_reaches_pods_on_the_other_node(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.pings("node1", TOMCAT)


@pytest.mark.parametrize("how", [(), ("-u",)], ids=["tcp", "udp"])
def test_iperf_carries_data_between_nodes(how: tuple[str, ...], two_nodes: Lab) -> None:
    answer = two_nodes.json("iperf", "shell1", "shell2", "-t", "1", *how)
    assert answer["protocol"] == ("udp" if how else "tcp")
    assert answer["bits_per_second"] > 1e6


def test_outer_frames_are_those_of_the_real_flanneld_and_carry_the_inner_packet(
    nginx_tomcat: Lab, tmp_path: Path
) -> None:
    """Six packets: three requests and their answers, on the TUN and on the uplink of node1 at the same time."""
    count = ("-c", "6")
    inner = (*count, "-i", "flannel0", "icmp")
    outer = (*count, "-i", "node1-eth0", f"udp port {PORT}")
    files = {name: tmp_path / f"{name}.pcap" for name in ("inner", "outer")}
    with files["inner"].open("wb") as inner_file, files["outer"].open("wb") as outer_file:
        tcpdump = ("exec", "node1", "--", "tcpdump", "-n", "-U", "-w", "-")
        with (
            nginx_tomcat.running(*tcpdump, *inner, stdout=inner_file) as on_tun,
            nginx_tomcat.running(*tcpdump, *outer, stdout=outer_file) as on_uplink,
        ):
            for capture in (on_tun, on_uplink):
                read_until(capture.stderr, "listening on")
            nginx_tomcat.run("client", "ping", "-c3", "-i0.2", "-W2", TOMCAT)
            assert (on_tun.wait(30), on_uplink.wait(30)) == (0, 0)
    ours, real = (udp_datagrams(path, PORT) for path in (files["outer"], REAL_FLANNELD / "udp-backend-outer.pcap"))
    assert [datagram.payload for datagram in ours] == ip_packets(files["inner"])
    assert [(one.source, one.destination, len(one.payload)) for one in ours] == [
        (one.source, one.destination, len(one.payload)) for one in real[:6]
    ]
    assert {datagram.payload[9] for datagram in ours} == {ICMP}


def test_capture_ends_with_the_command_that_started_it(nginx_tomcat: Lab) -> None:
    with nginx_tomcat.running("exec", "node1", "--", "tcpdump", "-n", "-i", "docker0", "-w", "-") as capture:
        read_until(capture.stderr, "listening on docker0")
        assert nginx_tomcat.exec("node1", "pgrep", "-f", "tcpdump .*docker0").code == 0
        capture.send_signal(signal.SIGKILL)
        capture.wait(10)
    wait_until(
        lambda: nginx_tomcat.exec("node1", "pgrep", "-f", "tcpdump .*docker0").code == 1,
        timeout_s=20,
        what="tcpdump has ended on the node",
    )
