"""Verbs that change what runs in a lab: apply, delete, scale."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from testbed.cluster.kinds import BY_WORD, DEPLOYMENT, MANIFESTS, Kind, no_such_kind
from testbed.command.command_line import (
    FiniteRange,
    images_option,
    lab_option,
    output_option,
    strict_option,
    verbs,
)
from testbed.command.completion import kind_and_names
from testbed.command.selectors import read_selector, selected, selector_option
from testbed.control.client import LabRecord, ask, ask_with_contents, find_lab
from testbed.control.questions import APPLY, DELETE, GET, SCALE, AnswerT, Question
from testbed.errors import InvalidInput, TestbedError
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.lab import ApplyAnswer, DeleteAnswer, ScaleAnswer

MAX_BYTES = 1_000_000
"""Of one file; the lab says so in its own words."""

files_option = click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE", help="A file of manifests; - is standard input."
)


@verbs.command()
@files_option
@click.option("--wait", is_flag=True, help="Wait until all of it is ready.")
@click.option("--timeout", type=FiniteRange(min=0), default=60.0, show_default=True, metavar="SECONDS")
@images_option
@strict_option
@lab_option
@output_option("json")
def apply(
    files: tuple[str, ...],
    wait: bool,
    timeout: float,
    images: tuple[str, ...],
    strict: bool,
    lab: str | None,
    output: str | None,
) -> None:
    """Create or change objects: apply -f FILE; everything in the files is checked before anything is done."""
    if not files:
        raise click.UsageError("want -f FILE", click.get_current_context())
    record = find_lab(lab)
    answer = _ask_with_files(record, APPLY, files, wait_s=timeout if wait else None, images=list(images), strict=strict)
    _show(answer, output)
    if output is None:
        from testbed.output import tables as render

        render.warnings(answer["warnings"])
        next_commands(record.name, "get all -o wide")


@verbs.command()
@click.argument("words", nargs=-1, metavar="[KIND NAME…]", shell_complete=kind_and_names)
@files_option
@selector_option
@click.option("--grace-period", type=FiniteRange(min=0), metavar="SECONDS", help="Instead of the pods' own.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no error.")
@lab_option
@output_option("json")
def delete(
    words: tuple[str, ...],
    files: tuple[str, ...],
    selector: str | None,
    grace_period: float | None,
    ignore_not_found: bool,
    lab: str | None,
    output: str | None,
) -> int:
    """Remove objects: delete pod NAME…, delete deployment/NAME, delete pods -l app=web, or delete -f FILE.

    Returns when they are gone. Services forget a pod first, then it gets TERM, and KILL after its grace.
    """
    if bool(words) == bool(files):
        raise click.UsageError("want KIND NAME…, KIND -l LABELS, or -f FILE", click.get_current_context())
    if files:
        answer = _ask_with_files(find_lab(lab), DELETE, files, grace_s=grace_period)
    else:
        answer = _delete_by_name(words, selector, grace_period, lab)
    _show(answer, output)
    if answer["missing"] and not ignore_not_found:
        raise TestbedError("\n".join(answer["missing"]))
    return 0


def _delete_by_name(
    words: Sequence[str], selector: str | None, grace_s: float | None, lab: str | None
) -> "DeleteAnswer":
    kind, names = _kind_and_names(words)
    requirements = read_selector(selector)
    if bool(names) == bool(requirements):
        raise click.UsageError("want NAME… or -l LABELS", click.get_current_context())
    record = find_lab(lab)
    if requirements:
        found = ask(record, GET, kind=kind.plural)
        names = [item["metadata"]["name"] for item in selected(found, requirements)]
    return ask(record, DELETE, kind=kind.name, names=names, grace_s=grace_s)


@verbs.command()
@click.argument("words", nargs=-1, required=True, metavar="deployment NAME")
@click.option("--replicas", type=click.IntRange(0, 1000), required=True, metavar="N", help="How many pods.")
@click.option("--wait", is_flag=True, help="Wait until there are so many, all ready.")
@click.option("--timeout", type=FiniteRange(min=0), default=60.0, show_default=True, metavar="SECONDS")
@lab_option
@output_option("json")
def scale(
    words: tuple[str, ...], replicas: int, wait: bool, timeout: float, lab: str | None, output: str | None
) -> None:
    """Set the number of pods: scale deployment NAME --replicas N"""
    kind, names = _kind_and_names(words)
    if kind is not DEPLOYMENT or len(names) != 1:
        raise click.UsageError("want deployment NAME", click.get_current_context())
    answer = ask(find_lab(lab), SCALE, name=names[0], replicas=replicas, wait_s=timeout if wait else None)
    _show(answer, output, f" from {answer['before']} to {answer['replicas']}")


def _kind_and_names(words: Sequence[str]) -> tuple[Kind, list[str]]:
    """`pod a b` or `pod/a pod/b`. Raises click.UsageError."""
    pairs = [word.partition("/") for word in words]
    with_names = [kind for kind, slash, _ in pairs if slash]
    for word in with_names or words[:1]:
        if BY_WORD.get(word) not in MANIFESTS.values():
            wanted = [kind.singular for kind in MANIFESTS.values()]
            raise click.UsageError(no_such_kind(word, *wanted), click.get_current_context())
    kind, *others = dict.fromkeys(BY_WORD[word] for word in with_names or words[:1])
    if others or 0 < len(with_names) < len(pairs):
        got = f"got {' '.join(words)}; want KIND NAME… or KIND/NAME…"
        raise click.UsageError(f"objects of one kind at a time ({got})", click.get_current_context())
    if all(slash for _, slash, _ in pairs):
        return kind, [name for _, _, name in pairs]
    return kind, list(words[1:])


def _show(answer: "ApplyAnswer | DeleteAnswer | ScaleAnswer", output: str | None, more: str = "") -> None:
    if output == "json":
        from testbed.output import tables as render

        return render.as_json(answer)
    for line in answer["objects"]:
        print(f"{line['kind'].lower()}/{line['name']} {line['outcome']}{more}")
    return None


def _ask_with_files(
    record: LabRecord, question: Question[AnswerT], files: Sequence[str], **arguments: object
) -> AnswerT:
    return ask_with_contents(record, question, {name: _read(name) for name in files}, cluster_files=False, **arguments)


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{name}: cannot be read (got {error.strerror}; want a file of manifests)") from error
