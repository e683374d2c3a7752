"""A `bench scale` run as a picture: start time by phase, and memory, against the number of nodes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.bench.plot import OTHER_COLOURS, QUIET, SMALL, WIDTH_IN, write_figure
from testbed.bench.scale_plan import MIB
from testbed.control.answers.bench import BenchScaleAnswer, ScaleSize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT_IN = 2.8
PHASE_COLOURS = ("#CCCCCC", *OTHER_COLOURS, "#E69F00", "#0072B2", "#009E73")
MEMORY_PARTS = {
    "agents": "agents",
    "pauses": "pods' pause",
    "machines": "machines",
    "init": "supervisor",
    "etcd": "etcd",
}


def draw(result: BenchScaleAnswer, target: Path) -> None:
    """Write the picture; the name's extension determines the format. Raises OSError."""
    write_figure(lambda: _figure(result), target)


def _figure(result: BenchScaleAnswer) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = sorted(result["sizes"], key=lambda one: one["nodes"])
    phases = {phase: phase for one in sizes for phase in one["phases_s"]}
    _stack(left, sizes, "Time to ready (s)", phases, [one["phases_s"] for one in sizes], 1)
    plain = [one.get("plain_mininet_s") for one in result["sizes"]]
    if all(value is not None for value in plain):
        nodes = [one["nodes"] for one in result["sizes"]]
        left.plot(nodes, plain, "--", color="black", linewidth=0.8, label="plain Mininet")
    left.legend(fontsize=SMALL, frameon=False)
    _stack(right, sizes, "Memory, proportional (MiB)", MEMORY_PARTS, [one["memory_kib"] for one in sizes], MIB)
    right.legend(fontsize=SMALL, frameon=False)
    machine = result["machine"]
    where = f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}"
    figure.supxlabel(f"nodes, with {result['pods_per_node']} pods each. {where}", fontsize=SMALL, color=QUIET)
    return figure


def _stack(
    axes: "Axes",
    sizes: Sequence[ScaleSize],
    title: str,
    names: Mapping[str, str],
    numbers: Sequence[Mapping[str, Any]],
    scale: float,
) -> None:
    nodes = [one["nodes"] for one in sizes]
    values = [[one.get(name, 0) / scale for one in numbers] for name in names]
    axes.stackplot(nodes, values, labels=list(names.values()), colors=PHASE_COLOURS, linewidth=0)
    axes.plot(nodes, [sum(column) for column in zip(*values, strict=True)], "o", color="black", markersize=2.5)
    axes.set_title(title, loc="left")
    axes.set_xlim(0, max(nodes) * 1.02)
    axes.set_ylim(0)
