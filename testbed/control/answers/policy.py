"""What network policies allow: `policy -o json`."""

from typing import NotRequired, TypedDict


class PolicyDirection(TypedDict):
    """The result of one pod's policies in one direction."""

    pod: str
    isolated_by: list[str]
    """The policies that select the pod, as NAMESPACE/NAME; none: everything passes."""
    allowed_by: list[str]
    """Those of them with a matching rule."""


class PolicyLine(TypedDict):
    """Ports with one answer."""

    ports: list[str]
    """`8080/tcp`, `53-60/udp`, `*/sctp` (every port), `other protocols` (ICMP and others without ports), or `all`."""
    allowed: bool
    reason: str
    """`allowed by …` or `denied by …`."""
    egress: PolicyDirection | None
    """The source's side; null if it is not a pod."""
    ingress: PolicyDirection | None
    """The target's side; null if it is not a pod."""


class PolicyTarget(TypedDict):
    """One target: the requested one, or a Service's endpoint."""

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
    """For two ends: `targets`; for all: `pods` and `pairs`."""

    source: NotRequired[str]
    targets: NotRequired[list[PolicyTarget]]
    pods: NotRequired[list[str]]
    pairs: NotRequired[list[PolicyPair]]
