"""A lab owns its namespaces: beside another with the same addresses, and when its first process is killed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.control.client import start_ticks
from testbed.pytest_plugin import NewLab
from tests.e2e import host
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab, fresh_name
from tests.waiting import wait_until

GONE_WITHIN_S = 60.0
SUBNETS = ("10.0.46.0/24", "10.0.90.0/24")


@pytest.fixture
def same_addresses(tmp_path: Path) -> Path:
    """Return the light cluster with every address of nginx_tomcat."""
    text = (Path(__file__).parents[2] / "topologies" / "two_nodes.yaml").read_text()
    for number, subnet in enumerate(SUBNETS):
        text = text.replace(
            f"node{number + 1}: {{}}", f"node{number + 1}: {{ip: 192.168.8.{227 + number}, subnet: {subnet}}}"
        )
    path = tmp_path / "same_addresses.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def canary_namespace() -> Iterator[str]:
    """Yield a network namespace of the test's own, from which links lead into a lab's."""
    name = fresh_name("canary")
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_two_labs_with_the_same_addresses_do_not_notice_each_other(
    nginx_tomcat: Lab, no_lab: Lab, same_addresses: Path
) -> None:
    before = nginx_tomcat.json("status")
    assert no_lab.up(str(same_addresses)).code == 0
    for lab in (nginx_tomcat, no_lab):
        nodes = {node["name"]: (node["address"], node["subnet"]) for node in lab.json("status")["nodes"]}
        assert nodes == {"node1": ("192.168.8.227", SUBNETS[0]), "node2": ("192.168.8.228", SUBNETS[1])}
    assert no_lab.run("shell2", "curl", "-s", "http://10.0.46.2:8080/hostname") == "echo1\n"
    assert "Tomcat" in nginx_tomcat.run("client", "curl", "-s", "http://10.0.90.2:8080/")
    assert no_lab.down().code == 0
    assert nginx_tomcat.json("status") == before
    assert ", 0 lost" in nginx_tomcat.must("ping")
    assert no_lab.testbed("status").code == 1


def test_one_of_several_labs_has_to_be_named(nginx_tomcat: Lab, two_nodes: Lab) -> None:
    answer = run_verb("get", "pods")
    assert answer.code == 2
    assert nginx_tomcat.name in answer.err
    assert two_nodes.name in answer.err
    found = {lab["lab"] for lab in run_verb("status", "-o", "json").json}
    assert {nginx_tomcat.name, two_nodes.name} <= found


def test_status_of_several_labs_is_a_line_for_each(nginx_tomcat: Lab, two_nodes: Lab) -> None:
    lines = run_verb("status").out.splitlines()
    assert lines[0].split() == ["LAB", "STATE", "NODES", "PODS", "BACKEND", "CLUSTER", "SINCE"]
    for lab, pods in ((nginx_tomcat, "3/3"), (two_nodes, "4/4")):
        (line,) = (line.split() for line in lines if line.startswith(f"{lab.name} "))
        assert line[1:5] == ["ready", "2/2", pods, "udp"]
    assert any(line.startswith("  sudo testbed status --lab ") for line in lines)


def test_nothing_is_left_of_a_lab_whose_first_process_was_killed(own_lab: Lab, canary_namespace: str) -> None:
    pid = own_lab.json("status")["pid"]
    seen = host.footprint(pid)
    assert len(seen.processes) > 10, "lab init, supervisor, etcd, two agents, pauses and containers"
    targets = {"lab": pid, "node": host.pid_in(seen, "testbed:node1"), "pod": host.pid_in(seen, "echo_server")}
    for name, inside in targets.items():
        link = [
            "ip",
            "link",
            "add",
            f"to-{name}",
            "type",
            "veth",
            "peer",
            "name",
            f"canary-{name}",
            "netns",
            str(inside),
        ]
        subprocess.run(["ip", "netns", "exec", canary_namespace, *link], check=True)
    assert len(_links(canary_namespace)) == 3
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: not seen.remains(), timeout_s=GONE_WITHIN_S, what="no process and no namespace of the lab is left"
    )
    # A link ends with the namespace of its other end, so this shows that the kernel has destroyed them.
    wait_until(
        lambda: not _links(canary_namespace), timeout_s=GONE_WITHIN_S, what="the lab's network namespaces are gone"
    )
    assert own_lab.testbed("status").code == 1


def test_lab_comes_up_again_at_once_after_its_first_process_was_killed(new_lab: NewLab) -> None:
    with new_lab("two_nodes") as handle:
        again = _kill_and_bring_up_again(Lab(handle.name))
    # The handle is the first lab's; a zombie that nobody has collected yet is gone for this.
    assert start_ticks(again) is None, "the second lab of that name still runs"


def _kill_and_bring_up_again(own_lab: Lab) -> int:
    os.kill(own_lab.json("status")["pid"], signal.SIGKILL)
    answer = own_lab.up("two_nodes")
    assert answer.code == 0, answer
    assert ", 0 lost" in own_lab.must("ping")
    pid: int = own_lab.json("status")["pid"]
    return pid


@pytest.mark.slow
def test_down_clears_up_after_a_lab_that_died(own_lab: Lab) -> None:
    rundir = Path(own_lab.json("status")["rundir"])
    os.kill(own_lab.json("status")["pid"], signal.SIGKILL)
    answer = own_lab.down()
    assert answer.code == 0, answer
    assert not rundir.exists()


def test_death_of_the_supervisor_ends_the_lab(own_lab: Lab) -> None:
    pid = own_lab.json("status")["pid"]
    seen = host.footprint(pid)
    os.kill(host.pid_in(seen, "testbed.supervisor.lab_init /run"), signal.SIGKILL)
    wait_until(
        lambda: not seen.remains(), timeout_s=GONE_WITHIN_S, what="no process and no namespace of the lab is left"
    )


def test_a_lab_is_not_ended_from_within(two_nodes: Lab) -> None:
    """A user on a node has the rights, but the kernel does not hand SIGKILL to a first process from its own inside."""
    two_nodes.exec("node1", "kill", "-9", "1")
    assert two_nodes.json("status")["state"] == "ready"


@pytest.mark.slow
def test_the_lab_starts_although_nothing_on_the_host_is_writable(no_lab: Lab) -> None:
    assert no_lab.up("two_nodes").code == 0
    for place in ("/etc", "/root", "/usr", "/var", "/sys", "/run/testbed"):
        assert no_lab.exec("node1", "touch", f"{place}/written-by-a-test").code != 0, place
    for place in ("/tmp", "/var/tmp", "/run", "/dev/shm"):
        assert no_lab.exec("node1", "touch", f"{place}/written-by-a-test").code == 0, place
        assert not Path(place, "written-by-a-test").exists()


@pytest.mark.slow
def test_its_directory_is_the_only_trace_of_a_lab_and_goes_with_it(no_lab: Lab) -> None:
    directories = {"/run", "/run/netns", "/run/testbed", "/var/run"}
    before = {place: set(os.listdir(place)) for place in directories if os.path.isdir(place)}
    assert no_lab.up("two_nodes").code == 0
    rundir = Path(no_lab.json("status")["rundir"])
    assert rundir.parent == Path("/run/testbed")
    assert rundir.stat().st_mode & 0o066 == 0, "nobody else may read it"
    assert no_lab.down().code == 0
    assert not rundir.exists()
    for place, names in before.items():
        new = {name for name in set(os.listdir(place)) - names if name in host.OF_A_LAB or no_lab.name in name}
        assert new == set(), place


def _links(namespace: str) -> list[str]:
    shown = subprocess.run(
        ["ip", "-n", namespace, "-o", "link", "show", "type", "veth"], capture_output=True, text=True, check=True
    )
    return shown.stdout.splitlines()
