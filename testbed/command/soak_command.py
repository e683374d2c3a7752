"""`testbed soak`: faults in random order, for as long as one likes."""

import random

import click

from testbed.command.client import find_lab
from testbed.command.command_line import lab_option, needs_root, next_commands, verbs

CLUSTER = "faults"


@verbs.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="The same order again; by default another each time.")
@lab_option
def soak(minutes: float, seed: int | None, lab: str | None) -> int:
    """Break and mend things in random order, and see that nothing is lost and nothing grows.

    Wants a lab of the cluster `faults`: sudo testbed up faults
    """
    from testbed.testing import soak as work
    from testbed.testing.lab_handle import LabHandle

    needs_root("soak")
    record = find_lab(lab)
    handle = LabHandle(record)
    missing = [name for name in ("node1", "node2", "node3") if name not in handle.nodes]
    if missing:
        raise click.UsageError(f"this lab has no {', '.join(missing)} (want: sudo testbed up {CLUSTER})")
    seed = random.randrange(1_000_000) if seed is None else seed
    history = record.rundir / f"soak-{seed}.jsonl"
    print(f"seed {seed}, {minutes:g} minutes, history {history}")
    try:
        count, problems = work.soak(handle, minutes, seed, history, lambda line: print(line, flush=True))
    finally:
        handle.heal()
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{count} trials, {len(problems)} problems, seed {seed}")
    if problems:
        next_commands(record.name, f"soak --minutes {minutes:g} --seed {seed}")
        return 1
    next_commands(record.name, "status", "down")
    return 0
