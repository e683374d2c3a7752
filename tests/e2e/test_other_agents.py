"""The developer's loop: an agent run by hand, our agent as its code is now, and somebody else's agent on the nodes."""

import re
import shlex
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.command import Answer, running
from tests.e2e.lab import Lab

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_agent.py")), "--ip-masq"]
OTHER = {"command": STAND_IN}
TLS_FLAGS = ["--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"]
FLANNELS_FLAGS = ["--ip-masq", "--etcd-endpoints", "--iface", "--subnet-file", *TLS_FLAGS]
"""What another agent is given: its own, and these of the lab's."""


def cluster(**node_agents: dict[str, Any]) -> list[dict[str, Any]]:
    """Return node1 and node2 with a shell and an echo pod each, and the given agents."""
    nodes = {name: {"agent": node_agents[name]} if name in node_agents else {} for name in ("node1", "node2")}
    document = {
        "apiVersion": "testbed/v1",
        "kind": "Cluster",
        "metadata": {"name": "others"},
        "network": {"Network": "10.0.0.0/16", "SubnetLen": 24, "Backend": {"Type": "udp"}},
        "underlay": {"cidr": "192.168.8.0/24"},
        "nodes": nodes,
    }
    return [document, *(pod(image, number) for number in (1, 2) for image in ("echo", "shell"))]


def pod(image: str, number: int) -> dict[str, Any]:
    container: dict[str, Any] = {"name": image, "image": image}
    if image == "echo":
        container["ports"] = [{"containerPort": 8080}]
    spec = {"nodeName": f"node{number}", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{image}{number}"}, "spec": spec}


def reachable(lab: LabHandle) -> None:
    """Check that every pod reaches every other, by ping and by HTTP."""
    assert [pair for pair in lab.ping_all() if pair.lost] == []
    assert len(lab.ping_all()) == 12
    for name in ("echo1", "echo2"):
        assert lab.curl("shell1", f"http://{lab.pods[name].address}:8080/hostname").body == f"{name}\n"


def flags_in(line: str) -> list[str]:
    """Return the flags in the line that the stand-in writes first."""
    return [word.partition("=")[0] for word in shlex.split(line) if word.startswith("--")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "others",
    [pytest.param(("node1", "node2"), id="alone", marks=pytest.mark.slow), pytest.param(("node2",), id="mixed")],
)
def test_another_agent_that_takes_flannels_flags_serves_the_lab(others: tuple[str, ...], new_lab: NewLab) -> None:
    with new_lab(cluster(**dict.fromkeys(others, OTHER))) as lab:
        reachable(lab)
        for name, node in lab.nodes.items():
            other = name in others
            started = [line for line in lab.logs(name).splitlines() if line.startswith("stand-in")]
            assert [flags_in(line) for line in started] == ([FLANNELS_FLAGS] if other else [])
            assert node.agent_state == "ready"
            assert node.subnet is not None
            bridge = str(IPv4Network(node.subnet)[1])
            assert f"inet {bridge}/24 " in lab.exec(name, "ip", "-4", "-o", "address", "show", "docker0").stdout
            command = lab.describe("nodes", name)["Agent"]["command"]
            assert ("stand_in_agent.py" in command) == other
        leases = {lease["spec"]["node"]: lease["spec"]["subnet"] for lease in lab.get("leases")}
        assert leases == {name: node.subnet for name, node in lab.nodes.items()}
        assert {state["datapath"] for state in lab.status()["nodes"] if state["name"] in others} == {"other"}


def test_an_agent_with_flags_of_its_own_defines_where_values_go(new_lab: NewLab) -> None:
    own = str(Path(__file__).with_name("agent_with_flags_of_its_own.py"))
    values = ["--store={etcd}", "--authority={etcd_ca}", "--certificate={etcd_cert}", "--key={etcd_key}"]
    more = ["--device={iface}", "--me", "{node}@{address}", "--write", "{subnet_file}"]
    agent = {"command": [sys.executable, own, *values, *more], "ready": {"device": "flannel0"}}
    with new_lab(cluster(node2=agent)) as lab:
        reachable(lab)
        assert f"own agent of node2@{lab.nodes['node2'].address}" in lab.logs("node2")


@pytest.mark.slow
def test_an_agent_whose_device_never_comes_is_not_ready(no_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    agent = {"command": STAND_IN, "ready": {"device": "ovl0"}}
    file.write_text(yaml.safe_dump({"nodes": ["a", "b"], "agent": agent}))
    answer = no_lab.up(str(file), "--timeout", "5")
    assert answer.code == 1
    assert "no overlay device ovl0 yet" in answer.out + answer.err


def test_up_says_why_no_bridge_can_be_made_of_what_another_agent_wrote(no_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    script = "mkdir -p /run/flannel; echo FLANNEL_SUBNET=oops > {subnet_file}; exec sleep 600"
    agent = {"command": ["sh", "-c", script], "ready": {"device": "lo"}}
    file.write_text(yaml.safe_dump({"nodes": ["a", "b"], "agent": agent}))
    answer = no_lab.up(str(file), "--timeout", "10")
    assert answer.code == 1
    assert "no docker0: --subnet-file: /run/flannel/subnet.env: " in answer.err
    assert "internal error" not in answer.err


@pytest.mark.slow
def test_another_agent_that_dies_is_started_again(new_lab: NewLab) -> None:
    with new_lab(cluster(node2=OTHER)) as lab:
        before = lab.nodes["node2"]
        lab.agent("node2").kill()
        lab.wait_until(lambda: lab.nodes["node2"].agent_restarts > before.agent_restarts, 5, "it is started again")
        lab.wait_until(lambda: lab.ping("shell1", "shell2").received, 10, "shell1 reaches shell2")
        assert lab.nodes["node2"].subnet == before.subnet


@pytest.mark.slow
def test_agent_of_ours_takes_more_flags_from_the_cluster_file(new_lab: NewLab) -> None:
    with new_lab(cluster(node1={"args": ["--subnet-lease-ttl=7s"]})) as lab:
        assert lab.agent("node1").state()["lease"]["ttl_s"] == 7
        assert lab.agent("node2").state()["lease"]["ttl_s"] != 7


@pytest.fixture
def without_agent(no_lab: Lab) -> tuple[Lab, Answer]:
    """Return a lab whose node2 has no agent, and what `up` said."""
    answer = no_lab.up("two_nodes", "--no-agent", "node2")
    assert answer.code == 0, answer
    return no_lab, answer


@pytest.mark.slow
def test_printed_command_pasted_repairs_the_lab(without_agent: tuple[Lab, Answer]) -> None:
    lab, answer = without_agent
    (line,) = re.findall(r"^ *sudo testbed (exec .* node2 -- .*)$", answer.out, re.MULTILINE)
    assert f"--lab {lab.name}" in line
    handle = lab.handle
    assert handle.nodes["node2"].subnet is None
    assert handle.exec("node2", "ip", "link", "show", "flannel0").exit_code != 0
    with running(*shlex.split(line)):
        handle.wait_until(lambda: len(handle.pods) == 4 and all(pod.ready for pod in handle.pods.values()), 30, "pods")
        handle.wait_until(lambda: handle.nodes["node1"].peers_known == 1, 10, "node1 knows node2")
        reachable(handle)
    handle.wait_until(lambda: handle.nodes["node2"].peers_known == 0, 10, "the agent run by hand has ended")


@pytest.mark.slow
def test_restart_does_not_touch_an_agent_that_is_run_by_hand(without_agent: tuple[Lab, Answer]) -> None:
    lab, _ = without_agent
    refused = lab.testbed("restart", "agent", "node2")
    assert refused.code != 0
    assert "run by hand" in refused.err
