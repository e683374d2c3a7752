"""What the wireguard and ipip backends want for a peer, without a kernel that has them."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import cast

import pytest

from agent.backends.base import Underlay
from agent.backends.ipip import IpipPlan
from agent.backends.wireguard import KEY, WireguardPlan, peer_data, prefers_ipv6, read_or_make_key
from agent.errors import EnvironmentMissing
from agent.kernel.kernel import Kernel
from agent.kernel.values import Route, WireguardPeer, WireguardState
from agent.kernel.wireguard import WireguardDevices
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import IpipOptions, WireguardOptions

KEY1 = "cDTJgNyxPdfWWdzMYIZjoR+TtJVoDTm8j/4S0bgEOOo="
UNDERLAY = Underlay("eth0", IPv4Address("192.168.8.227"), 1500, IPv4Address("192.168.8.227"))
PEER_SUBNET, PEER_IP = IPv4Network("10.0.90.0/24"), IPv4Address("192.168.8.228")
NO_KERNEL = cast(Kernel, None)


@pytest.mark.parametrize("direct", [True, False])
def test_ipip_routes_by_the_peers_public_address(direct: bool) -> None:
    plan = IpipPlan(IpipOptions(direct_routing=direct), UNDERLAY, NO_KERNEL)
    lease = Lease(Subnet(PEER_SUBNET), LeaseAttrs(PEER_IP, backend_type="ipip"), 1, 1)
    connected = Route(IPv4Network("192.168.8.0/24"), "eth0", scope="link", protocol="kernel")
    (entry,) = plan.peer_entries(lease, [connected])
    device = "eth0" if direct else "flannel.ipip"
    assert entry.route == Route(PEER_SUBNET, device, gateway=PEER_IP, onlink=not direct)
    assert plan.overlay_mtu == 1480


def test_a_peer_without_a_port_listens_on_ours() -> None:
    assert peer_data({"PublicKey": KEY1}, 51820) == (KEY1, 51820)
    assert peer_data({"publickey": KEY1, "port": 7}, 51820) == (KEY1, 7)


@pytest.mark.parametrize("data", [None, "x", {}, {"PublicKey": "short"}, {"PublicKey": KEY1, "Port": 70000}])
def test_a_peer_without_a_key_or_with_a_bad_port_is_ignored(data: object) -> None:
    with pytest.raises(ValueError, match="in its backend data"):
        peer_data(data, 51820)


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "own", "chosen"),
    [
        ("8.8.8.8", "2a00::1", "2a00::2", False),
        ("10.1.1.1", "2a00::1", "2a00::2", True),
        ("10.1.1.1", "2a00::1", "fd00::2", False),
        ("10.1.1.1", "fd00::1", "2a00::2", False),
        ("10.1.1.1", "2a00::1", None, False),
    ],
)
def test_mode_auto_takes_ipv6_only_where_both_ends_are_public_and_ipv4_is_not(
    ipv4: str, ipv6: str, own: str | None, chosen: bool
) -> None:
    mine = None if own is None else IPv6Address(own)
    assert prefers_ipv6(IPv4Address(ipv4), IPv6Address(ipv6), mine) is chosen


class Devices:
    """Keeps the peers that it is given."""

    def __init__(self) -> None:
        self.peers: dict[str, WireguardPeer] = {}

    def read(self, _name: str) -> WireguardState:
        return WireguardState("", "", 51820, dict(self.peers))

    def set_peer(self, _name: str, peer: WireguardPeer, _why: str) -> None:
        self.peers[peer.public_key] = peer

    def remove_peer(self, _name: str, public_key: str, _why: str) -> None:
        del self.peers[public_key]


def test_two_leases_with_one_key_are_named_once_while_it_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = WireguardPlan(WireguardOptions(), {4: IPv4Network("10.0.0.0/16")}, UNDERLAY, NO_KERNEL, tmp_path / "wgkey")
    devices = Devices()
    plan._wireguard = cast(WireguardDevices, devices)
    data = {"PublicKey": KEY1, "Port": 51820}
    first = Lease(Subnet(PEER_SUBNET), LeaseAttrs(PEER_IP, backend_type="wireguard", backend_data=data), 1, 1)
    clone = replace(
        first, subnet=Subnet(IPv4Network("10.0.91.0/24")), attrs=replace(first.attrs, public_ip=PEER_IP + 1)
    )
    for peers in ([first], [first, clone], [first, clone], [first], [first, clone]):
        plan.converge_peers(peers)
    assert devices.peers[KEY1].allowed == {clone.subnet.ipv4}
    warning = (
        "lease 10.0.90.0/24 of 192.168.8.228 ignored: lease 10.0.91.0/24 of 192.168.8.229 has the same public key"
        " (want another key on each node)"
    )
    assert [record.getMessage() for record in caplog.records] == [warning, warning], "once each time it begins"


def test_a_key_is_made_once_and_only_we_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "flannel" / "wgkey"
    key = read_or_make_key(path)
    assert KEY.fullmatch(key)
    assert read_or_make_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o400


def test_a_file_that_holds_no_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "wgkey"
    path.write_text("my secret")
    with pytest.raises(EnvironmentMissing, match="not a key") as caught:
        read_or_make_key(path)
    assert "secret" not in str(caught.value)


def test_an_endpoint_that_moved_is_no_other_setting() -> None:
    peer = WireguardPeer(KEY1, (PEER_IP, 51820), frozenset({PEER_SUBNET}), psk=KEY1)
    moved = replace(peer, endpoint=(PEER_IP, 40000))
    assert peer.settings == moved.settings
    assert peer.settings != replace(peer, keepalive_s=5).settings
    assert KEY1 not in repr(replace(peer, public_key="x"))
