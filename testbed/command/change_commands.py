"""Verbs that change what runs in a lab: apply, delete, scale."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from testbed.cluster.kinds import DEPLOYMENT, KINDS, MANIFESTS, REPLICA_SET
from testbed.cluster.object_key import DEFAULT_NAMESPACE, key_of
from testbed.cluster.selectors import Requirement, selected
from testbed.command.command_line import (
    FiniteRange,
    images_option,
    lab_option,
    namespace_option,
    output_option,
    strict_option,
    verbs,
)
from testbed.command.completion import kind_and_names
from testbed.command.manifest_files import read_files
from testbed.command.object_words import Meant, name_of, objects_meant
from testbed.command.selectors import read_selector, selector_option
from testbed.control.client import LabRecord, ask, ask_with_contents, find_lab
from testbed.control.questions import APPLY, DELETE, GET, SCALE
from testbed.errors import TestbedError
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.lab import ApplyAnswer, DeleteAnswer, ScaleAnswer

files_option = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="A file of manifests, a directory of such, or a web address; - is standard input.",
)
MOST_PAIRS = 30
"""The most pairs of pods that a dry run shows."""
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Read directories recursively.")


@verbs.command()
@files_option
@recursive_option
@click.option(
    "--dry-run",
    is_flag=False,
    flag_value="server",
    default="none",
    type=click.Choice(["none", "client", "server"]),
    help="Check everything and print what would be done; of kubectl's words, all except none mean the same.",
)
@click.option("--wait", is_flag=True, help="Wait until all of it is ready.")
@click.option("--timeout", type=FiniteRange(min=0), default=60.0, show_default=True, metavar="SECONDS")
@images_option
@strict_option
@namespace_option
@lab_option
@output_option("json")
def apply(
    files: tuple[str, ...],
    recursive: bool,
    dry_run: str,
    wait: bool,
    timeout: float,
    images: tuple[str, ...],
    strict: bool,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> None:
    """Create or change objects: apply -f FILE; everything in the files is checked before anything is done."""
    if not files:
        raise click.UsageError("want -f FILE", click.get_current_context())
    is_dry = dry_run != "none"
    if is_dry and wait:
        raise click.UsageError("--dry-run changes nothing to wait for", click.get_current_context())
    record = find_lab(lab)
    answer = ask_with_contents(
        record,
        APPLY,
        read_files(files, recursive=recursive),
        wait_s=timeout if wait else None,
        images=list(images),
        strict=strict,
        dry_run=is_dry,
        namespace=namespace,
    )
    _show(answer, output, " (dry run)" if is_dry else "")
    if output is None:
        from testbed.output import tables as render

        render.warnings(answer["warnings"])
        if changed := answer.get("reach"):
            print()
            render.columns(
                ("from", "to", "gains", "loses"),
                (
                    (one["source"], one["target"], _ports(one["gains"]), _ports(one["loses"]))
                    for one in changed[:MOST_PAIRS]
                ),
            )
            if len(changed) > MOST_PAIRS:
                print(f"and {len(changed) - MOST_PAIRS} more pairs of pods (all: -o json)")
        if not is_dry:
            next_commands(record.name, f"get all -o wide{_where(answer)}")


def _ports(those: Sequence[str]) -> str | None:
    """Return ports in a cell; None for none."""
    return ", ".join(those) or None


@verbs.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME…]", shell_complete=kind_and_names)
@files_option
@recursive_option
@selector_option
@click.option("--all", "everything", is_flag=True, help="All objects of the kinds.")
@click.option("--grace-period", type=FiniteRange(min=0), metavar="SECONDS", help="Instead of the pods' own.")
@click.option("--now", "grace_period", flag_value=1.0, type=float, help="A grace period of a second.")
@click.option("--force", "grace_period", flag_value=0.0, type=float, help="No grace period, as --grace-period 0.")
@click.option("--ignore-not-found", is_flag=True, help="Ignore missing objects.")
@namespace_option
@lab_option
@output_option("json")
def delete(
    words: tuple[str, ...],
    files: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    everything: bool,
    grace_period: float | None,
    ignore_not_found: bool,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> int:
    """Remove objects: delete pod NAME…, delete deploy/web svc/web, delete pods -l app=web, or delete -f FILE.

    Returns when they are gone. A pod first leaves every Service's endpoints, then gets SIGTERM, and SIGKILL when its
    grace period ends.
    """
    if bool(words) == bool(files) or (files and (selector or everything)):
        want = "want KIND NAME…, KIND -l LABELS, KIND --all, or -f FILE"
        raise click.UsageError(want, click.get_current_context())
    if files:
        contents = read_files(files, recursive=recursive)
        answer = ask_with_contents(find_lab(lab), DELETE, contents, grace_s=grace_period, namespace=namespace)
    else:
        meant = objects_meant(words, MANIFESTS.values(), may_be_all=True)
        if bool(selector) + everything + any(meant.values()) != 1:
            raise click.UsageError("want NAME…, -l LABELS or --all", click.get_current_context())
        where = namespace or DEFAULT_NAMESPACE
        answer = _delete_by_name(meant, read_selector(selector), grace_period, where, find_lab(lab))
    _show(answer, output)
    if answer["missing"] and not ignore_not_found:
        raise TestbedError("\n".join(answer["missing"]))
    return 0


def _delete_by_name(
    meant: Meant, requirements: Sequence[Requirement], grace_s: float | None, namespace: str, lab: LabRecord
) -> "DeleteAnswer":
    done: DeleteAnswer = {"objects": [], "missing": []}
    # Owners first: they would replace their pods.
    for kind, names in sorted(meant.items(), key=lambda one: KINDS.index(one[0]), reverse=True):
        there = () if names else ask(lab, GET, kind=kind.plural, namespace=namespace)
        chosen = [*names, *map(name_of, selected(there, requirements))]
        answer = ask(lab, DELETE, kind=kind.name, names=chosen, grace_s=grace_s, namespace=namespace)
        done["objects"] += answer["objects"]
        # Objects found by labels that are gone meanwhile are a success.
        done["missing"] += answer["missing"] if names else []
    return done


@verbs.command()
@click.argument("words", nargs=-1, required=True, metavar="deployment|replicaset NAME")
@click.option("--replicas", type=click.IntRange(0, 1000), required=True, metavar="N", help="How many pods.")
@click.option("--wait", is_flag=True, help="Wait until that many are ready.")
@click.option("--timeout", type=FiniteRange(min=0), default=60.0, show_default=True, metavar="SECONDS")
@namespace_option
@lab_option
@output_option("json")
def scale(
    words: tuple[str, ...],
    replicas: int,
    wait: bool,
    timeout: float,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> None:
    """Set the number of pods: scale deployment NAME --replicas N"""
    (kind, names), *others = objects_meant(words, [DEPLOYMENT, REPLICA_SET]).items()
    if others or len(names) != 1:
        raise click.UsageError("want deployment NAME, or replicaset NAME", click.get_current_context())
    answer = ask(
        find_lab(lab),
        SCALE,
        kind=kind.name,
        name=names[0],
        replicas=replicas,
        wait_s=timeout if wait else None,
        namespace=namespace,
    )
    _show(answer, output, f" from {answer['before']} to {answer['replicas']}")


def _where(answer: "ApplyAnswer") -> str:
    """Return the option with which `get` shows these objects."""
    kinds = {kind.name: kind for kind in MANIFESTS.values()}
    inside = [one["name"] for one in answer["objects"] if kinds[one["kind"]].namespaced]
    namespaces = {key_of(name).namespace for name in inside} or {DEFAULT_NAMESPACE}
    if namespaces == {DEFAULT_NAMESPACE}:
        return ""
    return f" -n {namespaces.pop()}" if len(namespaces) == 1 else " -A"


def _show(answer: "ApplyAnswer | DeleteAnswer | ScaleAnswer", output: str | None, more: str = "") -> None:
    if output == "json":
        from testbed.output import tables as render

        return render.as_json(answer)
    for line in answer["objects"]:
        print(f"{line['kind'].lower()}/{line['name']} {line['outcome']}{more}")
    return None
