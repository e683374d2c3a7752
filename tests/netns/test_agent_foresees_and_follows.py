"""An agent under which the world changes: another network config, its address on another interface."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import ETCD_ADDRESS, NETWORK, Agent, Underlay, ping, run, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]
ADDRESS = "192.168.8.227"


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    """Start an underlay with etcd and a network config."""
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"af{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def pods_on(underlay: Underlay, *nodes: Agent) -> list[tuple[str, str]]:
    """Return a pod on each node: namespace and address."""
    made = []
    for node in nodes:
        node.wait_ready()
        address = node.subnet().replace(".0/24", ".2")
        made.append((underlay.pod(node, "pod", f"{address}/24"), address))
    return made


def reaches(source: tuple[str, str], destination: tuple[str, str]) -> bool:
    return ping(source[0], destination[1]).returncode == 0


@pytest.mark.row("F26")
def test_another_config_changes_nothing_that_runs_and_is_reported_once(underlay: Underlay) -> None:
    nodes = [underlay.agent("node1", ADDRESS), underlay.agent("node2", "192.168.8.228")]
    first, second = pods_on(underlay, *nodes)
    wait_until(lambda: reaches(first, second), 30, "the pods reach each other")
    underlay.write_config(NETWORK.replace('"Type":"udp"', '"Type":"udp","Port":8290'))
    wait_until(lambda: all(node.state()["warnings"] for node in nodes), 15, "the change is told", lambda: nodes[0].log)
    assert reaches(first, second)
    assert "8290" in nodes[0].state()["warnings"][0]
    assert nodes[0].log.count("restart it to use the new one") == 1
    for node in nodes:
        node.end()
        node.start()
        node.wait_ready()
        assert node.state()["warnings"] == []
    wait_until(lambda: reaches(first, second), 30, "the pods reach each other by the new port")
    assert nodes[0].state()["forwarding"][0]["via"].endswith(":8290")


@pytest.mark.row("F37")
def test_an_address_that_moves_to_another_interface_is_followed(underlay: Underlay) -> None:
    node = underlay.agent("node1", ADDRESS, f"--iface-can-reach={ETCD_ADDRESS}")
    other = underlay.agent("node2", "192.168.8.228")
    first, second = pods_on(underlay, node, other)
    wait_until(lambda: reaches(first, second), 30, "the pods reach each other")
    subnet = node.subnet()
    underlay.ip(underlay.switch, f"link add name other mtu 1400 type veth peer name eth1 mtu 1400 netns {node.netns}")
    underlay.ip(underlay.switch, "link set dev other master uplink up")
    moved_at = time.monotonic()
    for words in (
        f"address delete {ADDRESS}/24 dev eth0",
        "link set eth0 down",
        "link set eth1 up",
        f"address add {ADDRESS}/24 dev eth1",
        "route add default via 192.168.8.10",
    ):
        underlay.ip(node.netns, words)

    def follows() -> bool:
        # As a service manager does; more than once, because each of our commands may be noticed on its own.
        if node.process.poll() is not None:
            assert node.process.returncode == 1
            node.start()
        return (
            f"{ADDRESS} on eth1" in node.log
            and "underlay: eth1" in node.log
            and node.get("/readyz")[0] == 200
            and reaches(first, second)
        )

    wait_until(follows, moved_at + 5 - time.monotonic(), "the pods reach each other again", lambda: node.log)
    assert node.subnet() == subnet
    assert node.state()["overlay_mtu"] == 1400 - 28
    assert "mtu 1372" in run("ip", "-n", node.netns, "link", "show", "docker0").stdout
    assert underlay.leases()[f"/coreos.com/network/subnets/{subnet.replace('/', '-')}"].startswith(
        f'{{"PublicIP":"{ADDRESS}"'
    )
