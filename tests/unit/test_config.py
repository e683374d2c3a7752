"""The operator's network config: flannel's rules, all of them, and every mistake named."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from agent.errors import InvalidConfig
from agent.netconfig.backend_options import UdpOptions, VxlanOptions
from agent.netconfig.config import NetworkConfig, parse_network_config
from tests.unit.fake_registry import subnet


def parse(**fields: Any) -> NetworkConfig:  # noqa: ANN401 - any JSON
    return parse_network_config(json.dumps(fields).encode())


def problems(**fields: Any) -> str:  # noqa: ANN401 - any JSON
    with pytest.raises(InvalidConfig) as caught:
        parse(**fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("network", "subnet_len", "subnet_min", "subnet_max"),
    [
        ("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0"),
        ("10.0.0.0/22", 24, "10.0.1.0", "10.0.3.0"),
        ("10.0.0.0/23", 25, "10.0.0.128", "10.0.1.128"),
        ("10.0.0.0/28", 30, "10.0.0.4", "10.0.0.12"),
        ("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0"),
        ("0.0.0.0/0", 24, "0.0.1.0", "255.255.255.0"),
        ("10.3.5.7/16", 24, "10.3.1.0", "10.3.255.0"),
    ],
)
def test_config_defaults(network: str, subnet_len: int, subnet_min: str, subnet_max: str) -> None:
    config = parse(Network=network)
    assert config.network == IPv4Network(network, strict=False)
    assert config.subnet_len == subnet_len
    assert (config.subnet_min, config.subnet_max) == (IPv4Address(subnet_min), IPv4Address(subnet_max))
    assert (config.backend_type, config.backend) == ("udp", UdpOptions())
    assert config.ipv6_network is None


def test_config_overrides() -> None:
    config = parse(
        Network="10.3.0.0/16",
        SubnetLen=28,
        SubnetMin="10.3.5.0",
        SubnetMax="10.3.8.0",
        Backend={"Type": "VxLan", "VNI": 7},
    )
    assert (config.subnet_len, config.subnet_min, config.subnet_max) == (
        28,
        IPv4Address("10.3.5.0"),
        IPv4Address("10.3.8.0"),
    )
    assert (config.backend_type, config.backend) == ("vxlan", VxlanOptions(vni=7))


@pytest.mark.row("B22")
def test_host_bits_are_masked_with_any_length() -> None:
    config = parse(Network="10.3.5.7/16", SubnetLen=28)
    assert (config.subnet_min, config.subnet_max) == (IPv4Address("10.3.0.16"), IPv4Address("10.3.255.240"))


@pytest.mark.row("B22")
def test_host_bits_are_reported() -> None:
    config = parse(Network="10.3.5.7/16")
    assert config.warnings == ("Network: has host bits, which do not count (got 10.3.5.7/16; taken as 10.3.0.0/16)",)
    assert config == parse(Network="10.3.0.0/16")
    assert parse(Network="10.3.0.0/16").warnings == ()


def test_ipv6_follows_the_same_rules() -> None:
    config = parse(Network="10.3.0.0/16", EnableIPv6=True, IPv6Network="fc00::5/48", Backend={"Type": "vxlan"})
    assert (config.ipv6_network, config.ipv6_subnet_len) == (IPv6Network("fc00::/48"), 64)
    assert config.ipv6_subnet_min == IPv6Address("fc00:0:0:1::")
    assert config.ipv6_subnet_max == IPv6Address("fc00:0:0:ffff::")
    assert parse(Network="10.3.0.0/16", IPv6Network="junk").ipv6_network is None


def test_keys_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    config = parse(
        NETWORK="10.3.0.0/16", subnetlen=25, backend={"TYPE": "udp", "pORT": 9000}, EnableNFTables=True, x=[]
    )
    assert (config.subnet_len, config.backend) == (25, UdpOptions(9000))


def test_the_first_of_several_networks_counts() -> None:
    assert parse(Networks=["10.3.0.0/16", "10.4.0.0/16"]).network == IPv4Network("10.3.0.0/16")


@pytest.mark.parametrize(
    "absent", [{"SubnetLen": 0}, {"SubnetLen": None}, {"SubnetMin": "0.0.0.0"}, {"SubnetMin": None}]
)
@pytest.mark.row("B23")
def test_zero_and_null_mean_absent(absent: dict[str, Any]) -> None:
    assert parse(Network="10.3.0.0/16", **absent) == parse(Network="10.3.0.0/16")


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (None, "Network: please define a correct Network parameter in the flannel config"),
        ("", "please define a correct Network"),
        ("10.0.0.0/33", "Network: not a network in CIDR notation"),
        ("10.0.0.0", "Network: not a network"),
        ("10.0.0.0/255.255.0.0", "Network: not a network"),
        ("999.0.0.0/16", "Network: not a network"),
        ("fd00::/48", "Network: not a network"),
        (5, "Network: not a string"),
        ("10.0.0.0/29", "Minimum useful network prefix is /28"),
        ("10.0.0.0/32", "Minimum useful network prefix is /28"),
    ],
)
@pytest.mark.row("B22")
def test_a_bad_network_is_refused(network: object, complaint: str) -> None:
    assert complaint in problems(Network=network)


@pytest.mark.parametrize(
    ("subnet_len", "complaint"),
    [
        (31, "SubnetLen must be less than /31"),
        (17, "network must be able to accommodate at least four subnets"),
        (8, "at least four subnets"),
        (-1, "SubnetLen: not a prefix length"),
        (24.5, "SubnetLen: not a prefix length"),
        (24.0, "SubnetLen: not a prefix length"),
        ("24", 'SubnetLen: not a prefix length (got "24"'),
        (True, "SubnetLen: not a prefix length"),
        ([], "SubnetLen: not a prefix length"),
    ],
)
@pytest.mark.row("B23")
def test_a_bad_subnet_length_is_refused(subnet_len: object, complaint: str) -> None:
    assert complaint in problems(Network="10.3.0.0/16", SubnetLen=subnet_len)


@pytest.mark.parametrize("subnet_len", [18, 30])
@pytest.mark.row("B23")
def test_limits_of_the_subnet_length_are_allowed(subnet_len: int) -> None:
    assert parse(Network="10.3.0.0/16", SubnetLen=subnet_len).subnet_len == subnet_len


@pytest.mark.parametrize(
    ("field", "address", "complaint"),
    [
        ("SubnetMin", "10.4.1.0", "SubnetMin is not in the range of the Network"),
        ("SubnetMax", "10.4.0.0", "SubnetMax is not in the range of the Network"),
        ("SubnetMax", "10.2.255.0", "SubnetMax is not in the range of the Network"),
        ("SubnetMin", "10.3.1.4", "SubnetMin is not on a SubnetLen boundary: 10.3.1.4"),
        ("SubnetMax", "10.3.9.255", "SubnetMax is not on a SubnetLen boundary: 10.3.9.255"),
        ("SubnetMin", "10.3.1", "SubnetMin: not an address"),
        ("SubnetMax", 7, "SubnetMax: not a string"),
    ],
)
@pytest.mark.row("B24")
def test_bad_bounds_are_refused(field: str, address: object, complaint: str) -> None:
    assert complaint in problems(Network="10.3.0.0/16", **{field: address})


@pytest.mark.row("B24")
def test_a_minimum_above_the_maximum_is_found_before_anyone_asks_for_a_subnet() -> None:
    assert "SubnetMin is above SubnetMax" in problems(Network="10.3.0.0/16", SubnetMin="10.3.9.0", SubnetMax="10.3.8.0")
    assert "SubnetMin is above" in problems(Network="10.3.0.0/16", SubnetMax="10.3.0.0")


@pytest.mark.parametrize("backend", [{}, None, {"Type": ""}, {"Type": 5}, {"Port": 8285}, "udp", []])
@pytest.mark.row("B24")
def test_a_backend_without_a_type_is_refused(backend: object) -> None:
    assert "Backend" in problems(Network="10.3.0.0/16", Backend=backend)


@pytest.mark.parametrize("port", [0, -1, 65536, "8285", 1.5, True, []])
@pytest.mark.row("B24")
def test_a_bad_udp_port_is_refused(port: object) -> None:
    assert "Backend.Port: not a port" in problems(Network="10.3.0.0/16", Backend={"Type": "udp", "Port": port})


@pytest.mark.row("B24")
def test_the_udp_port_has_flannels_default() -> None:
    assert parse(Network="10.3.0.0/16").backend == UdpOptions(8285)


def test_udp_refuses_ipv6_and_nothing_works_without_ipv4() -> None:
    text = problems(Network="10.3.0.0/16", EnableIPv6=True, IPv6Network="fd00::/48")
    assert "EnableIPv6: the udp backend carries IPv4 only" in text
    assert "EnableIPv4" in problems(Network="10.3.0.0/16", EnableIPv4=False)
    assert "EnableIPv4: not a boolean" in problems(Network="10.3.0.0/16", EnableIPv4="yes")


def test_all_problems_are_reported_at_once() -> None:
    text = problems(
        Network="10.3.0.0/33", SubnetLen="24", SubnetMin="x", Backend={"Type": "udp", "Port": 0}, EnableIPv6=1
    )
    for field in ("Network:", "SubnetLen:", "SubnetMin:", "Backend.Port:", "EnableIPv6:"):
        assert field in text


@pytest.mark.parametrize("sizes", [{"SubnetLen": 31}, {"Network": "10.0.0.0/29"}])
@pytest.mark.row("B24")
def test_a_bad_bound_is_reported_beside_a_bad_size(sizes: dict[str, Any]) -> None:
    assert "SubnetMax: not an address" in problems(**{"Network": "10.3.0.0/16", "SubnetMax": "x", **sizes})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "not JSON at offset 0 of 0"),
        (b"{}", "please define a correct Network"),
        (b"null", "please define a correct Network"),
        (b"[]", "not an object at offset 0"),
        (b'"x"', "not an object"),
        (b'{"Network": "10.3.0.0/16"', "not JSON at offset 25 of 25"),
        ('{"ü": x}'.encode(), "not JSON at offset 7"),
        (b'{"x": "\xff"}', "not UTF-8 at offset 7"),
        (b'{"x": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "not usable JSON"),
        (b'{"SubnetLen": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b"x" * 1_000_000, "not JSON at offset 0 of 1000000"),
    ],
)
@pytest.mark.row("B21")
def test_a_text_that_is_no_config_is_refused_with_its_offset(text: bytes, complaint: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_network_config(text)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.row("B24")
def test_options_that_flannel_does_not_know_are_named() -> None:
    config = parse(Network="10.3.0.0/16", Backend={"Type": "udp", "Prot": 8285, "PORT": 8285})
    assert config.unknown_options == ("Prot",)
    assert parse(Network="10.3.0.0/16", Backend={"Type": "other", "x": 1}).unknown_options == ()


@pytest.mark.parametrize(
    ("cidr", "allowed"),
    [
        ("10.3.1.0/24", True),
        ("10.3.255.0/24", True),
        ("10.3.0.0/24", False),
        ("10.3.1.0/25", False),
        ("10.4.1.0/24", False),
    ],
)
def test_only_subnets_between_min_and_max_may_be_held(cidr: str, allowed: bool) -> None:
    assert parse(Network="10.3.0.0/16").allows(subnet(cidr)) is allowed
