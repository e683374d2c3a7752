"""Where a lab differs from a user's Mininet topology: names of machines and interfaces, addresses. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from mininet.topo import Topo

from testbed.cluster.free_values import free_name
from testbed.cluster.name_rules import MAX_NODE_NAME, check_node_name, check_switch_name
from testbed.cluster.wiring import Cable, Wiring

SHOWN = 6
"""Names shown in a warning."""


def with_fitting_names(wiring: Wiring) -> tuple[Wiring, dict[str, str]]:
    """Return the wiring with valid names, and old name → new name for those that changed.

    Mininet takes `H1`, `agg_0` and `1`; here names are also those of Kubernetes nodes: `h1`, `agg-0`, `h1`.
    """
    names = (*wiring.switches, *wiring.routers, *wiring.nodes)
    letters = {**dict.fromkeys(wiring.switches, "s"), **dict.fromkeys(wiring.routers, "r")}
    checks = dict.fromkeys(wiring.nodes, check_node_name)
    # Valid names stay, whatever the others become.
    fitting = {name: name for name in names if _fits(name, checks.get(name, check_switch_name))}
    for name in names:
        if name not in fitting:
            check = checks.get(name, check_switch_name)
            fitting[name] = _fitting(name, letters.get(name, "h"), check, set(fitting.values()))
    changed = {name: fitting[name] for name in names if fitting[name] != name}
    renamed = Wiring(
        tuple(fitting[name] for name in wiring.nodes),
        tuple(fitting[name] for name in wiring.switches),
        tuple(Cable(fitting[cable.first], fitting[cable.second], cable.shaping) for cable in wiring.cables),
        tuple(fitting[name] for name in wiring.routers),
        None if wiring.root is None else fitting[wiring.root],
    )
    return (renamed if changed else wiring), changed


def _fits(name: str, check: Callable[[str], str]) -> bool:
    try:
        return bool(check(name))
    except ValueError:
        return False


def _fitting(name: str, letter: str, check: Callable[[str], str], taken: Collection[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = re.sub(r"-(eth[0-9]+)$", r"\1", plain)
    if not plain[:1].isalpha() or not _fits(plain[:MAX_NODE_NAME].rstrip("-"), check):
        plain = f"{letter}{plain}"
    if len(plain) > MAX_NODE_NAME:
        # The final number matters more than the letters before it.
        number = plain[len(plain.rstrip("0123456789")) :][-MAX_NODE_NAME // 2 :]
        plain = plain[: MAX_NODE_NAME - len(number)].rstrip("-") + number
    return free_name(plain, taken, longest=MAX_NODE_NAME) if plain in taken else plain


def warnings_of(topology: Topo, wiring: Wiring, renamed: Mapping[str, str]) -> Iterator[str]:
    """Return warnings about settings of the topology that the lab ignores; `wiring` has the topology's own names."""
    if renamed:
        got = _some(list(renamed))
        yield f"names that Kubernetes nodes cannot have (got {got}; they are {_some(list(renamed.values()))} here)"
    given = [f"{option} of {name}" for name in topology.nodes() for option in _addresses(topology.nodeInfo(name))]
    others = []
    ports: Counter[str] = Counter()
    for first, second, info in topology.links(sort=True, withInfo=True):
        for end, number in ((first, 1), (second, 2)):
            own = f"{renamed.get(end, end)}-eth{ports[end]}"
            ports[end] += 1
            params = dict(info.get(f"params{number}") or {})
            if info.get(f"addr{number}"):
                params["mac"] = info[f"addr{number}"]
            given += [f"{option} of {end} on {first} - {second}" for option in _addresses(params)]
            wanted = info.get(f"intfName{number}")
            if wanted not in (None, own) and end not in wiring.switches:
                others.append(f"{wanted}, which is {own}")
    if given:
        yield f"addresses and routes that are not used: the lab gives its own (got {_some(given)})"
    if others:
        yield f"names of interfaces that are not used (got {_some(others)})"


def _addresses(options: Mapping[str, Any]) -> list[str]:
    return [option for option in ("ip", "mac", "defaultRoute") if options.get(option)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
