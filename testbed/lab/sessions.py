"""WireGuard's sessions: before the first packet between two nodes comes a handshake.

Where both begin one at the same moment, each has answered the other and waits to hear by the new key, and nothing goes
until one of them begins again, five seconds later (whitepaper §6.1, §6.4). So of each two nodes one begins, before
anybody has something to send.
"""

from collections.abc import Sequence
from itertools import combinations

from testbed.lab.ping import PingSender, PingTarget, ping_pairs
from testbed.pods.pod_network import PodHost

ANSWER_LIMIT_S = 0.5


def missing_sessions(nodes: Sequence[PodHost]) -> list[str]:
    """Nodes that do not answer each other through the overlay, a line for each two. Raises NoSubnetYet."""
    found = ping_pairs(beginners(nodes), timeout_s=ANSWER_LIMIT_S)
    return [f"{one.source} has no answer of {one.destination}, {one.address}" for one in found if not one.received]


def beginners(nodes: Sequence[PodHost]) -> list[tuple[PingSender, PingTarget]]:
    """Of each two nodes, who asks whom; by IPv6 too, which may have a device, and so a session, of its own. Pure."""
    return [
        (PingSender(first.name, first.pid), PingTarget(second.name, subnet.network_address + 1))
        for first, second in combinations(nodes, 2)
        for subnet in (second.subnet, second.ipv6_subnet)
        if subnet is not None
    ]
