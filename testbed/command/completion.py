"""What the shell offers after a verb: names of labs, clusters, nodes and pods as they are now. Never an error."""

import contextlib
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from testbed.control.client import ask, find_lab, running_labs
from testbed.errors import TestbedError

ANSWER_LIMIT_S = 1.0
"""Nobody waits longer for the Tab key."""
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def labs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the running labs."""
    with contextlib.suppress(TestbedError):
        return _items([lab.name for lab in running_labs()], incomplete)
    return []


def clusters(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Clusters that come with the testbed and exercises; the shell adds files."""
    from testbed.exercises.catalogue import EXERCISES, PREFIX
    from testbed.places import TOPOLOGIES

    names = [file.stem for file in sorted(TOPOLOGIES.glob("*.yaml"))] + [PREFIX + name for name in EXERCISES]
    return [*_items(names, incomplete), CompletionItem(incomplete, type="file")]


def names(*kinds: str) -> Completer:
    """Names in the lab that is meant, of the status' `kinds`: nodes, pods, etcd, services."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        status: dict[str, Any] = {}
        with contextlib.suppress(TestbedError, OSError):
            status = ask(find_lab(context.params.get("lab")), "status", answer_within_s=ANSWER_LIMIT_S)
        return _items([entry["name"] for kind in kinds for entry in status.get(kind, [])], incomplete)

    return complete


def kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds that `get` and `describe` know, by their long names."""
    from testbed.command.command_line import KINDS

    return _items(sorted(set(KINDS.values())), incomplete)


def of_kind(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the kind that stands before."""
    from testbed.command.command_line import KINDS

    kind = KINDS.get(str(context.params.get("kind")), "")
    listed = {"nodes": "nodes", "routes": "nodes", "leases": "nodes", "pods": "pods", "services": "services"}.get(kind)
    return names(listed)(context, parameter, incomplete) if listed else []


def _items(found: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]
