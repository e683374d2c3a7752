"""Open vSwitch instead of Linux bridges: three nodes on a tree of three switches, one of whose links is slow."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.kernel.journal import FileJournal
from agent.kernel.kernel import Kernel
from testbed.lab.open_vswitch import OpenVSwitch
from tests.e2e.lab import Lab, lab_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

TREE = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: ovs}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay:
  cidr: 192.168.8.0/24
  switch: ovs
  switches: [s1, s2, s3]
  links:
    - {ends: [s1, s2], bandwidth: 10}
    - {ends: [s1, s3]}
    - {ends: [node1, s2]}
    - {ends: [node2, s2]}
    - {ends: [node3, s3]}
nodes: {node1: {}, node2: {}, node3: {}}
"""
PODS = "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod{number}}}\n"
    f"spec: {{nodeName: node{number}, containers: [{{name: c, image: shell}}]}}\n"
    for number in (1, 2, 3)
)


@pytest.fixture(scope="module")
def lab(_as_root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("ovs") / "ovs.yaml"
    file.write_text(TREE + PODS)
    with lab_of(file) as made:
        yield made


class LateServer(OpenVSwitch):
    """Its database server has no socket for half a second."""

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return super()._spawn(["sh", "-c", 'sleep 0.5; exec "$@"', "late", *command])


def test_a_database_server_that_is_slow_to_start_is_waited_for(tmp_path: Path) -> None:
    switches = LateServer(tmp_path / "ovs", tmp_path, Kernel(FileJournal(tmp_path / "journal.jsonl", "lab")))
    try:
        switches.start_database()
        assert (tmp_path / "ovs" / "db.sock").exists()
    finally:
        switches.server.stop()


def test_status_names_it(lab: Lab) -> None:
    assert "backend udp, Open vSwitch)" in lab.must("status").splitlines()[0]


def reaches(lab: Lab) -> bool:
    return lab.pings("pod1", str(lab.pod("pod3")["address"]))


def daemon(lab: Lab) -> int | None:
    """Return the process of this lab's ovs-vswitchd as the host sees it; by its socket, which no other lab has."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"ovs-vswitchd" and f"/{lab.name}/ovs/db.sock".encode() in words[1]:
            return int(process.name)
    return None


def test_all_pods_reach_each_other_and_no_bridge_of_the_kernel_is_there(lab: Lab) -> None:
    assert "6 pairs, 6 sent, 6 received, 0 lost" in lab.must("ping")
    graph = lab.json("graph")
    assert [(one["name"], one["up"]) for one in graph["switches"]] == [("s1", True), ("s2", True), ("s3", True)]
    ports = [port for one in graph["switches"] for port in one["interfaces"]]
    assert {port["master"] for port in ports} == {None}
    assert len(ports) == 9


def test_a_trace_names_the_switches_and_what_their_tables_know(lab: Lab) -> None:
    assert reaches(lab)
    said = lab.must("trace", "pod1", "pod3")
    for port in ("s2-eth1", "s3-eth2"):
        switch = port.partition("-")[0]
        # Two lines of the hop, and the reason.
        reason = rf"{switch} {port} +out .*\n.*\n +{switch}'s table: 02:00:c0:a8:08:67 is behind {port}\n"
        assert re.search(reason, said), said


def test_a_slow_link_stays_slow_because_ovs_leaves_queueing_alone(lab: Lab) -> None:
    slow = lab.json("iperf", "pod1", "pod3")["bits_per_second"]
    quick = lab.json("iperf", "pod1", "pod2")["bits_per_second"]
    assert 5e6 < slow < 11e6
    assert quick > 2 * slow


def test_a_link_that_is_taken_out_is_silent_until_it_is_plugged_in_again(lab: Lab) -> None:
    assert reaches(lab)
    lab.must("fault", "link", "down", "s1", "s3")
    wait_until(lambda: not reaches(lab), timeout_s=30, what="no way to node3")
    lab.must("fault", "heal")
    wait_until(lambda: reaches(lab), timeout_s=15, what="the way to node3 again")


def test_a_killed_daemon_is_back_with_all_ports(lab: Lab) -> None:
    assert reaches(lab)
    before = daemon(lab)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: daemon(lab) not in {None, before}, timeout_s=30, what="another ovs-vswitchd")
    wait_until(lambda: reaches(lab), timeout_s=15, what="the way to node3 again")
    assert "6 pairs, 6 sent, 6 received, 0 lost" in lab.must("ping")
    assert all(one["up"] for one in lab.json("graph")["switches"])


def test_loss_on_a_cable_is_refused_by_name(lab: Lab) -> None:
    answer = lab.testbed("fault", "link", "loss", "node1", "s2", "10")
    assert answer.code == 1
    assert "not on Open vSwitch switches (want link down, flap or rate, or switch: bridge" in answer.err


def test_a_node_comes_and_goes(lab: Lab) -> None:
    lab.must("node", "add", "node4", "--switch", "s3")
    assert lab.node("node4")["agent"]["state"] == "ready"
    lab.must("node", "delete", "node4")
    assert "6 pairs, 6 sent, 6 received, 0 lost" in lab.must("ping")
