"""What `bench scale` measures, and values derived from the results. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.control.answers.bench import BenchScaleAnswer, ScaleSize

SMALLEST_COMPARED = 20
"""Nodes; below that, a lab's fixed parts dominate its start."""
MIB = 1024
Row = tuple[str, str, tuple[str, ...]]
"""Title, unit, one cell for each size."""


@dataclass(frozen=True, slots=True)
class ScalePlan:
    """What to measure."""

    nodes: tuple[int, ...]
    pods_per_node: int
    rest_s: float
    """How long to measure processor time at rest."""
    plain: bool
    """Whether to measure plain Mininet too."""


def sizes_of(text: str) -> tuple[int, ...]:
    """Parse `10,50,100`, in that order. Raises ValueError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if not word.isdecimal() or int(word) < 2]
    if wrong or not words:
        raise ValueError(f"--nodes: not sizes of labs (got {text}; want numbers from 2 on, e.g. 10,50,100)")
    return tuple(int(word) for word in words)


def growth(sizes: Sequence[ScaleSize]) -> float | None:
    """Return the time per node of the largest lab relative to the smallest of at least 20 nodes; None without two."""
    counted = [one for one in sizes if one["nodes"] >= SMALLEST_COMPARED]
    if len(counted) < 2:
        return None
    small, large = min(counted, key=lambda one: one["nodes"]), max(counted, key=lambda one: one["nodes"])
    return round(float(large["up_s"] / large["nodes"]) / float(small["up_s"] / small["nodes"]), 2)


def rows(result: BenchScaleAnswer) -> list[Row]:
    """Return the table: one row per number."""
    sizes = result["sizes"]
    found: list[Row] = []

    def row(title: str, unit: str, cells: list[str]) -> None:
        found.append((title, unit, tuple(cells)))

    phases = list(dict.fromkeys(phase for one in sizes for phase in one["phases_s"]))
    for phase in phases:
        row(f"  {phase}", "s", [f"{one['phases_s'].get(phase, 0.0):.2f}" for one in sizes])
    row("up, all of it", "s", [f"{one['up_s']:.1f}" for one in sizes])
    row("  per node", "ms", [f"{1000 * one['up_s'] / one['nodes']:.0f}" for one in sizes])
    if all("plain_mininet_s" in one for one in sizes):
        row("plain Mininet", "s", [f"{one['plain_mininet_s']:.1f}" for one in sizes])
        row("  up, times as long", "", [f"{one['times_plain_mininet']:.1f}" for one in sizes])
    row("down", "s", [f"{one['down_s']:.2f}" for one in sizes])
    row("memory per node", "MiB", [f"{memory_per_node_mib(one):.1f}" for one in sizes])
    row("  lab's supervisor", "MiB", [f"{one['memory_kib']['init'] / MIB:.0f}" for one in sizes])
    row("  everything", "MiB", [f"{one['memory_kib']['everything'] / MIB:.0f}" for one in sizes])
    row("processor at rest", "cores", [f"{one['cores_at_rest']:.2f}" for one in sizes])
    if any(one["pings"]["sent"] for one in sizes):
        row("pings lost", "of 1,000", [str(one["pings"]["lost"]) for one in sizes])
    row("neighbours, collectable", "", [str(one["neighbours"]["collectable"]) for one in sizes])
    row("a node joins", "s", [f"{one['join_s']:.2f}" for one in sizes])
    row("a node leaves", "s", [f"{one['leave_s']:.2f}" for one in sizes])
    row("an agent is killed", "s", [f"{one['agent_killed_s']:.2f}" for one in sizes])
    row("etcd is restarted", "s", [f"{one['etcd_restarted']['watches_s']:.2f}" for one in sizes])
    lost = [f"{one['etcd_restarted']['pings_lost']}/{one['etcd_restarted']['pings_sent']}" for one in sizes]
    row("  pings lost meanwhile", "", lost)
    row("load before", "", [f"{one['load']:.1f}" for one in sizes])
    return found


def memory_per_node_mib(size: ScaleSize) -> float:
    """Return the memory of an agent, its machine and its pods' pause processes, as proportional set size."""
    memory = size["memory_kib"]
    return float(memory["agents"] + memory["pauses"] + memory["machines"]) / MIB / int(size["nodes"])
