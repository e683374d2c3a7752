"""Terminal output of `bench scale`."""

import sys

from testbed.bench.scale_plan import rows
from testbed.control.answers.bench import BenchScaleAnswer
from testbed.output.tables import matrix, say


def progress(what: str) -> None:
    """Print one line for each step, on standard error."""
    print(what, file=sys.stderr, flush=True)


def show(result: BenchScaleAnswer) -> None:
    """Print the whole result."""
    machine, pods = result["machine"], result["pods_per_node"]
    matrix(
        ("nodes", "", *(str(one["nodes"]) for one in result["sizes"])),
        [(title, unit, *cells) for title, unit, cells in rows(result)],
        keys=2,
        numbers=True,
    )
    say(f"\n{pods} pods on each node; memory: proportional set sizes of agent, machine and pods' pause processes")
    say("joins, leaves, killed, restarted: until every node's forwarding table is complete again")
    if result["growth"] is not None:
        say(f"time per node: the largest size against the smallest from 20 nodes on: {result['growth']:.2f}")
    where = f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}"
    say(f"{result['took_s']:.0f} s on {where}")
    for one in result["sizes"]:
        for line in one["pings"]["which"]:
            say(f"{one['nodes']} nodes: ping lost: {line}")
    largest = max(one["nodes"] for one in result["sizes"])
    print(f"\nnext:\n  sudo testbed up --nodes {largest} --pods-per-node {pods}")
