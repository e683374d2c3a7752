"""`testbed soak`: faults in random order, for as long as you like."""

import json
import os
import random
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from testbed.command.command_line import FiniteRange, lab_option, needs_root, verbs
from testbed.control.client import LabRecord, find_lab
from testbed.errors import InvalidInput, WrongEnvironment
from testbed.output.next_commands import next_commands
from testbed.plain_files import plain

if TYPE_CHECKING:
    from testbed.faults.trials import Trial
    from testbed.testing.soak import Outcome

CLUSTER = "faults"


@verbs.command()
@click.option("--minutes", type=FiniteRange(min=0.1), default=10.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="The same order again; by default another each time.")
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Repeat all trials of this history, in order; instead of --minutes and --seed.",
)
@click.option("--history", type=click.Path(path_type=Path), metavar="FILE", help="File for the history.")
@lab_option
def soak(minutes: float, seed: int | None, replay: Path | None, history: Path | None, lab: str | None) -> int:
    """Break and repair things in random order; report anything lost, late or leaking.

    Needs a lab of the cluster `faults`: sudo testbed up faults

    A trial that misses a limit while the machine is busy is repeated, up to three times in all.
    """
    needs_root("soak")
    if replay is not None and seed is not None:
        raise click.UsageError("--replay has its order from the history, --seed from the seed (want: one of them)")
    record = find_lab(lab)
    if replay is not None:
        name, what, order = "soak-replayed.jsonl", f"--replay {replay}", _replayed(replay)
    else:
        seed = random.randrange(1_000_000) if seed is None else seed
        name, what, order = f"soak-{seed}.jsonl", f"--minutes {minutes:g} --seed {seed}", None
    path = history or record.rundir / name
    try:
        # In the lab's directory only a plain file; at the user's path, any file.
        descriptor = None if history else plain(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        file = path.open("w", encoding="utf-8") if descriptor is None else os.fdopen(descriptor, "w", encoding="utf-8")
    except OSError as error:
        raise WrongEnvironment(f"testbed soak: --history: {error.strerror} (got {path}; want a file)") from error
    with file:
        asked = {"seed": seed, "minutes": None if order else minutes, "replay": str(replay) if replay else None}
        file.write(json.dumps(asked) + "\n")
        found = _run(record, file, order, minutes, seed or 0, what)
    for problem in found.problems:
        print(f"problem: {problem}")
    late = f" ({found.late} attempts were late on a busy machine and repeated)" if found.late else ""
    print(f"{found.trials} trials{late}, {len(found.problems)} problems, {what.removeprefix('--')}")
    print(f"history: {path}")
    if found.problems:
        next_commands(record.name, f"soak --replay {path}")
        return 1
    next_commands(record.name, "status", "down")
    return 0


def _replayed(history: Path) -> "list[Trial]":
    from testbed.testing.soak import NoHistory, replay

    try:
        return replay(history)
    except OSError as error:
        raise InvalidInput(
            f"testbed soak: --replay: {error.strerror} (got {history}; want a soak's history)"
        ) from error
    except (NoHistory, UnicodeDecodeError) as error:
        raise InvalidInput(f"testbed soak: --replay: {error}") from error


def _run(
    record: LabRecord, file: IO[str], order: "list[Trial] | None", minutes: float, seed: int, what: str
) -> "Outcome":
    from testbed.host.interruption import Interruption
    from testbed.testing.heartbeats import Heartbeats
    from testbed.testing.lab_handle import LabHandle
    from testbed.testing.soak import Soak, in_random_order, trials_for

    handle = LabHandle(record)
    missing = [name for name in ("node1", "node2", "node3") if name not in handle.nodes]
    if missing:
        raise click.UsageError(f"this lab has no {', '.join(missing)} (want: sudo testbed up {CLUSTER})")
    print(f"soak {what}", flush=True)
    # However it is ended, the faults of its trial are healed.
    Interruption()
    try:
        with Heartbeats(handle) as heartbeats:
            trials = iter(order) if order is not None else in_random_order(trials_for(handle), seed, minutes)
            return Soak(handle, heartbeats, file, lambda line: print(line, flush=True)).run(trials)
    finally:
        handle.heal(limit_s=0)
