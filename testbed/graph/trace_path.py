"""The answer of `testbed trace` as steps on the picture. Pure."""

from testbed.cluster.device_names import OVERLAY_DEVICES
from testbed.control.answers.trace import TraceAnswer, TraceHop
from testbed.graph.encapsulation import STYLE as STACK_STYLE
from testbed.graph.encapsulation import draw_stacks
from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import Graph
from testbed.graph.path import STYLE, PathStep, way
from testbed.graph.svg import document, facts_line
from testbed.output.trace_text import outcome_line, sent_line

LOST = ("unreachable", "lost", "reply lost", "data lost")


def draw_trace(graph: Graph, trace: TraceAnswer) -> str:
    """Return the picture with every hop of a trace (docs/trace.md) on it, and the headers at each hop below it."""
    layout = lay_out(graph)
    stacks = draw_stacks(trace, layout.part.height)
    headings = headings_of(graph, trace)
    return document(layout, trace_way(layout, trace), STYLE + STACK_STYLE, headings=headings, below=stacks)


def headings_of(graph: Graph, trace: TraceAnswer) -> tuple[str, str]:
    """Return the trace's command and outcome, its packet and its lab."""
    probe = trace["probe"]
    port = f":{probe['destination_port']}" if probe["destination_port"] else ""
    came_of_it = outcome_line(trace)
    return f"{probe['from']} → {probe['to']}{port}: {came_of_it}", f"{sent_line(trace)} · {facts_line(graph)}"


def trace_way(layout: GraphLayout, trace: TraceAnswer) -> str:
    """Draw the same without the picture below it."""
    return way(layout, steps_of(layout.graph, trace), lost=lost_leg(trace))


def steps_of(graph: Graph, trace: TraceAnswer) -> list[PathStep]:
    """Convert the hops to steps; in the picture, both families share one overlay device."""
    devices = {node.name: node.device for node in graph.nodes}

    def shown(hop: TraceHop) -> str:
        interface = str(hop["interface"])
        return devices.get(hop["node"], interface) if interface.startswith(OVERLAY_DEVICES) else interface

    return [
        PathStep(
            hop["number"],
            hop["node"],
            shown(hop),
            hop["leg"],
            f"{hop['direction']}: {hop['why']}",
            wrapped=hop.get("outer") is not None,
        )
        for hop in trace["hops"]
    ]


def lost_leg(trace: TraceAnswer) -> str | None:
    """Return the packet that did not arrive; None if all did."""
    lost = trace["lost_at"]
    return str(lost["leg"]) if lost and trace["outcome"] in LOST else None
