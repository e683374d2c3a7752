"""A bridge that another program made is used where it fits, refused where it does not, and never changed or deleted."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, agent_command, run, wait_until
from tests.netns.overlay import on
from tests.waiting import constantly

pytestmark = pytest.mark.root

LONG_ENOUGH_S = 1.5
"""An agent looks at its bridge within 0.1 s of each change that the kernel reports."""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"fb{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def machine(underlay: Underlay, *flags: str, name: str = "node") -> Agent:
    """Return a machine on which no agent runs yet."""
    agent = underlay.agent(name, f"192.168.8.{200 + len(name)}", *flags, pinned="10.0.46.1/24", start=False)
    underlay.undo.callback(lambda: agent.end() if hasattr(agent, "process") else None)
    return agent


def add_bridge(underlay: Underlay, node: Agent, address: str | None, *, container: bool = False) -> None:
    """Add docker0 as dockerd does: with a random MAC address and an address of its own."""
    underlay.ip(node.netns, "link add docker0 type bridge")
    underlay.ip(node.netns, "link set docker0 address 02:42:d5:f9:2c:3a up")
    if address is not None:
        underlay.ip(node.netns, f"address add {address} dev docker0")
    if container:
        netns = underlay.namespace(f"{node.name}-container")
        underlay.ip(node.netns, f"link add veth1 type veth peer name eth0 netns {netns}")
        underlay.ip(node.netns, "link set veth1 master docker0 up")


def bridge(node: Agent) -> dict[str, object]:
    """Return what another program would miss if it changed."""
    links, addresses = (
        run("ip", "-n", node.netns, "-j", *what, "show", "dev", "docker0", check=False)
        for what in (["link"], ["-4", "address"])
    )
    if links.returncode:
        return {}
    [link], [found] = json.loads(links.stdout), json.loads(addresses.stdout) or [{"addr_info": []}]
    return {
        "mac": link["address"],
        "mtu": link["mtu"],
        "alias": link.get("ifalias"),
        "addresses": [f"{item['local']}/{item['prefixlen']}" for item in found.get("addr_info", ())],
    }


def cleanup(node: Agent) -> str:
    command = agent_command(node.netns, node.directory, "--bridge=docker0")
    return run(*command[: command.index("agent") + 1], "cleanup", *command[command.index("agent") + 1 :]).stdout


OURS = {
    "mac": "02:42:0a:00:2e:01",
    "mtu": 1472,
    "alias": "made by overlay-agent for 10.0.0.0/16",
    "addresses": ["10.0.46.1/24"],
}


@pytest.mark.parametrize(
    ("address", "container", "got"),
    [
        ("172.17.0.1/16", True, "172.17.0.1/16, 1 port"),
        ("172.17.0.1/16", False, "172.17.0.1/16"),
        (None, True, "1 port"),
    ],
)
def test_an_agent_refuses_it_before_any_change(
    underlay: Underlay, address: str | None, got: str, *, container: bool
) -> None:
    node = machine(underlay)
    add_bridge(underlay, node, address, container=container)
    before = bridge(node), on(node, "ip -o link"), on(node, "ip route")
    node.start()
    assert node.process.wait(30) == 3
    assert f"--bridge: docker0 belongs to another program (got {got}; want dockerd with" in node.log
    assert (bridge(node), on(node, "ip -o link"), on(node, "ip route")) == before
    assert underlay.leases() == {}
    assert on(node, "nft list ruleset") == ""
    assert "kept: docker0" in cleanup(node)
    assert bridge(node) == before[0]


def test_a_device_that_is_no_bridge_is_refused(underlay: Underlay) -> None:
    node = machine(underlay, "--bridge=eth0")
    node.start()
    assert node.process.wait(30) == 3
    assert "--bridge: eth0 is not a bridge (got a veth device; want another --bridge=NAME)" in node.log


def test_the_one_that_dockerd_made_by_our_options_is_used_and_kept(underlay: Underlay) -> None:
    node = machine(underlay)
    add_bridge(underlay, node, "10.0.46.1/24", container=True)
    before = bridge(node)
    node.start()
    node.wait_ready()
    assert on(node, "sysctl -n net.ipv4.ip_forward") == "1\n"
    assert bridge(node) == before
    node.end()
    node.start()
    node.wait_ready()
    node.end()
    assert "kept: docker0 (10.0.46.1/24, 1 port), made by another program" in cleanup(node)
    assert bridge(node) == before


def test_one_that_dockerd_made_for_an_earlier_subnet_is_named_until_dockerd_has_the_new_one(underlay: Underlay) -> None:
    node = machine(underlay)
    add_bridge(underlay, node, "10.0.90.1/24")
    before = bridge(node)
    node.start()
    wait_until(lambda: node.subnet_file.read_text().count("\n") == 4, 30, "docker_opts.env can be had")
    assert "--bip=10.0.46.1/24" in (node.directory / "docker_opts.env").read_text()
    assert "docker0 belongs to another program (got 10.0.90.1/24; want 10.0.46.1/24: dockerd" in node.get("/readyz")[1]
    constantly(lambda: bridge(node) == before, for_s=LONG_ENOUGH_S, what="it is left alone")
    underlay.ip(node.netns, "address replace 10.0.46.1/24 dev docker0")
    node.wait_ready()


def test_one_that_appears_in_place_of_ours_is_left_alone(underlay: Underlay) -> None:
    node = machine(underlay)
    node.start()
    node.wait_ready()
    assert bridge(node) == OURS
    # While the agent stands still, or it could be first.
    node.process.send_signal(signal.SIGSTOP)
    subprocess.run(
        ["ip", "-n", node.netns, "-batch", "-"],
        input="link delete docker0\nlink add docker0 address 02:42:d5:f9:2c:3a type bridge\n"
        "address add 172.17.0.1/16 dev docker0\n",
        text=True,
        check=True,
    )
    node.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "got 172.17.0.1/16" in node.get("/readyz")[1], 30, "the agent says so", lambda: node.log)
    assert node.get("/readyz")[0] == 503
    before = bridge(node)
    constantly(lambda: bridge(node) == before, for_s=LONG_ENOUGH_S, what="it is left alone")
    underlay.ip(node.netns, "link delete docker0")
    node.wait_ready()
    assert bridge(node) == OURS


@pytest.mark.parametrize("harm", ["link set docker0 alias x", "link set docker0 address 02:42:00:00:00:09"])
def test_ours_is_ours_after_kills_changes_and_another_subnet(underlay: Underlay, harm: str) -> None:
    node = machine(underlay)
    node.start()
    node.wait_ready()
    underlay.ip(node.netns, "link add veth1 type veth peer name veth2")
    underlay.ip(node.netns, "link set veth1 master docker0 up")
    node.end(signal.SIGKILL)
    underlay.ip(node.netns, harm)
    underlay.ip(node.netns, "address flush dev docker0")
    node.start()
    wait_until(lambda: bridge(node) == OURS, 30, "it is as before", lambda: (bridge(node), node.log))
    node.wait_ready()
    underlay.ip(node.netns, harm)
    underlay.ip(node.netns, "address flush dev docker0")
    wait_until(lambda: bridge(node) == OURS, 30, "it is as before", lambda: (bridge(node), node.log))
    node.end(signal.SIGKILL)
    for key in underlay.leases():
        underlay.etcdctl("del", key)
    # A lease of another node that took the subnet meanwhile.
    underlay.etcdctl("put", "/coreos.com/network/subnets/10.0.46.0-24", '{"PublicIP":"192.168.8.99"}')
    node.start()
    node.wait_ready()
    assert bridge(node)["addresses"] != OURS["addresses"]
    assert bridge(node)["alias"] == OURS["alias"]
    assert "master docker0" in on(node, "ip link show veth1")
    node.end()
    assert "removed: ip link delete docker0" in cleanup(node)
    assert bridge(node) == {}


def test_a_bridge_that_an_earlier_agent_made_without_an_alias_is_ours(underlay: Underlay) -> None:
    node = machine(underlay)
    add_bridge(underlay, node, "10.0.90.1/24", container=True)
    underlay.ip(node.netns, "link set docker0 address 02:42:0a:00:5a:01")
    node.start()
    node.wait_ready()
    assert bridge(node) == OURS
    node.end()
    assert "removed: ip link delete docker0" in cleanup(node)


def test_an_empty_one_is_used_and_kept(underlay: Underlay) -> None:
    node = machine(underlay)
    add_bridge(underlay, node, None)
    before = bridge(node)
    node.start()
    node.wait_ready()
    assert bridge(node) == {**before, "addresses": ["10.0.46.1/24"]}
    node.end()
    assert "kept: docker0 (10.0.46.1/24), made by another program" in cleanup(node)
    assert bridge(node)


def test_the_agent_of_another_network_does_not_take_it(underlay: Underlay) -> None:
    node = machine(underlay)
    node.start()
    node.wait_ready()
    underlay.etcdctl("put", "/blue/config", '{"Network":"10.9.0.0/16","Backend":{"Type":"udp","Port":8300}}')
    blue = [
        f"--subnet-file={node.directory / 'blue.env'}",
        "--etcd-prefix=/blue",
        "--docker-opts-file=",
        "--iface=eth0",
        "--node-name=blue",
    ]
    refused = run(*agent_command(node.netns, node.directory, *blue), check=False)
    assert refused.returncode == 3
    assert 'got "made by overlay-agent for 10.0.0.0/16", 10.0.46.1/24; want' in refused.stderr
    assert bridge(node) == OURS
