"""`testbed fault …`: inject faults, list active ones, heal them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from testbed.command.command_line import FiniteRange, lab_option, output_option, verbs
from testbed.control.client import LabRecord, ask, find_lab
from testbed.control.questions import FAULT, FAULTS, HEAL
from testbed.errors import InvalidInput
from testbed.faults.catalogue import HEAL_LIMIT_S, KINDS
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.faults import FaultAnswer

LONGEST_USAGE = 34  # columns; longer ones get a line of their own


NEGATIVE = re.compile(r"-\d")
MINUS = "\N{MINUS SIGN}"
"""Replaces the hyphen before a number while click parses options."""


class FaultVerb(click.Command):
    """A command whose help lists every fault."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, but treat -1h as a time and not as an option."""
        return super().parse_args(ctx, [word.replace("-", MINUS, 1) if NEGATIVE.match(word) else word for word in args])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Append the catalogue, in groups."""
        with formatter.section("Faults"):
            formatter.write_dl([(kind.usage, kind.summary) for kind in KINDS], col_max=LONGEST_USAGE)


@verbs.command(cls=FaultVerb, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="FAULT… | list | heal [NUMBER…]")
@click.option("--for", "lasts", metavar="SECONDS", type=FiniteRange(min=0.1), help="Heal it after that time.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=FiniteRange(min=0),
    help=f"With heal: how long to wait until all is ready again; 0: not at all.  [default: {HEAL_LIMIT_S:g}]",
)
@lab_option
@output_option("json")
def fault(
    words: tuple[str, ...], lasts: float | None, timeout: float | None, lab: str | None, output: str | None
) -> int:
    """Break something in the lab on purpose; report what was done and how to undo it.

    \b
    fault agent kill node1    one fault; the table below has all
    fault agent stop node1 --for 20
    fault list                active faults; one that has ended stays until what it broke is ready again
    fault heal                heal all active faults, or those with the given numbers; returns when all is ready
    """
    if timeout is not None and words[0] != "heal":
        raise click.UsageError("--timeout goes with heal", click.get_current_context())
    if lasts is not None and words[0] in ("heal", "list"):
        raise click.UsageError("--for goes with a fault to inject", click.get_current_context())
    if words[0] == "list" and len(words) > 1:
        raise click.UsageError("fault list takes no more words", click.get_current_context())
    record = find_lab(lab)
    json = output == "json"
    if words[0] == "list":
        return _list(ask(record, FAULTS), record.name, json)
    if words[0] == "heal":
        return _heal(record, _numbers(words[1:]), HEAL_LIMIT_S if timeout is None else timeout, json)
    return _show(
        ask(record, FAULT, words=[word.replace(MINUS, "-") for word in words], lasts_s=lasts), record.name, json
    )


def _numbers(words: tuple[str, ...]) -> list[int] | None:
    try:
        return [int(word) for word in words] or None
    except ValueError as error:
        raise InvalidInput(
            f"testbed fault heal: no number (got {' '.join(words)}; want numbers of `fault list`)"
        ) from error


def _show(done: "FaultAnswer", lab: str, json: bool) -> int:
    from testbed.output import tables as render

    if json:
        render.as_json(done)
        return 0
    print(f"fault {done['number']}, {done['fault']}: {done['did']}")
    print(f"undone {done['undone']}")
    next_commands(lab, "status", *(["fault heal"] if done["on"] else []))
    return 0


def _list(faults: "Sequence[FaultAnswer]", lab: str, json: bool) -> int:
    from testbed.output import tables as render

    if json:
        render.as_json(faults)
        return 0
    if not faults:
        print("no fault is on")
        next_commands(lab, "fault --help")
        return 0
    rows = [(one["number"], one["fault"], one["since"], one["did"], one["undone"]) for one in faults]
    render.columns(("number", "fault", "since", "what was done", "undone"), rows)
    next_commands(lab, "fault heal")
    return 0


def _heal(record: LabRecord, numbers: list[int] | None, limit_s: float, json: bool) -> int:
    from testbed.output import tables as render

    healed = ask(record, HEAL, numbers=numbers, limit_s=limit_s)
    failed = [one for one in healed if not one["healed"]]
    missing = {line: one["took_s"] for one in healed for line in one["missing"]}
    on = ask(record, FAULTS) if missing else ()
    if json:
        render.as_json(healed)
        return 1 if failed or (missing and not on) else 0
    for one in healed:
        print(f"fault {one['number']}, {one['fault']}, {'ended' if one['healed'] else 'is still active'}: {one['did']}")
    if not healed:
        print("no fault was active")
    if missing:
        still = f" (still active: {', '.join(one['fault'] for one in on)})" if on else ""
        print(f"not ready {max(missing.values()):.0f} s later: {'; '.join(missing)}{still}")
    next_commands(record.name, "fault list" if failed or on else "status")
    return 1 if failed or (missing and not on) else 0
