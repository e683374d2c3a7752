"""A trace as a standalone page: the picture, every hop with its headers and bytes, and all headers at once. Pure."""

from html import escape

from testbed.control.answers.trace import TraceAnswer, TraceHop
from testbed.graph.drawing import STYLE as DRAWING_STYLE
from testbed.graph.drawing import svg_document
from testbed.graph.encapsulation import STYLE as STACK_STYLE
from testbed.graph.encapsulation import draw_each_stack, draw_stacks
from testbed.graph.headers import LEG_WORDS
from testbed.graph.layout import lay_out
from testbed.graph.model import Graph
from testbed.graph.path import COLOURS, class_of
from testbed.graph.path import STYLE as PATH_STYLE
from testbed.graph.svg import document
from testbed.graph.trace_path import headings_of, trace_way
from testbed.output.trace_bytes import hop_bytes
from testbed.output.trace_text import conclusion

PAGE_STYLE = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; margin: 1.5em auto; max-width: 76em; padding: 0 1em;
  color: #1f2328; background: #ffffff; }
svg { max-width: 100%; height: auto; display: block; }
details { border-bottom: 1px solid #d0d7de; }
summary { padding: .3em 0; cursor: pointer; }
summary b { display: inline-block; min-width: 2.2em; text-align: center; color: #ffffff; border-radius: 1em; }
summary code { margin-left: .6em; }
pre, code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
pre { overflow-x: auto; }
.why { color: #57606a; margin-left: 3.2em; }
""" + "".join(f"b.{class_of(leg)} {{ background: {colour}; }}\n" for leg, colour in COLOURS.items())


def trace_page(graph: Graph, trace: TraceAnswer) -> str:
    """Return the page. A hop opens on a click, without any script, and closes the open one."""
    layout = lay_out(graph)
    stacks = draw_stacks(trace)
    headings = headings_of(graph, trace)
    style = PAGE_STYLE + DRAWING_STYLE + PATH_STYLE + STACK_STYLE
    hops = [_hop(hop, stack) for hop, stack in zip(trace["hops"], draw_each_stack(trace["hops"]), strict=True)]
    said = "".join(f"<p>{escape(words)}</p>" for words in conclusion(trace) if words)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(headings[0])}</title><style>{style}</style></head><body>\n"
        f"{document(layout, trace_way(layout, trace), styled=False, headings=headings)}\n{said}\n"
        f"<h2>Hops</h2>\n{''.join(hops)}\n"
        f"<h2>Headers along the path</h2>\n{svg_document(stacks.content, stacks.width, stacks.height)}\n"
        "</body></html>\n"
    )


def _hop(hop: TraceHop, stack: str) -> str:
    inner = hop["inner"]
    where = f"{hop['where']} {hop['direction']}"
    packet = f"{inner['src']} → {inner['dst']} ttl {inner['ttl']}"
    number = f'<b class="{class_of(hop["leg"])}" title="{escape(LEG_WORDS[hop["leg"]])}">{hop["number"]}</b>'
    dump = escape("\n".join(hop_bytes(hop)))
    return (
        f'<details name="hop"><summary>{number} {hop["at_us"]:.0f} µs <code>{escape(where)}</code> '
        f'<code>{escape(packet)}</code><div class="why">{escape(hop["why"])}</div></summary>\n'
        f"{stack}\n<pre>{dump}</pre></details>\n"
    )
