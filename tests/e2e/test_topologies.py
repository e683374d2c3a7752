"""Clusters on every shape of underlay: all pods reach all pods, and the underlay is what it claims to be.

The same topologies are built once more by plain `mn`, as data that needs nothing of ours. It runs in namespaces of its
own with the host's /proc/sys read-only, because Mininet sets sysctls of the whole machine and kills by name.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.host.doctor import FEATURES, ScratchNamespaces
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab, lab_of, skip_without
from tests.waiting import wait_until

TOPOLOGIES = Path(__file__).parents[2] / "topologies"

LIMITED = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: limited}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay:
  cidr: 192.168.8.0/24
  switches: [s1, s2]
  links:
    - {ends: [node1, s1]}
    - {ends: [s1, s2], bandwidth: 10}
    - {ends: [node2, s2]}
nodes: {node1: {}, node2: {}}
"""
PODS = "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod{number}}}\n"
    f"spec: {{nodeName: node{number}, containers: [{{name: c, image: shell}}]}}\n"
    for number in (1, 2)
)

FAR = """\
from mininet.topo import Topo

class Far(Topo):
    def build(self):
        for name in ("s1", "s2"):
            self.addSwitch(name)
        self.addLink(self.addHost("h1"), "s1")
        self.addLink(self.addHost("h2"), "s2")
        self.addLink("s1", "s2", bw=10, delay="20ms", jitter="2ms", loss=5)
"""

PLAIN_MININET = """\
set -e
mount -t tmpfs none /mnt
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
ip link set lo up
mkdir /mnt/bin
# Where bridge-utils is not installed: as much of brctl as Mininet's LinuxBridge calls.
command -v brctl >/dev/null || cat >/mnt/bin/brctl <<'END'
#!/bin/sh
case $1 in
    addbr) ip link add "$2" type bridge ;;
    delbr) ip link delete "$2" ;;
    addif) ip link set "$3" master "$2" ;;
    stp) ip link set "$2" type bridge forward_delay 200 stp_state 1 ;;
    showstp) bridge link | grep "master $2 " ;;
esac
END
chmod +x /mnt/bin/*
cat >/mnt/before
PATH=/mnt/bin:$PATH exec mn --switch lxbr --controller none --wait --pre /mnt/before --test pingall "$@"
"""


def rows(lab: Lab) -> list[dict[str, object]]:
    """Return what `ping` of all pairs measured."""
    found: list[dict[str, object]] = lab.json("ping")
    return found


def lost(lab: Lab) -> list[tuple[object, object]]:
    """Return the pairs of pods without an answer."""
    return [(row["source"], row["destination"]) for row in rows(lab) if row["received"] != row["sent"]]


def outer_ttl(lab: Lab, machine: str, interface: str) -> int:
    """Return the outer TTL of the first tunnelled packet seen at node2 while pod1 pings pod2."""
    address = lab.pod("pod2")["address"]
    dump = ["timeout", "20", "tcpdump", "-v", "-n", "-c1", "-i", interface, "udp and dst 192.168.9.101"]
    with lab.running("exec", machine, "--", *dump) as capture:
        wait_until(
            lambda: lab.pings("pod1", address) and capture.poll() is not None,
            timeout_s=20,
            what=f"a tunnelled packet on {interface}",
        )
        text: str = capture.stdout.read().decode()
    return int(text.partition("ttl ")[2].partition(",")[0])


@pytest.fixture(scope="module")
def tree(_as_root: None) -> Iterator[Lab]:
    with lab_of("--topo", "tree,depth=2,fanout=3", "--pods-per-node", "2") as lab:
        yield lab


@pytest.fixture(scope="module")
def wan(_as_root: None) -> Iterator[Lab]:
    with lab_of("--topo", "wan,sites=2,hosts=1", "--pods-per-node", "1") as lab:
        yield lab


@pytest.fixture
def limited(_as_root: None, tmp_path: Path) -> Iterator[Lab]:
    file = tmp_path / "limited.yaml"
    file.write_text(LIMITED + PODS)
    with lab_of(file) as lab:
        yield lab


@pytest.mark.slow
def test_on_a_tree_of_nine_nodes_every_pod_reaches_every_pod(tree: Lab) -> None:
    answer = tree.testbed("ping")
    assert answer.code == 0, answer
    assert "306 pairs, 306 sent, 306 received, 0 lost" in answer.out


@pytest.mark.slow
def test_pings_of_many_pods_are_a_line_per_sender_that_fits_a_terminal(tree: Lab) -> None:
    lines = tree.must("ping").splitlines()
    assert lines[0].split() == ["FROM", "TARGETS", "REACHED", "LOST", "TTL", "FASTEST", "MEDIAN", "SLOWEST"]
    assert lines[1].split()[:5] == ["pod1", "17", "17", "0", "62,64"]
    assert max(map(len, lines[:19])) <= 80


def test_nodes_of_a_tree_are_neighbours_on_one_subnet(tree: Lab) -> None:
    assert tree.run("node9", "ip", "route", "get", "192.168.8.101").startswith("192.168.8.101 dev node9-eth0")


# wan


@pytest.mark.slow
def test_on_a_wan_the_router_takes_a_hop_of_the_outer_packet_and_none_of_the_inner(wan: Lab) -> None:
    assert {row["ttl"] for row in rows(wan)} == {62}  # two nodes forward it, as without a router
    (underlay,) = wan.json("ping", "node1", "node2")
    assert underlay["ttl"] == 63
    assert outer_ttl(wan, "node1", "node1-eth0") == 64
    assert outer_ttl(wan, "r1", "r1-eth1") == 63


@pytest.mark.slow
def test_sites_of_a_wan_are_subnets_and_neighbours_are_known_within_only(wan: Lab) -> None:
    assert [node["address"] for node in wan.json("status")["nodes"]] == ["192.168.8.101", "192.168.9.101"]
    known = wan.run("node2", "ip", "neigh", "show", "dev", "node2-eth0", "nud", "permanent").split("\n")
    assert [line.split()[0] for line in known if line] == ["192.168.9.1"]
    assert "default via 192.168.9.1 dev node2-eth0" in wan.run("node2", "ip", "route")


def test_on_a_wan_the_gateway_still_reports_that_there_is_nothing_else(wan: Lab) -> None:
    answer = wan.exec("node2", "ping", "-c1", "-W1", "203.0.113.1")
    assert "From 192.168.8.10" in answer.out
    assert "Net Unreachable" in answer.out


def test_on_a_wan_the_router_reports_each_packet_whose_time_to_live_is_over(wan: Lab) -> None:
    answer = wan.exec("node1", "ping", "-c12", "-W1", "-i0.1", "-t1", "192.168.9.101")
    assert answer.out.count("From 192.168.8.1 ") == 12
    assert answer.out.count("Time to live exceeded") == 12


# leaf_spine


@pytest.mark.slow
def test_on_leaf_spine_every_pod_reaches_every_pod_and_a_broken_uplink_is_replaced() -> None:
    with lab_of("--topo", "leaf_spine,spines=2,leaves=2,hosts=1", "--pods-per-node", "1") as lab:
        assert lost(lab) == []
        with lab.terminal("cli") as prompt:
            prompt.expect("testbed> ")
            prompt.type("link spine1 leaf2 down\r")
            prompt.expect("testbed> ")
            prompt.type("exit\r")
            assert prompt.end() == 0
        assert lost(lab) != []
        wait_until(lambda: not lost(lab), timeout_s=20, what="spine2 carries what spine1 did")


# Links


@pytest.mark.slow
def test_a_link_of_10_mbit_s_carries_as_much(limited: Lab) -> None:
    measured = limited.json("iperf", "pod1", "pod2", "-t", "3")
    assert 7e6 <= measured["bits_per_second"] <= 11e6
    commands = (Path("/run/testbed") / limited.name / "journal.jsonl").read_text()
    assert '"tc", "qdisc", "replace", "dev", "s1-eth2", "root", "handle", "1:", "tbf", "rate", "10mbit"' in commands


@pytest.mark.parametrize("how", ["in the file", "by Mininet's TCLink"])
def test_a_link_delays_and_loses_as_much_as_configured(how: str, tmp_path: Path) -> None:
    skip_without("netem")
    if how == "in the file":
        file = tmp_path / "far.yaml"
        file.write_text(LIMITED.replace("bandwidth: 10", "bandwidth: 10, delay: 20ms, jitter: 2ms, loss: 5") + PODS)
        words = [str(file)]
    else:
        (tmp_path / "far.py").write_text(FAR)
        words = ["--topo", f"{tmp_path}/far.py:Far", "--pods-per-node", "1"]
    with lab_of(*words) as lab:
        near, far = lab.json("status")["pods"]
        answer = lab.exec(near["name"], "ping", "-q", "-c200", "-i0.05", "-W1", far["address"]).out
        (received,) = re.findall(r"(\d+) received", answer)
        assert 120 <= int(received) < 200, "of 200 both ways 90 % come through"
        least, most = re.findall(r"rtt min/avg/max/mdev = ([\d.]+)/[\d.]+/([\d.]+)/", answer)[0]
        assert float(least) >= 36, "20 ms each way, less twice 2 ms"
        assert float(most) > float(least) + 1, "the jitter"


def test_a_delay_where_the_kernel_has_no_netem_is_refused_before_anything_is_made(no_lab: Lab, tmp_path: Path) -> None:
    netem = next(feature for feature in FEATURES if feature.name == "netem")
    with ScratchNamespaces() as scratch:
        if not scratch.attempt(netem.command, netem.stdin):
            pytest.skip("this kernel has netem")
    file = tmp_path / "slow.yaml"
    file.write_text(LIMITED.replace("bandwidth: 10", "delay: 10ms, loss: 1"))
    answer = no_lab.up(str(file))
    assert answer.code == 3
    assert answer.err.startswith("error: environment: kernel: netem (got ")
    assert "want a kernel with netem, for delay, loss of s1 - s2: " in answer.err
    assert not (Path("/run/testbed") / no_lab.name).exists()


def test_a_topology_that_the_machine_cannot_hold_is_refused_with_the_limit(no_lab: Lab) -> None:
    answer = no_lab.up("--topo", "tree,depth=9,fanout=9")
    assert answer.code == 3
    assert "more nodes than this machine holds (got more than 5000" in answer.err
    assert len(answer.err.splitlines()) == 1


def test_topologies_are_listed_with_their_parameters() -> None:
    found = {row["name"]: row for row in run_verb("topologies", "-o", "json").json["topologies"]}
    assert {one["name"]: one["default"] for one in found["tree"]["parameters"]} == {"depth": 2, "fanout": 2}
    assert "spines=2,leaves=2,hosts=2" in run_verb("topologies").out


# Plain Mininet


@pytest.mark.parametrize(
    ("name", "parameters", "before"),
    [
        ("tree", "depth=2,fanout=3", ""),
        pytest.param("leaf_spine", "spines=2,leaves=2,hosts=1", "", marks=pytest.mark.slow),
        ("wan", "sites=2,hosts=1", "r1 umount /proc/sys; sysctl -w net.ipv4.ip_forward=1\n"),
    ],
)
def test_plain_mininet_builds_the_same_topology(name: str, parameters: str, before: str) -> None:
    if shutil.which("mn") is None:
        pytest.skip("mn is not installed (Debian package mininet)")
    custom = ["--custom", str(TOPOLOGIES / f"{name}.py"), "--topo", f"{name},{parameters}"]
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*namespaces, "sh", "-c", PLAIN_MININET, "mn", *custom],
        input=before,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd="/",
    )
    assert "Results: 0% dropped" in done.stdout + done.stderr, done.stdout + done.stderr
