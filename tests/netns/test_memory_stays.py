"""What an agent has in memory does not grow with reconnects, outages, events, questions and repairs."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, run, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.row("F47")]
CUTS, EVENTS, QUESTIONS, DELETIONS = 8, 60, 200, 5
WARM_UP, ROUNDS = 2, 3
"""In the first ones caches fill."""
GROWTH_KB = 512
"""In all rounds after these. It was 800 each, with an arena a thread and a queue of pyroute2 that nobody read."""
SUBNETS = "/coreos.com/network/subnets"
ASK = """
import http.client, sys
for _ in range(int(sys.argv[1])):
    connection = http.client.HTTPConnection("127.0.0.1", 8286)
    connection.request("GET", "/state")
    assert connection.getresponse().read()
    connection.close()
"""


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """Start an underlay with etcd and a network config."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"me{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def rss_kb(agent: Agent) -> int:
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def trouble(underlay: Underlay, agent: Agent, number: int) -> None:
    """Run one round of everything that makes an agent work."""
    for _ in range(CUTS):
        run("ip", "netns", "exec", agent.netns, "ss", "--kill", "state", "established", "dport = :2379")
        until = time.monotonic() + 0.3
        wait_until(lambda until=until: time.monotonic() > until, 1, "it has connected again")  # type: ignore[misc]
    underlay.stop_etcd()
    until = time.monotonic() + 3
    wait_until(lambda: time.monotonic() > until, 5, "it has tried in vain")
    underlay.start_etcd()
    value = f'{{"PublicIP":"192.168.8.{10 + number}","PublicIPv6":null}}'
    wait_until(lambda: agent.state()["lease"]["seconds_left"] > 4, 15, "it keeps its lease again", lambda: agent.log)
    for event in range(EVENTS):
        underlay.etcdctl("put", f"{SUBNETS}/10.0.{100 + event}.0-24", value)
    run("ip", "netns", "exec", agent.netns, "python3", "-c", ASK, str(QUESTIONS))
    for _ in range(DELETIONS):
        run("ip", "netns", "exec", agent.netns, "ip", "link", "delete", "flannel0")
        wait_until(lambda: "flannel0" in run("ip", "-n", agent.netns, "link").stdout, 10, "the device is there again")
    wait_until(
        lambda: {entry["via"] for entry in agent.state()["forwarding"]} == {f"192.168.8.{10 + number}:8285"},
        10,
        "it has seen every event",
    )


def test_an_agent_in_constant_trouble_keeps_its_size(underlay: Underlay) -> None:
    agent = underlay.agent("node1", "192.168.8.227", "--subnet-lease-ttl=5s")
    agent.wait_ready()
    sizes = []
    for number in range(WARM_UP + ROUNDS):
        trouble(underlay, agent, number)
        sizes.append(rss_kb(agent))
    print(f"RSS after each round: {', '.join(map(str, sizes))} kB")
    assert "Traceback" not in agent.log
    assert max(sizes[WARM_UP:]) - sizes[WARM_UP - 1] < GROWTH_KB, sizes
