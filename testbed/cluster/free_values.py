"""Finds a free value for a message that suggests one. Pure."""

import re
from collections.abc import Container
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import chain, count, islice

LAST_PORT = 65535  # RFC 768: 16 bits
MOST_TRIED = 4096
"""Addresses and subnets to try; a range this full may have none."""


def free_name(name: str, taken: Container[str], between: str = "-", longest: int = 63) -> str:
    """Return `web-2` for `web`, or the next number that is free."""
    stem = re.sub(rf"{re.escape(between)}[0-9]+$", "", name) or name
    for number in count(2):
        ending = f"{between}{number}"
        candidate = stem[: longest - len(ending)] + ending
        if candidate not in taken:
            return candidate
    raise AssertionError("count ends never")


def free_port(port: int, taken: Container[int], first: int = 1, last: int = LAST_PORT) -> int:
    """Return the next free number above `port`, else the lowest."""
    return next(number for number in chain(range(port + 1, last + 1), range(first, port)) if number not in taken)


def free_address(
    network: IPv4Network | IPv6Network, taken: Container[IPv4Address | IPv6Address], offset: int
) -> IPv4Address | IPv6Address:
    """Return the first free address of a network from its `offset`-th on; the network itself is not full."""
    last = network.num_addresses - 2
    offsets = islice(chain(range(min(offset, last), last + 1), range(1, offset)), MOST_TRIED)
    return next((one for number in offsets if (one := network[number]) not in taken), network[1])


def free_subnet(
    first: IPv4Address | IPv6Address, last: IPv4Address | IPv6Address, length: int, taken: Container[object]
) -> IPv4Network | IPv6Network:
    """Return the first free subnet between two network addresses."""
    step = 1 << (first.max_prefixlen - length)
    candidates = (ip_network((number, length)) for number in range(int(first), int(last) + 1, step))
    start = ip_network((int(first), length))
    return next((one for one in islice(candidates, MOST_TRIED) if one not in taken), start)
