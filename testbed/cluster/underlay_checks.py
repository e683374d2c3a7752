"""Converts `underlay:` of a cluster file to a wiring: a topology by name, or switches, routers and links.

Pure, except for the import of the topology's module; problems are returned.
"""

from collections.abc import Iterator, Sequence

from testbed.cluster import topology
from testbed.cluster.cluster_document import ClusterDocument
from testbed.cluster.free_values import free_name
from testbed.cluster.name_rules import MAX_NODE_NAME
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.validation import Source, shown
from testbed.cluster.wiring import Wiring

FILLED_IN = "nodes"
"""A parameter that is filled in with the number of the file's nodes."""
NAMES_SHOWN = 6


def read_wiring(source: Source, document: ClusterDocument) -> tuple[Wiring | None, list[Problem]]:
    """Return the underlay's wiring with the nodes of the file; None with the problems otherwise."""
    if document.underlay.is_explicit:
        underlay = document.underlay
        problems = list(_check_links(source, document))
        problems += _check_names(source, document, underlay.switches or (), underlay.routers)
        doubtful = source.is_doubtful(("nodes",)) or source.is_doubtful(("underlay",))
        wiring = None if problems or doubtful else _listed(document)
        problems += _check_connected(source, wiring) if wiring else ()
    else:
        wiring, problems = _named(source, document)
        if wiring is not None:
            problems += _check_names(source, document, wiring.switches, wiring.routers)
    if wiring is not None and wiring.spare and document.underlay.switch == "ovs":
        spare = wiring.cables[min(wiring.spare)]
        what = f"no loops of Open vSwitch switches (got one that {spare} closes; want switch: bridge, or fewer links)"
        problems.append(source.problem(("underlay", "switch"), what))
    return (None if problems else wiring), problems


def _named(source: Source, document: ClusterDocument) -> tuple[Wiring | None, list[Problem]]:
    underlay, nodes = document.underlay, list(document.nodes)
    name, at = underlay.topology, ("underlay", "topology")
    try:
        found = topology.topology_class(name)
    except ValueError as error:
        return None, [source.problem(at, str(error))]
    declared, _ = topology.parameters_of(found)
    given = dict(underlay.parameters)
    problems = list(_check_parameters(source, name, [one for one in declared if one.name != FILLED_IN], given))
    if problems:
        return None, problems
    if any(one.name == FILLED_IN for one in declared):
        given[FILLED_IN] = len(nodes)
    try:
        wiring = topology.build(found, given)
    except topology.WrongTopology as error:
        return None, [source.problem(("underlay", "parameters"), f"{name}: {what}") for what in error.problems]
    except (ValueError, topology.TooManyParts) as error:
        what = (
            str(error)
            if isinstance(error, ValueError)
            else f"too big (got {error} nodes and switches; want at most {topology.MOST_PARTS})"
        )
        return None, [source.problem(("underlay", "parameters"), f"{name}: {what}")]
    if len(wiring.nodes) != len(nodes) and source.is_doubtful(("nodes",)):
        return None, []
    if len(wiring.nodes) != len(nodes):
        want = f"{len(wiring.nodes)}, or other parameters"
        what = f"not as many nodes as the topology {name} has with these parameters (got {len(nodes)}; want {want})"
        return None, [source.problem(("nodes",), what)]
    return wiring.renamed(nodes), []


def _check_parameters(
    source: Source, name: str, declared: list[topology.TopologyParameter], given: dict[str, object]
) -> Iterator[Problem]:
    kinds = {one.name: one.kind for one in declared}
    for parameter, value in given.items():
        path = ("underlay", "parameters", parameter)
        if parameter not in kinds:
            what = topology.unknown_parameter(name, parameter, declared)
            none = f"want none, {name} has no parameters here)"
            yield source.problem(path, what if declared else what.replace("want none)", none), at_key=True)
        elif want := topology.wrong_type(value, kinds[parameter]):
            yield source.problem(path, f"wrong type (got {shown(value)}; want {want})")


def _listed(document: ClusterDocument) -> Wiring:
    underlay = document.underlay
    cables = tuple(link.cable() for link in underlay.links or ())
    return Wiring(tuple(document.nodes), underlay.switches or (), cables, underlay.routers)


def _check_links(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    underlay = document.underlay
    switches, routers = list(underlay.switches or ()), list(underlay.routers)
    # A node with other problems may still have a link.
    written = source.document.value.get("nodes")
    nodes = list(dict.fromkeys([*document.nodes, *(written if isinstance(written, dict) else ())]))
    doubtful = any(source.is_doubtful(("underlay", group)) for group in ("switches", "routers"))
    yield from _twice(source, "switches", switches)
    yield from _twice(source, "routers", routers, switches)
    known = [*nodes, *switches, *routers]
    plugged: dict[str, tuple[int, str]] = {}
    all_known = True
    for number, link in enumerate(underlay.links or ()):
        path = ("underlay", "links", number, "ends")
        first, second = link.ends
        shown = f"{shorten(first, 20)} - {shorten(second, 20)}"
        unknown = [place for place, end in enumerate(link.ends) if end not in known and not doubtful]
        all_known = all_known and not unknown
        for place in unknown:
            end = link.ends[place]
            names = ", ".join(known[:NAMES_SHOWN]) + (" …" if len(known) > NAMES_SHOWN else "")
            what = (
                f"no such node, switch or router (got {shorten(end)} in {shown}; want {names}){near_match(end, known)}"
            )
            yield source.problem((*path, place), what)
        if first == second:
            yield source.problem(path, f"a link to itself (got {shown}; want two different ends)")
        elif not unknown and first in nodes and second in nodes:
            yield source.problem(path, f"two nodes without a switch between (got {shown}; want a switch at one end)")
        for place, end in enumerate(link.ends):
            if end in nodes and first != second:
                if end in plugged:
                    line, other = plugged[end]
                    got = f"{shown}, and {other} in line {line}"
                    what = f"a second link of a node (got {got}; want one, and switches for the rest)"
                    yield source.problem((*path, place), what)
                plugged.setdefault(end, (source.line((*path, place)), shown))
    if not all_known or source.is_doubtful(("underlay", "links")):
        # A link may only seem to be missing because one of its ends is misspelt.
        return
    ends = {end for link in underlay.links or () for end in link.ends}
    for name in nodes:
        if name not in ends:
            what = f"a node without a link (got none for {name}; want one of underlay.links to have this end)"
            yield source.problem(("nodes", name), what, at_key=True)
    for group in ("switches", "routers"):
        for number, name in enumerate(getattr(underlay, group) or ()):
            if name not in ends:
                what = f"no link (got no link of {name}; want one of underlay.links to have this end)"
                yield source.problem(("underlay", group, number), what)


def _twice(source: Source, group: str, names: list[str], others: list[str] | None = None) -> Iterator[Problem]:
    seen = dict.fromkeys(others or [], "switches")
    for number, name in enumerate(names):
        if name in seen:
            other = free_name(name, {*names, *(others or ())}, between="", longest=MAX_NODE_NAME)
            got = f"{name}, which underlay.{seen[name]} has too"
            what = f"a name twice (got {got}; want another, such as {other})"
            yield source.problem(("underlay", group, number), what)
        seen.setdefault(name, group)


def _check_connected(source: Source, wiring: Wiring) -> Iterator[Problem]:
    islands = wiring.islands()
    for island in islands[1:]:
        here, there = (", ".join(group[:NAMES_SHOWN]) for group in (islands[0], island))
        got = f"no path from {islands[0][0]} to {island[0]}"
        what = f"the underlay is not connected (got {got}; want a link between one of {here} and one of {there})"
        yield source.problem(("underlay", "links"), what)
    for router in wiring.routers:
        segments = wiring.ports[router]
        if len(set(segments)) < len(segments):
            got = f"{len(segments)} links of {router} into {len(set(segments))} subnets"
            what = f"a router twice in one subnet (got {got}; want one link for each group of switches)"
            yield source.problem(("underlay", "routers", wiring.routers.index(router)), what)


def _check_names(
    source: Source, document: ClusterDocument, switches: Sequence[str], routers: Sequence[str]
) -> Iterator[Problem]:
    for name in document.nodes:
        if name in switches or name in routers:
            kind = "switch" if name in switches else "router"
            taken = {*document.nodes, *switches, *routers}
            other = free_name(name if kind == "router" else "node1", taken, between="", longest=MAX_NODE_NAME)
            what = f"a {kind} of the underlay has this name (got {name}; want another, such as {other})"
            yield source.problem(("nodes", name), what, at_key=True)
