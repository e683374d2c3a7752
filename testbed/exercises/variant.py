"""What a seed makes of an exercise: which node, pod, names and numbers are meant. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.errors import TestbedError

TABLES = ("company-firewall", "hardening", "site-policy", "legacy-rules")
"""nftables tables that no agent makes."""
SQUATTERS = ("metrics-daemon", "syslog-relay", "voice-gateway", "backup-helper")
"""Programs that take a port; a kernel keeps 15 letters."""
MTUS = (1400, 1300, 1350, 1420)
"""Bytes; small pages fit, full-size packets do not."""
SERVICE_FAULTS = ("selector", "port")
ROUTE_TABLES = (77, 120, 203)


class NotFit(TestbedError):
    """The lab is not one that this exercise can be made of."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One student's exercise."""

    victim: str
    """The node where it is broken."""
    other: str
    pod: str
    """On the victim."""
    peer: str
    """A pod on the other node."""
    table: str = TABLES[0]
    squatter: str = SQUATTERS[0]
    mtu: int = MTUS[0]
    service_fault: str = SERVICE_FAULTS[0]
    route_table: int = ROUTE_TABLES[0]

    @property
    def turned(self) -> "Variant":
        """The same with the nodes exchanged, for a fault on the other one."""
        return replace(self, victim=self.other, other=self.victim, pod=self.peer, peer=self.pod)

    def told(self, text: str) -> str:
        """Return a text of the catalogue with this variant's names."""
        return text.format(victim=self.victim, other=self.other, pod=self.pod, peer=self.peer)


def variant_of(pods: Mapping[str, Sequence[str]], seed: int) -> Variant:
    """Return the variant of a seed for a lab with these pods by node; 0 is the one that the docs describe.

    Raises NotFit.
    """
    nodes = [node for node, there in pods.items() if there]
    if len(nodes) < 2:
        raise NotFit("an exercise wants two nodes with pods")
    if seed == 0:
        return Variant(nodes[1], nodes[0], pods[nodes[1]][0], pods[nodes[0]][0])
    chosen = random.Random(seed)
    victim, other = chosen.sample(nodes, 2)
    return Variant(
        victim=victim,
        other=other,
        pod=chosen.choice(pods[victim]),
        peer=chosen.choice(pods[other]),
        table=chosen.choice(TABLES),
        squatter=chosen.choice(SQUATTERS),
        mtu=chosen.choice(MTUS),
        service_fault=chosen.choice(SERVICE_FAULTS),
        route_table=chosen.choice(ROUTE_TABLES),
    )
