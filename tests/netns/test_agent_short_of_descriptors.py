"""An agent that may open few files: what cannot be opened is missed, and packets flow on."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import HEALTH_PORT, Agent, Underlay, ping, wait_until
from tests.waiting import constantly

pytestmark = [pytest.mark.root, pytest.mark.slow]
LIMIT = 64
HOLD_CONNECTIONS = f"""
import socket, time
held = []
while True:
    # The agent hangs up on whoever says nothing for five seconds.
    while len(held) > {2 * LIMIT} or held and held[0][0] < time.monotonic() - 4:
        held.pop(0)[1].close()
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", {HEALTH_PORT}))
    held.append((time.monotonic(), one))
    time.sleep(0.01)
"""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """Start an underlay with etcd and a network config."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"ad{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def cpu_s(agent: Agent) -> float:
    """Return the processor time that it has used, in seconds."""
    words = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.row("F45")
def test_an_agent_without_a_descriptor_left_carries_packets_and_recovers(underlay: Underlay) -> None:
    node = underlay.agent("node1", "192.168.8.227", start=False)
    node.argv = (*node.argv[:4], "prlimit", f"--nofile={LIMIT}", *node.argv[4:])
    node.start()
    underlay.undo.callback(node.end)
    other = underlay.agent("node2", "192.168.8.228")
    pods = []
    for each in (node, other):
        each.wait_ready()
        pods.append((underlay.pod(each, "pod", each.subnet().replace(".0/24", ".2/24")), each.subnet()))
    destination = pods[1][1].replace(".0/24", ".2")
    wait_until(lambda: ping(pods[0][0], destination).returncode == 0, 30, "the pods reach each other")
    holder = subprocess.Popen(["ip", "netns", "exec", node.netns, "python3", "-c", HOLD_CONNECTIONS])
    try:
        descriptors = Path(f"/proc/{node.process.pid}/fd")
        wait_until(lambda: len(list(descriptors.iterdir())) >= LIMIT, 15, "no descriptor is left")
        before = cpu_s(node)
        constantly(lambda: ping(pods[0][0], destination).returncode == 0, for_s=3, what="packets flow")
        assert cpu_s(node) - before < 0.3, "no loop spins"
    finally:
        holder.kill()
        holder.wait()
    assert node.process.poll() is None
    node.wait_ready()
    assert "Traceback" not in node.log
