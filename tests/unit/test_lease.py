"""Keys and values of leases, byte for byte as a real flanneld writes them."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from agent.lease import LeaseAttrs, Subnet, parse_key

VECTORS = Path(__file__).parents[1] / "vectors" / "real-flanneld"
PUBLIC_IP = IPv4Address("1.2.3.4")


@pytest.mark.parametrize("backend", ["udp", "vxlan", "host-gw"])
def test_values_of_a_real_flanneld_come_back_byte_for_byte(backend: str) -> None:
    dump = json.loads((VECTORS / f"{backend}-etcd.json").read_text())
    leases = {key: entry["value"] for key, entry in dump.items() if "/subnets/" in key}
    assert len(leases) == 2
    for key, value in leases.items():
        assert LeaseAttrs.from_json(value).to_json() == value
        assert parse_key(key).key == key.rpartition("/")[2]


@pytest.mark.parametrize(
    ("attrs", "text"),
    [
        (LeaseAttrs(PUBLIC_IP), '{"PublicIP":"1.2.3.4","PublicIPv6":null}'),
        (
            LeaseAttrs(PUBLIC_IP, backend_type="ipip"),
            '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"ipip"}',
        ),
        (
            LeaseAttrs(
                PUBLIC_IP, IPv6Address("fd00::3"), "vxlan", {"VNI": 1, "VtepMAC": "c6:d2:32:6f:8f:44"}, {"VNI": 1}
            ),
            '{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::3","BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":1}}',
        ),
        (
            LeaseAttrs(PUBLIC_IP, backend_type="extension", backend_data="a<b>&ü"),
            '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"extension","BackendData":"a\\u003cb\\u003e\\u0026ü"}',
        ),
    ],
)
def test_values_are_written_as_go_writes_them(attrs: LeaseAttrs, text: str) -> None:
    assert attrs.to_json() == text
    assert LeaseAttrs.from_json(text) == attrs


@pytest.mark.row("B41")
def test_unknown_fields_and_other_case_are_tolerated() -> None:
    text = b'{"publicip":"1.2.3.4","Weight":3,"BackendType":null}'
    assert LeaseAttrs.from_json(text) == LeaseAttrs(PUBLIC_IP)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "PublicIP is missing"),
        ('{"PublicIP":5}', "PublicIP is not an IPv4 address"),
        ('{"PublicIP":null}', "PublicIP is not an IPv4 address"),
        ('{"PublicIP":"fd00::1"}', "PublicIP"),
        ('{"PublicIP":"1.2.3.400"}', "PublicIP"),
        ('{"PublicIP":"1.2.3.4","PublicIPv6":5}', "PublicIPv6"),
        ('{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}', "PublicIPv6"),
        ('{"PublicIP":"1.2.3.4","PublicIPv6":"fe80::1%eth0"}', "PublicIPv6: 'fe80::1%eth0' has a zone"),
        ('{"PublicIP":"1.2.3.4","BackendType":5}', "BackendType"),
        ('{"PublicIP":"' + "x" * 1_000_000 + '"}', "PublicIP"),
    ],
)
@pytest.mark.row("B41")
def test_a_value_that_is_no_lease_is_refused_briefly(value: str | bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        LeaseAttrs.from_json(value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "subnet"),
    [
        ("10.12.13.0-24", Subnet(IPv4Network("10.12.13.0/24"))),
        ("0.0.0.0-0", Subnet(IPv4Network("0.0.0.0/0"))),
        ("10.12.13.2-31", Subnet(IPv4Network("10.12.13.2/31"))),
        ("10.12.13.0-24&fd00:12:13::-56", Subnet(IPv4Network("10.12.13.0/24"), IPv6Network("fd00:12:13::/56"))),
        ("/coreos.com/network/subnets/10.12.13.0-24", Subnet(IPv4Network("10.12.13.0/24"))),
    ],
)
def test_keys_name_subnets(key: str, subnet: Subnet) -> None:
    assert parse_key(key) == subnet
    assert subnet.key == key.rpartition("/")[2]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "10.12.13.0",
        "10.12.13.0-",
        "10.12.13.0/24",
        "10.12.13-24",
        "10.12.300.0-24",
        "10.12.13.0-32",
        "10.12.13.0-33",
        "10.12.13.0-24hi",
        "10.12.13.0-24\n",
        "10.12.13.1-24",
        "10.12.13.0-24&fd00::-128",
        "10.12.13.0-24&FD00::-64",
        "10.12.13.0-24&fd00::1-64",
        "10.12.13.0-24&-64",
        "\u0661\u0660.12.13.0-24",
        "10.12.13.0-\u0662\u0664",
        "ü" * 4096,
        "10.12.13.0-" + "2" * 4096,
    ],
)
@pytest.mark.row("B40")
def test_a_key_that_names_no_subnet_is_refused_briefly(key: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_key(key)
    assert len(str(caught.value)) < 200


def test_subnets_overlap_in_either_family() -> None:
    both = Subnet(IPv4Network("10.0.1.0/24"), IPv6Network("fd00::/64"))
    assert both.overlaps(Subnet(IPv4Network("10.0.1.128/25")))
    assert both.overlaps(Subnet(IPv4Network("10.0.2.0/24"), IPv6Network("fd00::/80")))
    assert not both.overlaps(Subnet(IPv4Network("10.0.2.0/24"), IPv6Network("fd00:1::/64")))
