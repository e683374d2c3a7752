"""The two backends whose devices not every kernel has: what they keep, and what is said where they cannot."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Underlay, run, wait_until
from tests.netns.overlay import TwoNodes, lines, network, on, skip_without

pytestmark = [pytest.mark.root]


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path, f"wi{os.getpid()}-", undo)


@pytest.fixture(scope="module")
def wireguard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    skip_without("wireguard")
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("wg"), f"wg{os.getpid()}-", undo), {"Type": "wireguard"})


@pytest.fixture(scope="module")
def ipip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    skip_without("ipip")
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("ii"), f"ii{os.getpid()}-", undo), {"Type": "ipip"})


@pytest.mark.parametrize("kind", ["wireguard", "ipip"])
def test_a_kernel_without_the_device_is_reported_at_start(underlay: Underlay, kind: str) -> None:
    tried = run("unshare", "--net", "ip", "link", "add", "probe", "type", kind, check=False)
    if "Unknown device type" not in tried.stderr:
        pytest.skip(f"this kernel has {kind}")
    underlay.start_etcd()
    underlay.write_config(network({"Type": kind}))
    node = underlay.agent("node", "192.168.8.227", start=False)
    done = run(*node.argv, check=False)
    assert done.returncode == 3
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: backend {kind}: this kernel has no {kind} device (")
    assert underlay.leases() == {}


def keys(nodes: TwoNodes) -> list[str]:
    """Return the public keys of both nodes."""
    return [on(node, "wg show flannel-wg public-key").strip() for node in nodes.nodes]


def test_each_node_knows_the_other_by_key_address_and_subnet(wireguard: TwoNodes) -> None:
    _, far = keys(wireguard)
    node = wireguard.node1
    assert on(node, "wg show flannel-wg peers").split() == [far]
    assert on(node, "wg show flannel-wg endpoints").split() == [far, "192.168.8.228:51820"]
    assert on(node, "wg show flannel-wg allowed-ips").split() == [far, "10.0.90.0/24"]
    assert "10.0.0.0/16 dev flannel-wg scope link" in lines(on(node, "ip route"))
    assert "mtu 1420" in on(node, "ip link show flannel-wg")
    lease = json.loads(wireguard.underlay.leases()["/coreos.com/network/subnets/10.0.90.0-24"])
    assert lease["BackendData"] == {"PublicKey": far, "Port": 51820}
    assert node.state()["forwarding"] == [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:51820"}]


def test_no_secret_is_readable_or_in_the_journal(wireguard: TwoNodes, tmp_path: Path) -> None:
    key_file = wireguard.node1.directory / "wgkey"
    assert key_file.stat().st_mode & 0o777 == 0o400
    assert key_file.read_text().strip() not in wireguard.node1.log


@pytest.mark.parametrize(
    "command",
    [
        "ip link delete flannel-wg",
        "ip route delete 10.0.0.0/16 dev flannel-wg",
        "ip address flush dev flannel-wg",
        "ip link set flannel-wg mtu 1300",
    ],
)
def test_a_foreign_change_is_reverted_within_five_seconds(wireguard: TwoNodes, command: str) -> None:
    node = wireguard.node1

    def state() -> list[str]:
        peers = [f"wg show flannel-wg {what}" for what in ("allowed-ips", "public-key")]
        commands = ["ip route", "ip -br address show dev flannel-wg", *peers]
        inside = ("ip", "netns", "exec", node.netns)
        shown = [run(*inside, *command.split(), check=False).stdout for command in commands]
        mtu = re.findall(r"mtu \d+", run("ip", "-n", node.netns, "link", "show", "flannel-wg", check=False).stdout)
        return [*shown, *mtu]

    before = state()
    on(node, command)
    wait_until(lambda: state() == before, 5, "all is as before", lambda: (before, state(), node.log))
    wireguard.wait_connected()


def test_a_peers_new_key_replaces_the_old_one(wireguard: TwoNodes) -> None:
    _, old = keys(wireguard)
    node = wireguard.node2
    node.end(signal.SIGTERM)
    assert "flannel-wg" not in on(node, "ip link")
    (node.directory / "wgkey").unlink()
    node.start()
    node.wait_ready()
    _, new = keys(wireguard)
    assert new != old
    wait_until(
        lambda: on(wireguard.node1, "wg show flannel-wg peers").split() == [new], 20, "only the new key is a peer's"
    )
    wireguard.wait_connected()


def test_an_agent_that_ends_to_be_started_again_leaves_the_device(wireguard: TwoNodes) -> None:
    node = wireguard.node1
    device = on(node, "wg show flannel-wg public-key")
    wireguard.underlay.ip(node.netns, "link set eth0 mtu 1400")
    assert node.process.wait(30) == 1
    assert on(node, "wg show flannel-wg public-key") == device
    wireguard.underlay.ip(node.netns, "link set eth0 mtu 1500")
    node.start()
    node.wait_ready()
    wireguard.wait_connected()


def test_ipip_has_flannels_device_and_routes(ipip: TwoNodes) -> None:
    node = ipip.node1
    shown = on(node, "ip -d address show flannel.ipip")
    assert "ipip remote any local 192.168.8.227" in shown
    assert "mtu 1480" in shown
    assert "inet 10.0.46.0/32" in shown
    assert "10.0.90.0/24 via 192.168.8.228 dev flannel.ipip onlink" in lines(on(node, "ip route"))
    value = ipip.underlay.leases()["/coreos.com/network/subnets/10.0.46.0-24"]
    assert value == '{"PublicIP":"192.168.8.227","PublicIPv6":null,"BackendType":"ipip"}'


@pytest.mark.parametrize("command", ["ip link delete flannel.ipip", "ip route delete 10.0.90.0/24"])
def test_ipips_device_and_routes_are_made_again(ipip: TwoNodes, command: str) -> None:
    node = ipip.node1
    before = lines(on(node, "ip route"))
    on(node, command)
    wait_until(lambda: lines(on(node, "ip route")) == before, 5, "all is as before", lambda: node.log)
    ipip.wait_connected()
