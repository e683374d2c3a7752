"""An agent in place of a flanneld, and back: a flanneld's rules are removed, and on request only ours."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns import flanneld_rules
from tests.netns.agents import Agent, Underlay, run, wait_until
from tests.netns.overlay import POD2, TwoNodes, on

pytestmark = [pytest.mark.root]
HAD_BEFORE = "10.0.7.0/24"
"""The subnet that the flanneld had; node1 has another."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        underlay = Underlay(tmp_path_factory.mktemp("replaced"), f"fr{os.getpid()}-", undo)
        # cleanup removes subnet.env: with the lease over, another subnet would be chosen.
        yield TwoNodes(underlay, {"Type": "vxlan"}, "--subnet-lease-ttl=1h")


def source_seen(two: TwoNodes) -> str:
    """Return which address pod2 sees when pod1 sends it a datagram."""
    udp = "import socket; udp = socket.socket(type=socket.SOCK_DGRAM); udp.settimeout(30)"
    receive = f"{udp}; udp.bind(('', 9)); print('up', flush=True); print(udp.recvfrom(9)[1][0])"
    send = f"{udp}; udp.sendto(b'x', ('{POD2}', 9))"
    with subprocess.Popen(
        ["ip", "netns", "exec", two.pod2, sys.executable, "-c", receive], stdout=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "up\n"
        run("ip", "netns", "exec", two.pod1, sys.executable, "-c", send)
        return receiver.stdout.readline().strip()


def restart(node: Agent) -> None:
    node.start()
    node.wait_ready()


def cleanup(node: Agent, *flags: str) -> str:
    at = node.argv.index("agent") + 1
    words = [word for word in node.argv[at:] if not word.startswith("--bridge")]
    return run(*node.argv[:at], "cleanup", *words, *flags).stdout


@pytest.mark.row("C34")
@pytest.mark.parametrize("kind", flanneld_rules.KINDS)
def test_rules_that_a_flanneld_left_are_removed_at_start(two: TwoNodes, kind: str) -> None:
    node = two.node1
    node.end()
    assert source_seen(two) == "10.0.46.2"
    flanneld_rules.load(kind, node.netns, HAD_BEFORE)
    on(node, "nft delete table ip overlay-agent-10.0.0.0-16")
    if kind != "recorded":
        # Why this matters: a pod would get replies from another address than the one it asked.
        assert kind == "nftables" or source_seen(two) != "10.0.46.2"
    restart(node)
    assert flanneld_rules.remaining(node.netns) == []
    assert source_seen(two) == "10.0.46.2"
    assert "rules: removed what a flanneld left: " in node.log


@pytest.mark.row("C34")
@pytest.mark.slow
@pytest.mark.parametrize("kind", flanneld_rules.KINDS)
def test_cleanup_removes_rules_that_a_flanneld_left_and_says_so(two: TwoNodes, kind: str) -> None:
    node = two.node1
    node.end()
    flanneld_rules.load(kind, node.netns, HAD_BEFORE)
    others = "table ip another {\n chain FLANNEL-LOOKALIKE {\n }\n}\n"
    run("ip", "netns", "exec", node.netns, "nft", "-f", "-", stdin=others)
    said = cleanup(node)
    assert [line for line in flanneld_rules.remaining(node.netns) if "LOOKALIKE" not in line] == []
    assert "FLANNEL-LOOKALIKE" in on(node, "nft list ruleset"), "what is not a flanneld's stays"
    assert said.lower().count("flannel") >= 2, said
    assert cleanup(node) == "nothing to remove\n"
    on(node, "nft delete table ip another")
    restart(node)
    two.wait_connected()


@pytest.mark.row("C34")
def test_rules_of_a_running_flanneld_are_kept(two: TwoNodes) -> None:
    node = two.node1
    node.end()
    flanneld_rules.load("iptables", node.netns, HAD_BEFORE)
    before = flanneld_rules.remaining(node.netns)
    stand_in = ["bash", "-c", "echo up; exec -a /opt/bin/flanneld sleep 60"]
    with subprocess.Popen(["ip", "netns", "exec", node.netns, *stand_in], stdout=subprocess.PIPE) as flanneld:
        try:
            assert flanneld.stdout is not None
            assert flanneld.stdout.readline() == b"up\n"
            restart(node)
            assert flanneld_rules.remaining(node.netns) == before
            assert f"a flanneld runs here too (process {flanneld.pid}), so its rules stay" in node.log
            node.end()
            assert f"of the flanneld that runs here (process {flanneld.pid})" in cleanup(node)
            assert flanneld_rules.remaining(node.netns) == before
        finally:
            flanneld.kill()
    cleanup(node)
    restart(node)
    two.wait_connected()


@pytest.mark.row("C34")
def test_cleanup_of_rules_alone_leaves_the_overlay_as_it_was(two: TwoNodes, tmp_path: Path) -> None:
    node = two.node1
    wait_until(two.connected, 30, "the pods reach each other")
    node.end()
    flanneld_rules.load("iptables", node.netns, "10.0.46.0/24")
    rules = flanneld_rules.remaining(node.netns)
    kept = [
        on(node, words) for words in ("ip -o address", "ip neigh show dev flannel.1", "bridge fdb show dev flannel.1")
    ]
    routes, files, keys = on(node, "ip route").splitlines(), node.subnet_file.read_text(), two.underlay.dump()
    said = cleanup(node, "--rules").splitlines()
    assert said[0] == "removed: nft delete table ip overlay-agent-10.0.0.0-16"
    assert "removed: ip route delete unreachable 10.0.0.0/16 metric 4278198272" in said
    assert "overlay-agent" not in on(node, "nft list ruleset")
    assert flanneld_rules.remaining(node.netns) == rules, "those of the flanneld that follows"
    assert [
        on(node, words) for words in ("ip -o address", "ip neigh show dev flannel.1", "bridge fdb show dev flannel.1")
    ] == kept
    assert [line for line in routes if not line.startswith("unreachable")] == on(node, "ip route").splitlines()
    assert (node.subnet_file.read_text(), two.underlay.dump()) == (files, keys)
    assert source_seen(two) == "10.0.46.2"
    assert cleanup(node, "--rules") == "nothing to remove\n"
    restart(node)
