"""Traffic of the links, from two readings of their counters. Pure."""

from testbed.control.answers.graph import GraphAnswer, InterfaceFacts


def rates(before: GraphAnswer, after: GraphAnswer, seconds: float) -> dict[str, dict[str, float]]:
    """Return, for each interface (`MACHINE/INTERFACE`), bytes and drops per second, out (`tx`) and in (`rx`).

    Omit interfaces created between the readings, and those whose counters went back.
    """
    old = _counters(before)
    found = {}
    for name, new in _counters(after).items():
        if name not in old or seconds <= 0:
            continue
        differences = {counter: count - old[name][counter] for counter, count in new.items()}
        if min(differences.values()) >= 0:
            found[name] = {counter: round(value / seconds, 1) for counter, value in differences.items()}
    return found


def _counters(facts: GraphAnswer) -> dict[str, dict[str, int]]:
    owners = [(one["name"], one["interfaces"]) for one in facts["machines"]]
    owners += [(one["name"], one["interfaces"]) for one in facts["switches"]]
    return {f"{owner}/{link['name']}": _of(link) for owner, links in owners for link in links}


def _of(link: InterfaceFacts) -> dict[str, int]:
    return {
        "tx_bytes": link["tx_bytes"],
        "rx_bytes": link["rx_bytes"],
        "tx_dropped": link["tx_dropped"],
        "rx_dropped": link["rx_dropped"],
    }
