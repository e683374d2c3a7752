"""Whether a node's forwarding table is what etcd's leases say."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from agent.lease import Lease, LeaseAttrs, Subnet
from testbed.lab.forwarding import difference, holders_of, misdirection

NODE2 = IPv4Address("192.168.8.102")
NODE2_IPV6 = IPv6Address("fd00:8::102")


def lease(ipv6: bool = False) -> Lease:
    subnet = Subnet(IPv4Network("10.0.3.0/24"), IPv6Network("fd00:a:0:3::/64") if ipv6 else None)
    return Lease(
        subnet, LeaseAttrs(public_ip=NODE2, public_ipv6=NODE2_IPV6 if ipv6 else None), etcd_lease_id=7, mod_revision=3
    )


def test_a_table_that_leads_to_whoever_holds_the_subnet_is_right() -> None:
    assert misdirection("node1", {"10.0.3.0/24": "192.168.8.102"}, holders_of([lease()])) is None


def test_a_table_that_leads_to_another_address_is_named() -> None:
    table = {"10.0.3.0/24": "192.0.2.1"}
    assert difference("node1", {"10.0.3.0/24"}, table) is None, "it has the right subnets"
    assert misdirection("node1", table, holders_of([lease()])) == (
        "node1's forwarding table sends 10.0.3.0/24 to 192.0.2.1 instead of 192.168.8.102"
    )


def test_one_tunnel_may_carry_both_families() -> None:
    holders = holders_of([lease(ipv6=True)])
    for to in ("192.168.8.102", "fd00:8::102"):
        assert misdirection("node1", {"10.0.3.0/24": to, "fd00:a:0:3::/64": to}, holders) is None
    assert "instead of 192.168.8.102 or fd00:8::102" in str(misdirection("node1", {"10.0.3.0/24": "::1"}, holders))


def test_a_subnet_without_holder_is_a_difference_and_no_misdirection() -> None:
    table = {"10.0.9.0/24": "192.168.8.102"}
    assert misdirection("node1", table, {}) is None
    assert ": unexpected 10.0.9.0/24" in str(difference("node1", set(), table))
