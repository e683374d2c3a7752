"""What tests ask of the answer of `testbed trace -o json`."""

from typing import Any


def way(trace: dict[str, Any], leg: str) -> list[tuple[str, str, str]]:
    """Return node, interface and direction of each hop of one packet."""
    return [(hop["node"], hop["interface"], hop["direction"]) for hop in trace["hops"] if hop["leg"] == leg]


def hop_at(trace: dict[str, Any], node: str, interface: str, leg: str = "request") -> dict[str, Any]:
    """Return a packet's first hop at an interface."""
    return next(hop for hop in trace["hops"] if (hop["node"], hop["interface"], hop["leg"]) == (node, interface, leg))
