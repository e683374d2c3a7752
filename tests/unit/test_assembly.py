"""What is refused before an agent makes anything."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from agent.assembly import refuse_underlay_inside
from agent.backends.base import Underlay
from agent.errors import EnvironmentMissing
from agent.netconfig.config import parse_network_config
from agent.options.options import Options

CONFIG = parse_network_config(
    b'{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:a::/48","Backend":{"Type":"vxlan"}}'
)
OUTSIDE, INSIDE = "192.168.8.227", "10.0.46.1"
OUTSIDE6, INSIDE6 = "fd00:8::227", "fd00:a:0:46::1"


def underlay(address: str, public_ip: str, ipv6_address: str, public_ipv6: str) -> Underlay:
    return Underlay(
        "eth0",
        IPv4Address(address),
        1500,
        IPv4Address(public_ip),
        IPv6Address(ipv6_address),
        IPv6Address(public_ipv6),
    )


@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        ((INSIDE, OUTSIDE, OUTSIDE6, OUTSIDE6), INSIDE),
        ((OUTSIDE, INSIDE, OUTSIDE6, OUTSIDE6), INSIDE),
        ((OUTSIDE, OUTSIDE, INSIDE6, OUTSIDE6), INSIDE6),
        ((OUTSIDE, OUTSIDE, OUTSIDE6, INSIDE6), INSIDE6),
    ],
)
def test_no_address_of_the_underlay_may_be_a_pods(addresses: tuple[str, str, str, str], named: str) -> None:
    refuse_underlay_inside(underlay(OUTSIDE, OUTSIDE, OUTSIDE6, OUTSIDE6), CONFIG, Options())
    with pytest.raises(EnvironmentMissing, match=f"^eth0: is in the pod network \\(got {named}; want"):
        refuse_underlay_inside(underlay(*addresses), CONFIG, Options())
