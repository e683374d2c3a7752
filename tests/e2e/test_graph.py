"""`testbed graph`: what a running lab looks like, in every form."""

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.e2e.command import ELSEWHERE, TESTBED, environment_with
from tests.e2e.lab import Lab
from tests.waiting import wait_until

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_graph_shows_the_lab_as_it_is(nginx_tomcat: Lab) -> None:
    picture = ElementTree.fromstring(nginx_tomcat.must("graph"))
    assert {one.get("data-node") for one in picture.findall(".//*[@data-node]")} == {"node1", "node2"}
    assert {one.get("data-pod") for one in picture.findall(".//*[@data-pod]")} == {"nginx", "client", "tomcat"}
    words = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"192.168.8.227", "10.0.46.0/24", "10.0.46.1/24", "10.0.90.2", "s1-eth2", "TUN mtu 1472"} <= words
    assert not [one for one in picture.iter() if "down" in (one.get("class") or "") and one.get("data-link")]


@pytest.mark.parametrize(
    ("name", "begins"), [("lab.svg", b"<svg"), ("lab.png", PNG_SIGNATURE), ("lab.dot", b"graph "), ("lab.mmd", b"flow")]
)
def test_graph_takes_the_form_from_the_files_name(name: str, begins: bytes, nginx_tomcat: Lab, tmp_path: Path) -> None:
    assert nginx_tomcat.must("graph", "-w", str(tmp_path / name)).startswith(f"wrote {tmp_path / name}: lab ")
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_graph_writes_a_png_into_a_pipe(nginx_tomcat: Lab) -> None:
    done = subprocess.run(
        [*TESTBED, "graph", "-o", "png"],
        capture_output=True,
        check=True,
        cwd=ELSEWHERE,
        env=environment_with(nginx_tomcat.environment),
    )
    assert done.stdout.startswith(PNG_SIGNATURE)


def test_graph_without_a_converter_says_what_is_missing(nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("graph", "-o", "png", prefix=("/usr/bin/env", "PATH=/nowhere"))
    assert (answer.code, answer.out) == (3, "")
    assert answer.err == (
        "error: environment: rsvg-convert (got none on PATH; want the program: apt install librsvg2-bin; "
        "or -o svg, which needs nothing)\n"
    )


def test_graph_refuses_a_name_without_a_format_and_an_unwritable_place(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.testbed("graph", "-w", "picture.jpeg").code == 2
    answer = nginx_tomcat.testbed("graph", "-w", "/nowhere/lab.svg")
    assert (answer.code, answer.err.count("\n")) == (1, 1)


def test_the_page_draws_documented_data_with_counters(nginx_tomcat: Lab) -> None:
    facts = nginx_tomcat.json("graph")
    assert set(facts) == {
        "lab",
        "state",
        "at",
        "network",
        "port",
        "machines",
        "switches",
        "cables",
        "nodes",
        "pods",
        "services",
        "faults",
    }
    assert [(one["name"], one["kind"]) for one in facts["machines"]] == [
        ("node1", "node"),
        ("node2", "node"),
        ("etcd1", "etcd"),
        ("gw", "gateway"),
    ]
    assert facts["cables"][0]["ends"] == [
        {"machine": "node1", "interface": "node1-eth0"},
        {"machine": "s1", "interface": "s1-eth1"},
    ]
    node = facts["nodes"][0]
    assert node["overlay"] == {"name": "flannel0", "kind": "tun", "address": "10.0.46.0/32", "mtu": 1472, "up": True}
    assert (node["bridge"]["address"], node["bridge"]["mtu"]) == ("10.0.46.1/24", 1472)
    assert node["forwarding"] == [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:8285"}]
    assert [pod["host_end"] for pod in facts["pods"]] == ["vethnginx", "vethclient", "vethtomcat"]


@pytest.mark.slow
def test_counters_of_every_interface_on_the_way_grow(nginx_tomcat: Lab) -> None:
    def packets() -> dict[str, int]:
        facts = nginx_tomcat.json("graph")
        places = [*facts["machines"], *facts["switches"]]
        names = [(place["name"], link) for place in places for link in place["interfaces"]]
        return {f"{place}/{link['name']}": link["rx_packets"] + link["tx_packets"] for place, link in names}

    before = packets()
    nginx_tomcat.run("client", "ping", "-c5", "-i0.05", "10.0.90.2")
    way = ["node1/vethclient", "node1/docker0", "node1/flannel0", "node1/node1-eth0", "s1/s1-eth1", "node2/vethtomcat"]
    wait_until(
        lambda: all(packets()[place] >= before[place] + 10 for place in way),
        timeout_s=5,
        what="10 packets at each place",
    )


@pytest.mark.slow
def test_graph_shows_an_unplugged_cable_and_a_killed_agent(own_lab: Lab) -> None:
    own_lab.must("fault", "link", "down", "node1", "s1")
    picture = own_lab.must("graph")
    assert 'class="wire cable down"' in picture
    own_lab.must("fault", "agent", "stop", "node2")
    wait_until(lambda: "node state-bad" in own_lab.must("graph"), timeout_s=10, what="node2 drawn as bad")
    own_lab.must("fault", "heal")
    wait_until(
        lambda: not any(word in own_lab.must("graph") for word in ("node state-bad", "node state-busy", "cable down")),
        timeout_s=30,
        what="all well again",
    )


def test_trace_draws_its_path_on_the_picture(nginx_tomcat: Lab, tmp_path: Path) -> None:
    hops = nginx_tomcat.json("trace", "nginx:2379", "tomcat:8080", "--svg", str(tmp_path / "way.svg"))["hops"]
    picture = ElementTree.parse(tmp_path / "way.svg").getroot()
    assert [one.get("data-step") for one in picture.findall(".//*[@class='step']")] == [
        str(hop["number"]) for hop in hops
    ]
    assert [one.get("data-leg") for one in picture.findall(".//*[@data-leg]")] == ["request", "reply"]
    assert [one.get("data-stacks") for one in picture.findall(".//*[@data-stacks]")] == ["request", "reply"]
