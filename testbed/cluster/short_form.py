"""`nodes: [a, b]`, the short form of `nodes: {a: {}, b: {}}`. Pure; positions in the file are kept."""

from dataclasses import replace

from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

NODES = "nodes"


def with_nodes_by_name(source: Source) -> tuple[Source, list[Problem]]:
    """Return the document with its list of node names as a mapping, and a problem for each repeated name.

    A document with anything else under `nodes` is returned unchanged.
    """
    document = source.document
    names = document.value.get(NODES) if isinstance(document.value, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return source, []
    problems = []
    first: dict[str, int] = {}
    keys, values = dict(document.keys), dict(document.values)
    for number, name in enumerate(names):
        position = document.values[NODES, number]
        if name in first:
            line = document.values[NODES, first[name]].line
            what = f"{NODES}: {name} twice (got it at line {line} too; want each node once)"
            problems.append(source.problem_at(position, what))
            continue
        first[name] = number
        keys[NODES, name] = values[NODES, name] = position
    whole = {**document.value, NODES: {name: {} for name in first}}
    return Source(replace(document, value=whole, keys=keys, values=values), source.name), problems
