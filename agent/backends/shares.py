"""What a node has of each address family. Pure."""

from ipaddress import IPv4Interface, IPv6Interface

from agent.errors import InvalidConfig
from agent.kernel.values import Family, IPAddress, IPInterface, IPNetwork
from agent.lease import Lease, Subnet


def base_address(own: Subnet, family: Family) -> IPInterface:
    """The base of our subnet as a single address. Raises InvalidConfig when we lease none of that family."""
    if family == 4:
        return IPv4Interface((own.ipv4.network_address, 32))
    if own.ipv6 is None:
        raise InvalidConfig("our lease has no IPv6 subnet")
    return IPv6Interface((own.ipv6.network_address, 128))


def has_family(lease: Lease, family: Family) -> bool:
    """Whether a peer can be reached in that family; one that joined before IPv6 was enabled has IPv4 only."""
    return family == 4 or (lease.subnet.ipv6 is not None and lease.attrs.public_ipv6 is not None)


def share_of(lease: Lease, family: Family) -> tuple[IPNetwork, IPAddress, object]:
    """A peer's subnet, public address and backend data in one family. Raises ValueError when it has none."""
    attrs = lease.attrs
    if family == 4:
        return lease.subnet.ipv4, attrs.public_ip, attrs.backend_data
    if lease.subnet.ipv6 is None or attrs.public_ipv6 is None:
        raise ValueError("it has no IPv6 subnet and public address")
    return lease.subnet.ipv6, attrs.public_ipv6, attrs.backend_v6_data
