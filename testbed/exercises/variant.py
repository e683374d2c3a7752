"""How a seed varies an exercise: its node, pod, names and numbers. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.errors import TestbedError

TABLES = ("company-firewall", "hardening", "site-policy", "legacy-rules")
"""nftables tables that no agent creates."""
SQUATTERS = ("metrics-daemon", "syslog-relay", "voice-gateway", "backup-helper")
"""Programs that take a port; a kernel keeps 15 characters."""
MTUS = (1400, 1300, 1350, 1420)
"""Bytes; small pages fit, full-size packets do not."""
SERVICE_FAULTS = ("selector", "port")
ROUTE_TABLES = (77, 120, 203)
POLICIES = ("team-baseline", "zero-trust", "tenant-rules", "audit-2026")
EGRESS_POLICIES = ("no-exfiltration", "outbound-review", "lockdown", "egress-baseline")
"""NetworkPolicies."""


class NotFit(TestbedError):
    """The exercise is not possible in this lab."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One student's exercise."""

    victim: str
    """The node with the fault."""
    other: str
    pod: str
    """A pod on the victim."""
    peer: str
    """A pod on the other node."""
    table: str = TABLES[0]
    squatter: str = SQUATTERS[0]
    mtu: int = MTUS[0]
    service_fault: str = SERVICE_FAULTS[0]
    route_table: int = ROUTE_TABLES[0]
    policy: str = POLICIES[0]
    egress_policy: str = EGRESS_POLICIES[0]

    @property
    def turned(self) -> "Variant":
        """Return the variant with the nodes exchanged, for a fault on the other one."""
        return replace(self, victim=self.other, other=self.victim, pod=self.peer, peer=self.pod)

    def fill(self, text: str) -> str:
        """Fill this variant's names into a text of the catalogue."""
        return text.format(victim=self.victim, other=self.other, pod=self.pod, peer=self.peer)


def variant_of(pods: Mapping[str, Sequence[str]], seed: int) -> Variant:
    """Return the variant of a seed for a lab with these pods by node; 0 is the one in the docs. Raises NotFit."""
    nodes = [node for node, there in pods.items() if there]
    if len(nodes) < 2:
        raise NotFit("an exercise needs two nodes with pods")
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
        policy=chosen.choice(POLICIES),
        egress_policy=chosen.choice(EGRESS_POLICIES),
    )
