"""The options of each backend: flannel's names and defaults, and every mistake told."""

import json

import pytest

from agent.errors import InvalidConfig
from agent.netconfig.backend_options import ExtensionOptions, IpipOptions, VxlanOptions, WireguardOptions
from agent.netconfig.config import parse_network_config

KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY="


def read(**backend: object) -> object:
    return parse_network_config(json.dumps({"Network": "10.3.0.0/16", "Backend": backend}).encode()).backend


def complaint(**backend: object) -> str:
    with pytest.raises(InvalidConfig) as caught:
        read(**backend)
    return str(caught.value)


def test_options_that_are_not_given_have_flannels_defaults() -> None:
    assert read(Type="vxlan") == VxlanOptions(1, 8472, None, gbp=False, learning=False, direct_routing=False)
    assert read(Type="wireguard") == WireguardOptions(51820, 51821, None, "", 0, "separate")
    assert read(Type="ipip") == IpipOptions(direct_routing=False)
    assert read(Type="extension") == ExtensionOptions()
    assert read(Type="host-gw") is None
    assert read(Type="alloc") is None


def test_names_match_in_any_case_and_zero_means_the_default_port() -> None:
    assert read(type="VXLAN", vni=7, port=0, directrouting=True) == VxlanOptions(7, 8472, direct_routing=True)
    assert read(Type="wireguard", psk=KEY, Mode="auto", MTU=1400) == WireguardOptions(psk=KEY, mode="auto", mtu=1400)


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ({"Type": "vxlan", "VNI": 0}, "Backend.VNI: not such a number (got 0; want a number from 1 to 9999999"),
        ({"Type": "vxlan", "VNI": "1"}, 'Backend.VNI: not such a number (got "1"'),
        ({"Type": "vxlan", "Port": 70000}, "Backend.Port: not a port (got 70000"),
        ({"Type": "vxlan", "MTU": 100}, "Backend.MTU: not an MTU (got 100; want bytes, 576 to 65535)"),
        ({"Type": "vxlan", "DirectRouting": "yes"}, "Backend.DirectRouting: not a boolean"),
        ({"Type": "wireguard", "Mode": "both"}, "Backend.Mode: unknown mode"),
        ({"Type": "wireguard", "PSK": "secret"}, "Backend.PSK: not a key"),
        ({"Type": "extension", "SubnetAddCommand": "cat | sh"}, "needs a shell, which is not used"),
        ({"Type": "extension", "SubnetAddCommand": "echo 'x"}, "cannot be split into words"),
        ({"Type": "extension", "SubnetAddCommand": ["x"]}, "not a string"),
    ],
)
@pytest.mark.row("C20")
def test_each_wrong_option_is_reported(backend: dict[str, object], problem: str) -> None:
    assert problem in complaint(**backend)


def test_a_key_is_never_shown() -> None:
    assert "secret" not in complaint(Type="wireguard", PSK="secret")


def test_every_wrong_option_is_reported_at_once() -> None:
    text = complaint(Type="vxlan", VNI=-1, Port="x", Learning=3)
    assert [name in text for name in ("Backend.VNI", "Backend.Port", "Backend.Learning")] == [True] * 3


def test_ipv6_has_a_longer_device_name_and_so_fewer_vnis() -> None:
    config = {"Network": "10.3.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00::/48"}
    config["Backend"] = {"Type": "vxlan", "VNI": 10_000}
    with pytest.raises(InvalidConfig, match=r"Backend\.VNI"):
        parse_network_config(json.dumps(config).encode())
    config["Backend"] = {"Type": "ipip"}
    with pytest.raises(InvalidConfig, match=r"ipip backend carries IPv4 only.*host-gw, vxlan, wireguard"):
        parse_network_config(json.dumps(config).encode())
