"""WireGuard's sessions: a handshake precedes the first packet between two nodes.

If both start one at the same moment, each has answered the other and waits for a packet with the new key, and nothing
passes until one of them starts again, five seconds later (whitepaper §6.1, §6.4). So one of each two nodes starts it,
before there is any traffic.
"""

from collections.abc import Sequence
from itertools import combinations

from testbed.lab.ping import PingSender, PingTarget, ping_pairs
from testbed.pods.pod_network import PodHost

ANSWER_LIMIT_S = 0.5


def missing_sessions(nodes: Sequence[PodHost]) -> list[str]:
    """Return nodes that get no reply from each other through the overlay, one line for each pair.

    Raises NoSubnetYet.
    """
    found = ping_pairs(handshake_initiators(nodes), timeout_s=ANSWER_LIMIT_S)
    return [f"{one.source} gets no reply from {one.destination}, {one.address}" for one in found if not one.received]


def handshake_initiators(nodes: Sequence[PodHost]) -> list[tuple[PingSender, PingTarget]]:
    """Return who pings whom of each two nodes; over IPv6 too, which may have its own device, and so its own session.

    Pure.
    """
    return [
        (PingSender(first.name, first.pid), PingTarget(second.name, subnet.network_address + 1))
        for first, second in combinations(nodes, 2)
        for subnet in (second.subnet, second.ipv6_subnet)
        if subnet is not None
    ]
