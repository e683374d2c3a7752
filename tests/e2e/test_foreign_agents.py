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
README = Path(__file__).parents[2] / "README.md"
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
def test_a_missing_or_wrong_entry_in_its_kernel_is_named(backend: str, new_lab: NewLab) -> None:
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
            lab.wait_until(lambda: wrong_tables(lab) == (), 30, "the agent has made it again")
            lab.wait_until(lambda: lab.ping("shell2", "shell1").received, 30, "the pods reach each other")


@pytest.mark.row("C37")
def test_up_does_not_claim_tables_that_it_has_not_seen(no_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(mixed("vxlan", "--without-routes")))
    answer = no_lab.up(str(file), "--timeout", "5")
    assert answer.code == 1
    assert "node2's kernel has no route to 10.0." in answer.out + answer.err
    assert [line for line in no_lab.testbed("get", "nodes").out.splitlines() if "node2" in line and "0/1" in line]


@pytest.mark.row("C37")
def test_a_rolling_migration_by_up_again_keeps_subnets_and_pods(no_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    ours, theirs, both = mixed("vxlan"), mixed("vxlan"), mixed("vxlan")
    ours[0]["nodes"] = {"node1": {}, "node2": {}}
    both[0]["nodes"] = {"node1": {}, "node2": {}}
    both[0]["agent"] = {"command": FLANNELD}

    def up(documents: list[dict[str, Any]]) -> str:
        file.write_text(yaml.safe_dump_all(documents))
        answer = no_lab.up(str(file))
        assert answer.code == 0, answer
        return answer.out

    up(ours)
    lab = no_lab.handle
    subnets = {name: node.subnet for name, node in lab.nodes.items()}
    processes = {name: lab.describe("pods", name)["Pause process"] for name in ("shell1", "shell2")}
    for documents, changed in ((theirs, ["node2"]), (both, ["node1"]), (ours, ["node1", "node2"])):
        said = up(documents)
        assert [line.split()[-1] for line in said.splitlines() if "~ agent of" in line] == changed
        assert lab.check().problems == {}
        assert {name: node.subnet for name, node in lab.nodes.items()} == subnets
        assert {name: lab.describe("pods", name)["Pause process"] for name in processes} == processes
        others = {line["name"] for line in lab.status()["nodes"] if line["datapath"] == "other"}
        assert others == ({"node2"} if documents is theirs else {"node1", "node2"} if documents is both else set())
    assert "nothing to change" in up(ours)


@pytest.mark.row("C38")
@pytest.mark.parametrize("members", [1, 3])
def test_a_lab_runs_another_etcd_program(members: int, new_lab: NewLab) -> None:
    program = str(Path(__file__).with_name("other_etcd.sh"))
    document, *pods = mixed("vxlan")
    document["nodes"], document["etcd"] = {"node1": {}, "node2": {}}, {"members": members, "program": program}
    with new_lab([document, *pods]) as lab:
        assert lab.check().problems == {}
        for number in range(1, members + 1):
            assert "another etcd with" in lab.logs(f"etcd{number}")


@pytest.mark.parametrize("where", ["the file", "a running lab"])
def test_an_agent_that_the_lab_would_not_see_is_named_before_anything_is_made(
    where: str, no_lab: Lab, tmp_path: Path
) -> None:
    file, program = tmp_path / "cluster.yaml", tmp_path / "flanneld"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    documents = mixed("vxlan")
    if where == "a running lab":
        file.write_text(yaml.safe_dump({**documents[0], "nodes": ["node1", "node2"]}))
        assert no_lab.up(str(file)).code == 0
    for command, said in (
        ([str(program)], f"the lab has a /tmp of its own, without this file (got {program};"),
        ([sys.executable, str(program)], f"the lab has a /tmp of its own, without this file (got {program};"),
        (["/opt/nosuch/flanneld"], "no such program (got /opt/nosuch/flanneld;"),
        (["no-such-flanneld"], "no such program on PATH (got no-such-flanneld;"),
        ([str(README)], f"not executable (got {README};"),
    ):
        documents[0]["nodes"]["node2"] = {"agent": {"command": command}}
        file.write_text(yaml.safe_dump(documents[0]))
        answer = no_lab.up(str(file))
        assert answer.code == 3, answer
        assert f"error: nodes.node2.agent.command: {said}" in answer.err, answer.err
    if where == "the file":
        file.write_text(yaml.safe_dump({"nodes": ["a"], "etcd": {"program": str(program)}}))
        answer = no_lab.up(str(file))
        assert answer.code == 3
        assert f"error: etcd.program: the lab has a /tmp of its own, without this file (got {program};" in answer.err
        assert no_lab.testbed("status").code == 1
    else:
        assert "AgentChanged" not in no_lab.testbed("events").out


def test_up_again_with_an_agent_that_ends_says_so_and_keeps_the_lab(no_lab: Lab, tmp_path: Path) -> None:
    file, documents = tmp_path / "cluster.yaml", mixed("vxlan")
    documents[0]["nodes"] = {"node1": {}, "node2": {}}
    file.write_text(yaml.safe_dump(documents[0]))
    assert no_lab.up(str(file)).code == 0
    documents[0]["nodes"]["node2"] = {"agent": {"command": ["sh", "-c", "echo no such network; exit 7", "agent"]}}
    file.write_text(yaml.safe_dump(documents[0]))
    answer = no_lab.up(str(file))
    assert answer.code == 1
    assert "node2: not ready after" in answer.err
    assert "with its new agent: agent exited with 7: no such network" in answer.err
    documents[0]["nodes"]["node2"] = {}
    file.write_text(yaml.safe_dump(documents[0]))
    assert no_lab.up(str(file)).code == 0
    assert no_lab.handle.check().problems == {}
