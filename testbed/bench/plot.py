"""A bench run as a picture for a paper: one panel per question, one bar per path, a dot per round."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.control.answers.bench import BenchAnswer, BenchRound
from testbed.host.lab_directories import give_to_sudo_user

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 7.2  # width of two columns in most papers
PANEL_IN, ROW_IN = 0.62, 0.30  # height of a panel without its bars, and of one path
FOOTER_IN = 0.3
COLUMNS = 3
DOTS_PER_INCH = 300
# Okabe and Ito's colours, distinguishable with any colour vision; grey for paths without an overlay.
COLOURS = {"python": "#E69F00", "native": "#0072B2", "kernel": "#CC79A7", "vxlan": "#009E73", "none": "#8C8C8C"}
OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
BARS = 0.7
"""The bars' share of a path's row."""
ROOM, ROOM_FOR_NOTE = 1.25, 1.95
"""The axis ends at this multiple of the longest bar: numbers follow the bars."""
SMALL = 6.5  # points
QUIET = "#666666"
PALE = 0.45
"""Opacity of the second bar of a pair."""
STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "ytick.left": False,
    "xtick.major.width": 0.6,
    "pdf.fonttype": 42,
}
Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One question."""

    title: str
    metrics: tuple[str, ...]
    """One bar each, the second one paler."""
    scale: float
    digits: int
    note: Callable[[Values], str] | None = None
    """The text after a path's number."""


def _with(metric: str, text: str) -> Callable[[Values], str]:
    return lambda values: f"  ({text.format(values[metric])})" if metric in values else ""


PANELS = (
    Panel("TCP, 1 stream (Gbit/s)", ("tcp_1_forward_bits_per_second", "tcp_1_reverse_bits_per_second"), 1e9, 2),
    Panel("TCP, 4 streams (Gbit/s)", ("tcp_4_forward_bits_per_second", "tcp_4_reverse_bits_per_second"), 1e9, 2),
    Panel("TCP ping-pong, median (µs)", ("latency_p50_us",), 1, 1, _with("latency_p99_us", "p99 {:.0f}")),
    Panel(
        "UDP, 16 B, received (kpps)",
        ("udp_16_packets_per_second",),
        scale=1e3,
        digits=0,
        note=_with("udp_16_lost_percent", "{:.0f} % lost"),
    ),
    Panel(
        "UDP, 1400 B, received (kpps)",
        ("udp_1400_packets_per_second",),
        scale=1e3,
        digits=0,
        note=_with("udp_1400_lost_percent", "{:.0f} % lost"),
    ),
    Panel(
        "Agents' CPU per GB of TCP (s)",
        ("agents_cpu_seconds_per_gigabyte",),
        scale=1,
        digits=2,
        note=_with("agents_cpu_seconds_per_million_packets", "{:.1f} per Mpkt"),
    ),
)


def draw(result: BenchAnswer, target: Path) -> None:
    """Write the picture; the name's extension determines the format. Raises OSError."""
    write_figure(lambda: _figure(result), target)


def write_figure(make: "Callable[[], Figure]", target: Path) -> None:
    """Write a figure, made in our style. Raises OSError."""
    # matplotlib keeps a cache in the home directory; this leaves nothing there.
    with tempfile.TemporaryDirectory(prefix="testbed-bench-") as scratch:
        os.environ["MPLCONFIGDIR"] = scratch
        import matplotlib

        with matplotlib.rc_context(STYLE):
            make().savefig(target, dpi=DOTS_PER_INCH)
    give_to_sudo_user(target)


def _figure(result: BenchAnswer) -> "Figure":
    from matplotlib.figure import Figure

    names = [path["name"] for path in result["paths"]]
    wanted = {metric["name"] for metric in result["metrics"]}
    panels = [panel for panel in PANELS if wanted & set(panel.metrics)]
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH_IN, lines * (PANEL_IN + ROW_IN * len(names)) + FOOTER_IN), layout="constrained")
    places = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for panel, axes in zip(panels, places, strict=False):
        _draw_panel(axes, panel, result, names)
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(_footer(result), fontsize=SMALL, color=QUIET)
    return figure


def _footer(result: BenchAnswer) -> str:
    machine, rounds = result["machine"], len(_shown_rounds(result))
    medians = f"Medians of {rounds} rounds (dots)" if rounds > 1 else "One round"
    where = f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}"
    return f"{medians}, {result['seconds']} s a measurement. TCP: dark forward, pale reverse. {where}"


def _shown_rounds(result: BenchAnswer) -> Sequence[BenchRound]:
    return [one for one in result["rounds"] if one["counts"]] or result["rounds"]


def _draw_panel(axes: "Axes", panel: Panel, result: BenchAnswer, names: Sequence[str]) -> None:
    height = BARS / len(panel.metrics)
    longest = 0.0
    for row, name in enumerate(names):
        values = result["medians"].get(name, {})
        for number, metric in enumerate(panel.metrics):
            at = row - BARS / 2 + (number + 0.5) * height
            if metric not in values:
                why = "no agent moves packets" if metric.startswith("agents") else "not measured"
                axes.text(0, at, f" {why}", va="center", fontsize=SMALL, color=QUIET)
                continue
            dots = _dots(result, name, metric, panel.scale)
            median = values[metric] / panel.scale
            colour = _colour(name, names)
            axes.barh(at, median, height, color=colour, alpha=PALE if number else 1.0, linewidth=0)
            if len(dots) > 1:
                axes.plot(dots, [at] * len(dots), ".", color="black", markersize=2.5, markeredgewidth=0)
            note = panel.note(values) if panel.note else ""
            reach = max(median, *dots)
            axes.annotate(
                f"{median:.{panel.digits}f}{note}",
                (reach, at),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL,
            )
            longest = max(longest, reach)
    axes.set_title(panel.title, loc="left")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, longest * (ROOM_FOR_NOTE if panel.note else ROOM) or 1)
    axes.grid(axis="x", linewidth=0.4, color="#DDDDDD")


def _dots(result: BenchAnswer, path: str, metric: str, scale: float) -> list[float]:
    found = [one["values"].get(path, {}).get(metric) for one in _shown_rounds(result)]
    return [value / scale for value in found if value is not None]


def _colour(name: str, names: Sequence[str]) -> str:
    others = [other for other in names if other not in COLOURS]
    return COLOURS.get(name) or OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)]
