"""Captures of a running lab, read by an independent program (tshark)."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.tshark import tshark
from tests.waiting import wait_until

LOAD_PACKETS = "8000"
"""Enough to tell, and not more than tshark reads in a second or two."""
WIRE = 1514
"""Bytes of a frame on a wire: MTU 1500 and the Ethernet header."""


def captured(lab: Lab, file: Path, *words: str, load: tuple[str, ...]) -> Path:
    """Return what was caught while a verb ran."""
    with lab.running("capture", *words, "-w", str(file)) as capture:
        read_until(capture.stderr, "capturing on")
        lab.must(*load)
        capture.send_signal(2)
        assert capture.wait(60) == 0
    return file


@pytest.fixture(scope="module")
def under_load(nginx_tomcat: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("capture") / "load.pcapng"
    return captured(
        nginx_tomcat, file, "node1", "node2", "s1", "-c", LOAD_PACKETS, load=("iperf", "client", "tomcat", "-t", "1")
    )


def test_whole_lab_is_one_timeline_with_names(nginx_tomcat: Lab, tmp_path: Path) -> None:
    file = captured(nginx_tomcat, tmp_path / "all.pcapng", "all", "icmp", load=("ping", "nginx", "tomcat"))
    assert tshark(file, "frame.number", only="_ws.malformed") == []
    seen = tshark(file, "frame.interface_name", "frame.time_epoch")
    expected = "nginx:eth0 node1:vethnginx node1:docker0 node1:flannel0 node2:flannel0 node2:docker0 tomcat:eth0"
    assert set(expected.split()) <= {name for name, _ in seen}
    times = [float(at) for _, at in seen]
    assert times == sorted(times)


def test_inner_packets_are_decoded(nginx_tomcat: Lab, tmp_path: Path) -> None:
    load = ("ping", "nginx", "tomcat")
    file = captured(nginx_tomcat, tmp_path / "outer.pcapng", "node1:uplink", "udp port 8285", load=load)
    found = tshark(file, "frame.interface_name", "ip.src", "icmp.type", only="icmp")
    assert found == [
        ["node1:uplink", "192.168.8.227,10.0.46.2", "8"],
        ["node1:uplink", "192.168.8.228,10.0.90.2", "0"],
    ]


@pytest.mark.slow
def test_under_load_every_outer_datagram_holds_exactly_one_inner_packet(under_load: Path) -> None:
    lengths = [line[0].split(",") for line in tshark(under_load, "ip.len", only="udp.port==8285")]
    assert len(lengths) > 1000, "the load did not come by"
    assert Counter(len(one) for one in lengths) == {2: len(lengths)}
    assert {int(outer) - int(inner) for outer, inner in lengths} == {28}


@pytest.mark.slow
def test_under_load_nothing_is_malformed_too_long_or_with_a_wrong_checksum(under_load: Path) -> None:
    wrong = "||".join(f"{protocol}.checksum.status==0" for protocol in ("ip", "tcp", "udp"))
    assert tshark(under_load, "frame.number", only=f"_ws.malformed||frame.len>{WIRE}||{wrong}") == []


@pytest.mark.slow
def test_raw_keeps_super_packets(nginx_tomcat: Lab, tmp_path: Path) -> None:
    load = ("iperf", "client", "tomcat", "-t", "1")
    file = captured(nginx_tomcat, tmp_path / "raw.pcapng", "node1:docker0", "--raw", load=load)
    assert tshark(file, "frame.number", only=f"frame.len>{WIRE}") != []


def test_lines_name_point_packet_and_what_is_around_it(nginx_tomcat: Lab) -> None:
    with nginx_tomcat.running("capture", "node1:uplink", "-c", "2", "udp", "port", "8285") as capture:
        read_until(capture.stderr, "capturing on")
        nginx_tomcat.must("ping", "nginx", "tomcat")
        text = capture.communicate(timeout=60)[0].decode()
    assert "node1:uplink       out 10.0.46.2 > 10.0.90.2 icmp echo request" in text
    assert "[192.168.8.227:8285 > 192.168.8.228:8285]" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "no such point (got nosuch"),
        (("all:eth0",), "all takes no interface"),
        (("s1:s9-eth1",), "has no such port (there are: s1"),
        (("node1", "udp prt 3"), "syntax error"),
        (("node1", "-w", "/proc/no/such"), "No such file"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(words: tuple[str, ...], said: str, nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("capture", *words, "-c", "1")
    assert answer.code in (1, 2)
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_file_is_replaced_only_by_a_capture_that_begins(nginx_tomcat: Lab, tmp_path: Path) -> None:
    file, earlier = tmp_path / "kept.pcapng", b"an earlier capture" * 10_000
    file.write_bytes(earlier)
    for words in (("nosuch",), ("node1", "udp prt 3")):
        assert nginx_tomcat.testbed("capture", *words, "-c", "1", "-w", str(file)).code in (1, 2)
        assert file.read_bytes() == earlier
    captured(nginx_tomcat, file, "node1:uplink", "-c", "1", load=("ping", "nginx", "tomcat"))
    assert tshark(file, "frame.interface_name") == [["node1:uplink"]]
    assert file.stat().st_size < len(earlier)


def test_a_filter_on_inner_ports_reports_where_it_finds_nothing_and_a_remedy(nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("capture", "all", "tcp", "port", "8080", "--seconds", "0.2")
    assert answer.code == 0
    (note,) = [line for line in answer.err.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: s1, node1:uplink, node2:uplink see packets between nodes only inside UDP port 8285")
    assert "-d udp.port==8285,ip" in note
    assert "note: " not in nginx_tomcat.testbed("capture", "nginx", "tcp", "port", "8080", "--seconds", "0.2").err


def test_an_interface_that_is_missing_is_reported_and_captured_when_it_comes(nginx_tomcat: Lab) -> None:
    make = "ip link add later0 type veth peer later1; ip link set later1 up; ip link set later0 up"
    with nginx_tomcat.running("capture", "node1:later0", "node1:eth9", "-c", "1") as capture:
        text = read_until(capture.stderr, "capturing on 0 interfaces")
        there = r"\(there are: docker0, flannel0, .*\); it is captured when it appears"
        assert re.search(rf"warning: node1 has no interface eth9 {there}", text)
        assert re.search(rf"warning: node1 has no interface later0 {there}", text)
        nginx_tomcat.must("exec", "node1", "--", "sh", "-c", f"{make}; ping -c1 -W1 -I later0 10.77.0.9; true")
        said = capture.communicate(timeout=60)[0].decode()
    nginx_tomcat.must("exec", "node1", "--", "ip", "link", "delete", "later0")
    assert "node1:later0" in said


def test_capture_ends_with_its_client_and_leaves_no_process(nginx_tomcat: Lab) -> None:
    with nginx_tomcat.running("capture", "all", "-w", "/dev/null") as capture:
        read_until(capture.stderr, "capturing on")
        assert nginx_tomcat.exec("node1", "pgrep", "-f", "testbed.capture.recorder").code == 0
        capture.kill()
        capture.wait(10)
    wait_until(
        lambda: nginx_tomcat.exec("node1", "pgrep", "-f", "testbed.capture.recorder").code == 1,
        timeout_s=20,
        what="the recorder has ended",
    )
