"""What docs/guide/agent.md and docs/real-machines.md show of agents without a lab: typed on machines, it is so."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks
from tests.e2e.pages import missing
from tests.e2e.typed import commands_of
from tests.netns.agents import NETWORK, Underlay
from tests.netns.machine import FLAGS, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]
MAC = re.compile(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b")
AS_THERE = " --subnet-lease-ttl=30s --node-name=node1"
"""The page says that its run had the first; the machine there is called so."""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """With an etcd that is empty."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"om{os.getpid()}-", undo)
        made.start_etcd()
        yield made


def sessions_below(page: str, heading: str) -> list[Block]:
    return [block for block in blocks(ROOT / page) if block.heading == heading and block.mark is None]


def lacking(shown: Sequence[str], said: str) -> list[str]:
    return missing([MAC.sub("MAC", line) for line in shown], MAC.sub("MAC", said))


def type_each(machine: Machine, block: Block) -> None:
    """Each command of a session, after those that set variables."""
    before = ""
    for typed in commands_of(block):
        said = machine.bash(before + typed.command)
        assert lacking(typed.shown, said) == [], f"{typed.command}\n{said}"
        before += f"{typed.command}\n" if typed.command.startswith("export ") else ""


def test_the_guides_agent_on_a_plain_machine(underlay: Underlay) -> None:
    machine = Machine(underlay, "node1", "192.168.8.227")
    begin, look, end = sessions_below("docs/guide/agent.md", "")
    variables, config, agent = commands_of(begin)
    assert lacking(config.shown, machine.bash(f"{variables.command}\n{config.command}")) == []
    process = machine.start(agent.command.removeprefix("sudo ") + AS_THERE, " ready\n")
    assert lacking(agent.shown, machine.said) == []
    type_each(machine, look)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    type_each(machine, end)


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
    for heading in ("What it makes on a node", "Pods"):
        for block in sessions_below("docs/real-machines.md", heading):
            type_each(node, block)
    node.interrupt()
    (removed,) = sessions_below("docs/real-machines.md", "Stop, restart, remove")
    type_each(node, removed)
