"""The processes that hold machines' namespaces, killed one and all: nothing of a machine goes with them.

`mn -c`, which people who have Mininet type daily, kills by name. These tests kill by number, whatever the name is, and
run the real `mn -c` inside a lab, where it sees what it would see of that lab on the host.
"""

import json
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.control.questions import FAULT, NODE
from testbed.pytest_plugin import NewLab
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.lab_handle import LabHandle
from tests.e2e import host
from tests.e2e.lab import Lab
from tests.waiting import wait_until

NODES = ("node1", "node2")
MACHINES = (*NODES, "r1", "etcd1", "gw")
NOTICED_WITHIN_S = 30.0
READY_WITHIN_S = 30.0
CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: holders}
network:  {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: wan, parameters: {sites: 2, hosts: 1}, cidr: 192.168.8.0/24}
nodes: {node1: {}, node2: {}}
""" + "".join(
    f"""\
---
apiVersion: v1
kind: Pod
metadata: {{name: shell{number}}}
spec:
  nodeName: node{number}
  containers: [{{name: shell, image: shell, volumeMounts: [{{name: of-node, mountPath: /of-node}}]}}]
  volumes: [{{name: of-node, hostPath: {{path: /run/flannel}}}}]
"""
    for number in (1, 2)
)


@pytest.fixture(scope="module")
def module_lab(_as_root: None, new_lab: NewLab) -> Iterator[LabHandle]:
    with new_lab(CLUSTER) as handle:
        yield handle


@pytest.fixture
def lab(module_lab: LabHandle) -> LabHandle:
    module_lab.wait_ready()
    return module_lab


def holders(lab: LabHandle) -> Mapping[str, int]:
    """Return, by machine, the process that holds its namespaces, seen from the host: the pause in its network."""
    listed = lab.script("stat --dereference --format '%n %i' /run/netns/*").check().splitlines()
    machines = {f"net:[{inode}]": Path(path).name for path, inode in map(str.split, listed)}
    found = {}
    for pid, _ in host.footprint(lab.record.pid).processes:
        try:
            name = machines.get(os.readlink(f"/proc/{pid}/ns/net"), "")
            command = Path(f"/proc/{pid}/comm").read_text()
        except OSError:
            continue  # a short-lived process of the lab, a probe or an ip, that has ended since it was listed
        if name in MACHINES and command == "pause\n":
            found[name] = pid
    return found


def kill_holders(lab: LabHandle, names: Collection[str] = MACHINES) -> None:
    """Kill each with SIGKILL; return once the lab has reported it and every machine has a holder again."""
    before = {one["name"]: one["restarts"] for one in lab.status()["machines"]}
    found = holders(lab)
    assert set(found) == set(MACHINES), "every machine is held by a process"
    events = len(lab.events())
    for name in names:
        os.kill(found[name], signal.SIGKILL)

    def noticed() -> bool:
        now = {one["name"]: one for one in lab.status()["machines"]}
        return all(now[name]["pid"] and now[name]["restarts"] == before[name] + 1 for name in names)

    wait_until(noticed, timeout_s=NOTICED_WITHIN_S, what="status says that every machine is held again")
    subjects = [f"node/{name}" if name in NODES else f"machine/{name}" for name in names]
    wanted = {(subject, reason) for subject in subjects for reason in ("HolderEnded", "HolderStarted")}
    wait_until(
        lambda: wanted <= {(event["object"], event["reason"]) for event in lab.events()[events:]},
        timeout_s=NOTICED_WITHIN_S,
        what=f"events {wanted}",
    )


def pings_all_arrive(lab: LabHandle) -> None:
    assert not [ping for ping in lab.ping_all() if ping.lost]


def restarts(lab: LabHandle) -> dict[str, Any]:
    """Return the restarts of agents and pods."""
    status = lab.status()
    agents = {node["name"]: node["agent"]["restarts"] for node in status["nodes"]}
    return agents | {pod["name"]: pod["restarts"] for pod in status["pods"]}


@pytest.mark.row("F48")
def test_all_holders_killed_at_once_cost_no_packet_and_restart_nothing_else(lab: LabHandle) -> None:
    before = restarts(lab)
    with Heartbeats(lab) as heartbeats:
        began = heartbeats.wait_steady(10)
        kill_holders(lab)
        lab.wait_ready(READY_WITHIN_S)
        heartbeats.wait_steady(READY_WITHIN_S)
        with heartbeats.locked():
            assert not heartbeats.record.lost(began, heartbeats.record.newest)
    pings_all_arrive(lab)
    assert restarts(lab) == before


def test_a_holder_that_is_killed_again_and_again_comes_back_each_time(lab: LabHandle) -> None:
    for _ in range(5):
        kill_holders(lab, ["node1"])
    lab.wait_ready(READY_WITHIN_S)
    pings_all_arrive(lab)


def test_every_verb_that_enters_a_machine_works_after_its_holder_was_killed(lab: LabHandle) -> None:
    kill_holders(lab)
    assert "node1-eth0" in lab.exec("node1", "ip", "-brief", "link").check()
    assert "etcd1-eth0" in lab.exec("etcd1", "ip", "-brief", "link").check()
    assert lab.etcdctl("get", "--prefix", "--keys-only", "/coreos.com/network/subnets").check()
    assert lab.exec("shell1", "getent", "hosts", "kubernetes").exit_code == 2, (
        "the DNS answers that there is no such name"
    )
    assert lab.ping("node1", "shell2").lost == 0
    described = lab.describe("nodes", "node1")["nsenter"]["pid"]
    assert described == {one["name"]: one["pid"] for one in lab.status()["machines"]}["node1"]
    for name in NODES:
        lab.agent(name).restart()
    lab.wait_ready(READY_WITHIN_S)
    pings_all_arrive(lab)


def test_processes_killed_later_come_back_on_a_machine_whose_holder_was_killed(lab: LabHandle) -> None:
    kill_holders(lab)
    before = restarts(lab)
    for name in NODES:
        lab.agent(name).kill()
    lab.exec("etcd1", "pkill", "-9", "-x", "etcd").check()
    lab.exec("gw", "pkill", "-9", "-x", "knotd").check()
    (container,) = lab.get("pods", "shell1")[0]["testbed"]["pids"].values()
    lab.exec("node1", "kill", "-9", str(container)).check()
    lab.ask(FAULT, {"words": ["pod", "kill", "shell2"]})
    wait_until(
        lambda: all(restarts(lab)[name] > before[name] for name in before), timeout_s=30, what="all are started again"
    )
    lab.wait_ready(40)
    pings_all_arrive(lab)
    for pod in ("shell1", "shell2"):
        assert "FLANNEL_SUBNET" in lab.exec(pod, "cat", "/of-node/subnet.env").check(), "a hostPath of its own node"


def test_nodes_lose_power_come_and_go_after_their_holders_were_killed(lab: LabHandle) -> None:
    kill_holders(lab)
    with lab.fault("node crash node1"):
        pass
    lab.wait_ready(40)
    lab.ask(NODE, {"action": "add", "name": "node3", "switch": "s1"}, timeout_s=60)
    assert {one["name"] for one in lab.status()["machines"]} == {*MACHINES, "node3"}
    lab.ask(NODE, {"action": "delete", "name": "node3", "limit_s": 5.0}, timeout_s=60)
    assert {one["name"] for one in lab.status()["machines"]} == set(MACHINES)
    lab.wait_ready()
    pings_all_arrive(lab)


def test_the_real_mn_c_finds_nothing_of_a_lab(lab: LabHandle) -> None:
    """With a network of its own, as the host's has nothing of the lab; processes and files are the lab's."""
    before, running = holders(lab), restarts(lab)
    events = len(lab.events())
    bait = "bash -c 'exec -a mininet:bait sleep 3006' & until pgrep -f mininet:bait; do :; done"
    cleanup = f"{sys.executable} -c 'from mininet.clean import cleanup; cleanup()'"
    said = lab.script(f"{bait}; unshare --net {cleanup}; pgrep -x sleep -a", timeout_s=90)
    assert said.stdout.split()
    assert "3006" not in said.stdout, "it finds what has such a name"
    assert holders(lab) == before
    assert restarts(lab) == running
    assert lab.events()[events:] == []
    assert lab.status()["state"] == "ready"
    pings_all_arrive(lab)


def test_no_process_of_a_lab_has_a_name_that_mn_c_looks_for(lab: LabHandle) -> None:
    Lab(lab.name).testbed("exec", "node1", "--", "true")
    for pid, _ in host.footprint(lab.record.pid).processes:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended since it was listed
        assert not any(name in line for name in (b"mininet:", b"Tunnel=Ethernet", b".ssh/mn", b"sudo mnexec")), line


def test_status_shows_that_a_machine_was_held_again(lab: LabHandle) -> None:
    kill_holders(lab, ["gw"])
    said = Lab(lab.name).must("status")
    assert "machines: " in said
    assert "gw" in next(line for line in said.splitlines() if line.startswith("machines: "))
    assert json.loads(Lab(lab.name).must("status", "-o", "json"))["state"] == "ready"
