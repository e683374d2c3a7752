"""A lab with an agent that reports nothing, a stand-in for a real flanneld: kernel and etcd are asked instead."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab

pytestmark = pytest.mark.slow
FLANNELD = [sys.executable, str(Path(__file__).with_name("stand_in_flanneld.py")), "--ip-masq"]


def mixed(backend: str, *flags: str) -> list[dict[str, Any]]:
    """Return node1 with our agent and node2 with the stand-in, a pod on each."""
    document = {
        "network": {"Network": "10.0.0.0/16", "SubnetLen": 24, "Backend": {"Type": backend}},
        "nodes": {"node1": {}, "node2": {"agent": {"command": [*FLANNELD, *flags]}}},
    }
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"shell{number}"},
            "spec": {"nodeName": f"node{number}", "containers": [{"name": "shell", "image": "shell"}]},
        }
        for number in (1, 2)
    ]
    return [document, *pods]


def wrong_tables(lab: LabHandle) -> tuple[str, ...]:
    """Return what `check` says of forwarding tables."""
    return lab.check().problems.get("forwarding tables", ())


@pytest.mark.row("C37")
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_up_check_status_leases_and_trace_detect_a_silent_agent(backend: str, new_lab: NewLab) -> None:
    with new_lab(mixed(backend)) as lab:
        assert lab.check().problems == {}
        assert {name: (node.peers_known, node.peers_expected) for name, node in lab.nodes.items()} == {
            "node1": (1, 1),
            "node2": (1, 1),
        }
        left = {lease["spec"]["node"]: lease["status"]["secondsLeft"] for lease in lab.get("leases")}
        assert left["node1"] <= 30
        assert 86000 < left["node2"] <= 86400
        subnet, address = lab.nodes["node1"].subnet, lab.nodes["node1"].address
        assert lab.describe("nodes", "node2")["Forwarding table"] == {subnet: address}
        for ends in (("shell1", "shell2"), ("shell2", "shell1")):
            trace = lab.trace(*ends)
            assert trace.answered, trace
            assert "no lease" not in " ".join(hop["why"] for hop in trace.answer["hops"])
        if backend == "vxlan":
            whys = [hop["why"] for hop in lab.trace("shell2", "shell1").answer["hops"]]
            assert any(f"lease {subnet} → {address}" in why for why in whys), whys


BREAKS = {
    "host-gw": [("ip route del {subnet}", "node2's kernel has no route to {subnet}")],
    "vxlan": [
        ("ip route del {subnet}", "node2's kernel has no route to {subnet}"),
        ("ip neigh del {base} dev flannel.1", "node2's kernel has no neighbour entry for {base} on flannel.1"),
        ("bridge fdb del {mac} dev flannel.1", "node2's kernel has no forwarding entry for {mac} on flannel.1"),
        (
            "bridge fdb replace {mac} dst 192.168.8.99 dev flannel.1 self permanent",
            "node2's forwarding table sends {subnet} to 192.168.8.99 instead of {address}",
        ),
    ],
}


@pytest.mark.row("C37")
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_an_intercepted_packet_is_named(backend: str, new_lab: NewLab) -> None:
    with new_lab(mixed(backend)) as lab:
        node1 = lab.nodes["node1"]
        assert node1.subnet is not None
        shown = lab.exec("node1", "ip", "-br", "link", "show", "flannel.1").stdout
        mac = shown.split()[2] if backend == "vxlan" else ""
        words = {"subnet": node1.subnet, "base": node1.subnet.split("/")[0], "mac": mac, "address": node1.address}
        for command, said in BREAKS[backend]:
            lab.exec("node2", *command.format(**words).split())
            assert wrong_tables(lab) == (said.format(**words),)
            assert not lab.trace("shell2", "shell1").answered
            lab.agent("node2").restart()
            lab.wait_until(lambda: wrong_tables(lab) == (), 10, "the agent has made it again")
            lab.wait_until(lambda: lab.ping("shell2", "shell1").received, 5, "the pods reach each other")


@pytest.mark.row("C37")
def test_up_does_not_claim_tables_that_it_has_not_seen(no_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(mixed("vxlan", "--without-routes")))
    answer = no_lab.up(str(file), "--timeout", "5")
    assert answer.code == 1
    assert "node2's kernel has no route to 10.0." in answer.out + answer.err
    assert [line for line in no_lab.testbed("get", "nodes").out.splitlines() if "node2" in line and "0/1" in line]
