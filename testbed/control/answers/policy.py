"""What network policies let through: `policy -o json`."""

from typing import NotRequired, TypedDict


class PolicyDirection(TypedDict):
    """What the policies of one pod say in one direction."""

    pod: str
    isolated_by: list[str]
    """The policies that select the pod, as NAMESPACE/NAME; none: everything passes."""
    allowed_by: list[str]
    """Those of them with a rule that fits."""


class PolicyLine(TypedDict):
    """Ports with one answer."""

    ports: list[str]
    """`8080/tcp`, `53-60/udp`, `*/sctp` (every port), `other protocols` (ICMP and what else has none), or `all`."""
    allowed: bool
    reason: str
    """`allowed by …` or `denied by …`."""
    egress: PolicyDirection | None
    """Of the source; null where it is no pod."""
    ingress: PolicyDirection | None
    """Of the target; null where it is no pod."""


class PolicyTarget(TypedDict):
    """One target: the one that was asked for, or a Service's endpoint."""

    target: str
    address: str
    lines: list[PolicyLine]


class PolicyPair(TypedDict):
    """Two pods."""

    source: str
    target: str
    ports: list[str]
    """Those that pass, as in a line; empty: none."""


class ReachChange(TypedDict):
    """Two pods between which other ports would pass."""

    source: str
    target: str
    gains: list[str]
    """Ports, as in a line of `policy`."""
    loses: list[str]


class PolicyAnswer(TypedDict):
    """Of two ends: `targets`; of all: `pods` and `pairs`."""

    source: NotRequired[str]
    targets: NotRequired[list[PolicyTarget]]
    pods: NotRequired[list[str]]
    pairs: NotRequired[list[PolicyPair]]
