"""What goes through the links, from two readings of their counters. Pure."""

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
COUNTERS = ("tx_bytes", "rx_bytes", "tx_dropped", "rx_dropped")


def rates(before: Facts, after: Facts, seconds: float) -> dict[str, dict[str, float]]:
    """For each interface, as `MACHINE/INTERFACE`: bytes and drops per second, out (`tx`) and in (`rx`).

    Interfaces that were made between the readings are left out, and those whose counters went back.
    """
    old = _counters(before)
    found = {}
    for name, new in _counters(after).items():
        if name not in old or seconds <= 0:
            continue
        differences = {counter: new[counter] - old[name][counter] for counter in COUNTERS}
        if min(differences.values()) >= 0:
            found[name] = {counter: round(value / seconds, 1) for counter, value in differences.items()}
    return found


def drops(facts: Facts) -> dict[str, dict[str, int]]:
    """Packets that agents dropped, by node and reason; reasons without any are left out."""
    return {
        node["name"]: {reason: count for reason, count in node["drops"].items() if count} for node in facts["nodes"]
    }


def _counters(facts: Facts) -> dict[str, dict[str, int]]:
    return {
        f"{place['name']}/{link['name']}": {counter: link[counter] for counter in COUNTERS}
        for place in (*facts["machines"], *facts["switches"])
        for link in place["interfaces"]
    }
