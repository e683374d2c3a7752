"""Shell completion: current names of labs, clusters, nodes and pods. Never raises an error."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from testbed.cluster.kinds import ALL, KINDS, NAMESPACE, Kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE
from testbed.command.object_words import kind_named
from testbed.control.client import ask, find_lab, running_labs
from testbed.control.questions import GET, STATUS
from testbed.errors import TestbedError

ANSWER_LIMIT_S = 1.0
"""The longest acceptable delay of the Tab key."""
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def labs(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return names of the running labs."""
    with contextlib.suppress(TestbedError):
        return _items([lab.name for lab in running_labs()], incomplete)
    return []


def clusters(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return bundled clusters and exercises; the shell adds files."""
    from testbed.exercises.catalogue import EXERCISES
    from testbed.places import TOPOLOGIES

    names = [file.stem for file in sorted(TOPOLOGIES.glob("*.yaml"))] + [*EXERCISES]
    return [*_items(names, incomplete), CompletionItem(incomplete, type="file")]


def names(*kinds: str) -> Completer:
    """Return names in the current lab, of the status' `kinds`: nodes, pods, etcd."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found: list[str] = []
        here = f"{context.params.get('namespace') or DEFAULT_NAMESPACE}/"
        with contextlib.suppress(TestbedError, OSError):
            status = ask(find_lab(context.params.get("lab")), STATUS, answer_within_s=ANSWER_LIMIT_S)
            parts = {
                "nodes": [node["name"] for node in status["nodes"]],
                "pods": [pod["name"].removeprefix(here) for pod in status["pods"]],
                "etcd": [member["name"] for member in status["etcd"]],
            }
            found = [name for kind in kinds for name in parts[kind]]
        return _items(found, incomplete)

    return complete


def namespaces(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return names of the lab's namespaces."""
    return _names_of(NAMESPACE.plural, context, incomplete)


def kinds(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the verb's kinds, by their long names."""
    return _items(sorted(kind.plural for kind in _kinds_of(context)) + [ALL] * (context.info_name == "get"), incomplete)


def kind_and_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return kinds for the first word, and names of that kind after it, or after `pod/`."""
    words: Sequence[str] = context.params.get("words") or ()
    kind, slash, begun = incomplete.partition("/")
    if slash:
        return [CompletionItem(f"{kind}/{item.value}") for item in _names_of(kind, context, begun)]
    return _names_of(words[0], context, incomplete) if words else kinds(context, parameter, incomplete)


def _kinds_of(context: click.Context) -> list[Kind]:
    if context.info_name == "describe":
        return [kind for kind in KINDS if kind.described]
    return [kind for kind in KINDS if kind.manifest or context.info_name == "get"]


def _names_of(word: str, context: click.Context, incomplete: str) -> list[CompletionItem]:
    found: Sequence[Any] = ()
    with contextlib.suppress(TestbedError, OSError):
        if kind := kind_named(word):
            lab = find_lab(context.params.get("lab"))
            here = context.params.get("namespace") or DEFAULT_NAMESPACE
            found = ask(lab, GET, answer_within_s=ANSWER_LIMIT_S, kind=kind.plural, namespace=here)
    return _items([item["metadata"]["name"] for item in found], incomplete)


def _items(found: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]
