"""Draws the pictures of docs/pictures that need no running lab: python -m tests.documented_pictures."""

from pathlib import Path

from testbed.graph.drawing import STYLE, svg_document
from testbed.graph.encapsulation import STYLE as STACK_STYLE
from testbed.graph.encapsulation import draw_stacks
from testbed.graph.model import graph_of
from testbed.graph.svg import draw
from testbed.graph.trace_path import draw_trace
from tests.traces import recorded

DIRECTORY = Path(__file__).parents[1] / "docs" / "pictures"
BACKENDS = ("udp", "vxlan", "host-gw", "wireguard")


def pictures() -> dict[str, str]:
    """Return each file's name and content."""
    udp = recorded("udp")
    found = {
        "nginx_tomcat.svg": draw(graph_of(udp["graph"])),
        "trace_nginx_tomcat.svg": draw_trace(graph_of(udp["graph"]), udp["trace"]),
    }
    for backend in BACKENDS:
        stacks = draw_stacks(recorded(backend)["trace"])
        found[f"headers_{backend}.svg"] = svg_document(stacks.content, stacks.width, stacks.height, STYLE + STACK_STYLE)
    return found


if __name__ == "__main__":
    for name, content in pictures().items():
        (DIRECTORY / name).write_text(content + "\n")
