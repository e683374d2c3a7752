"""What docs/guide/agent.md and docs/real-machines.md show of agents without a lab: typed on machines, it is so."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks
from tests.e2e.pages import missing
from tests.e2e.typed import commands_of
from tests.netns.agents import NETWORK, Underlay
from tests.netns.flanneld_rules import VXLAN
from tests.netns.machine import FLAGS, Machine
from tests.pcap import REAL_FLANNELD

pytestmark = [pytest.mark.root, pytest.mark.slow]
MAC = re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b")
AS_THERE = " --subnet-lease-ttl=30s --node-name=node1"
"""The page says that its run had the first; the machine there is called so."""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """Start an underlay with an empty etcd."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"om{os.getpid()}-", undo)
        made.start_etcd()
        yield made


def sessions_below(page: str, heading: str) -> list[Block]:
    return [block for block in blocks(ROOT / page) if block.heading == heading and block.mark is None]


def lacking(shown: Sequence[str], said: str) -> list[str]:
    return missing([MAC.sub("MAC", line) for line in shown], MAC.sub("MAC", said))


def type_each(machine: Machine, block: Block, before: str = "") -> None:
    """Type each command of a session, after those that set variables."""
    for typed in commands_of(block):
        said = machine.bash(before + typed.command)
        assert lacking(typed.shown, said) == [], f"{typed.command}\n{said}"
        before += f"{typed.command}\n" if typed.command.startswith("export ") else ""


def test_the_guides_agent_on_a_plain_machine(underlay: Underlay) -> None:
    machine = Machine(underlay, "node1", "192.168.8.227")
    (begin,) = sessions_below("docs/guide/agent.md", "")
    variables, config, agent = commands_of(begin)
    assert lacking(config.shown, machine.bash(f"{variables.command}\n{config.command}")) == []
    process = machine.start(agent.command.removeprefix("sudo ") + AS_THERE, " ready\n")
    assert lacking(agent.shown, machine.said) == []
    assert machine.bash("curl -s http://127.0.0.1:8286/readyz").strip() == "agent is ready"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    cleanup = ".venv/bin/overlay-agent cleanup --bridge=docker0"
    assert "removed: ip link delete docker0" in machine.bash(cleanup)
    assert machine.bash(cleanup).strip() == "nothing to remove"


def test_the_network_configs_of_the_guide(underlay: Underlay) -> None:
    machine = Machine(underlay, "node1", "192.168.8.227")
    simple, dual_stack = sessions_below("docs/real-machines.md", "The network config")
    type_each(machine, simple)
    variables = commands_of(simple)[0].command
    (put,) = commands_of(dual_stack)
    assert lacking(put.shown, machine.bash(f"{variables}\n{put.command}")) == []


def test_what_an_agent_makes_on_a_machine_and_takes_away(underlay: Underlay) -> None:
    underlay.write_config(NETWORK.replace('"udp"', '"vxlan"'))
    node, peer = Machine(underlay, "node1", "192.168.8.227"), Machine(underlay, "node2", "192.168.8.228")
    peer.join()
    node.join(*FLAGS, "--docker-opts-file=/run/docker_opts.env")
    for block in sessions_below("docs/real-machines.md", "What it makes on a node"):
        type_each(node, block)
    node.interrupt()
    (removed,) = sessions_below("docs/real-machines.md", "Stop, restart, remove")
    type_each(node, removed)


@pytest.mark.row("C34")
def test_from_flanneld_to_this_agent_and_back(underlay: Underlay) -> None:
    """node1 is as a real flanneld left it, by its records; node2 has an agent. Pods ping all the time."""
    rules = f"nft -f {REAL_FLANNELD / 'vxlan-rules-node1.txt'}"
    recorded = json.loads((REAL_FLANNELD / "vxlan-etcd.json").read_text())
    own_key = "/coreos.com/network/subnets/10.0.46.0-24"
    lease = underlay.etcdctl("lease", "grant", "86400").stdout.split()[1]
    underlay.write_config(recorded["/coreos.com/network/config"]["value"])
    underlay.etcdctl("put", f"--lease={lease}", own_key, recorded[own_key]["value"])
    node, peer = Machine(underlay, "node1", "192.168.8.227"), Machine(underlay, "node2", "192.168.8.228")
    peer.join()
    there = peer.make_the_pod_that_join_shows()
    for command in VXLAN:
        node.run(*command.split())
    (key,) = set(underlay.leases()) - {own_key}
    attributes = json.loads(underlay.leases()[key])
    gateway, mac = key.rpartition("/")[2].partition("-")[0], attributes["BackendData"]["VtepMAC"]
    subnet = f"{gateway}/24"
    for command in (
        rules,
        f"ip neigh add {gateway} lladdr {mac} nud permanent dev flannel.1",
        f"bridge fdb add {mac} dst {attributes['PublicIP']} dev flannel.1 self permanent",
        f"ip route add {subnet} via {gateway} dev flannel.1 onlink",
        "sysctl -q net.ipv4.ip_forward=1",
        "ip link add docker0 type bridge",
        "ip address add 10.0.46.1/24 dev docker0",
        "ip link set docker0 up",
        "ip netns add web",
        "ip link add vethweb type veth peer name eth0 netns web",
        "ip link set vethweb master docker0 up",
        "ip -n web address add 10.0.46.2/24 dev eth0",
        "ip -n web link set eth0 up",
        "ip -n web route add default via 10.0.46.1",
    ):
        node.run(*command.split())
    node.run("ip", "netns", "exec", "web", "ping", "-n", "-c1", "-W5", there)
    with subprocess.Popen(
        [*node.enter, "ip", "netns", "exec", "web", "ping", "-n", "-i0.2", there], stdout=subprocess.PIPE, text=True
    ) as ping:
        to_the_agent, back = sessions_below("docs/real-machines.md", "From flanneld to this agent, and back")
        _, begin = commands_of(to_the_agent)
        agent = node.start(begin.command.removeprefix("sudo "), " ready\n")
        assert lacking(begin.shown, node.said) == [], node.said
        assert "FLANNEL" not in node.run("nft", "list", "ruleset").stdout
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(10) == 0
        # The page's flanneld comes back with the rules that a real one was seen to make.
        type_each(node, back, f'systemctl() {{ [ "$*" = "start flanneld" ] && {rules}; }}\n')
        after = node.run("nft", "list", "ruleset").stdout
        assert "FLANNEL-POSTRTG" in after
        assert "overlay-agent" not in after
        ping.send_signal(signal.SIGINT)
        said, _ = ping.communicate(timeout=10)
    assert ", 0% packet loss" in said, said
