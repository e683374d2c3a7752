"""WireGuard's sessions: before the first packet between two nodes comes a handshake.

Where both begin one at the same moment, each has answered the other and waits to hear by the new key, and nothing goes
until one of them begins again, five seconds later (whitepaper §6.1, §6.4). So of each two nodes one begins, before
anybody has something to send.
"""

from itertools import combinations
from typing import TYPE_CHECKING

from testbed.lab.node import LabNode
from testbed.lab.probe import Sender, Target, ping_pairs

if TYPE_CHECKING:
    from testbed.lab.lab import Lab

ANSWER_LIMIT_S = 0.5


def missing_sessions(lab: "Lab") -> list[str]:
    """Nodes that do not answer each other through the overlay, a line for each two; asked by one of them only."""
    nodes = [node for node in lab.nodes.values() if node.expected]
    pairs = [
        (Sender(first.name, first.pid), target)
        for first, second in combinations(nodes, 2)
        for target in _targets(second)
    ]
    found = ping_pairs(pairs, timeout_s=ANSWER_LIMIT_S)
    return [f"{one.source} has no answer of {one.destination}, {one.address}" for one in found if not one.received]


def _targets(node: LabNode) -> list[Target]:
    """Its bridge's addresses: each family has a device, and sessions, of its own."""
    subnets = [subnet for subnet in (node.subnet, node.ipv6_subnet) if subnet is not None]
    return [Target(node.name, subnet.network_address + 1) for subnet in subnets]
