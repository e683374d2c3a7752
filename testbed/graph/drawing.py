"""SVG elements: shapes, text that fits its box, health markers, the stylesheet. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from testbed.graph.geometry import Box, Spot
from testbed.graph.model import Health

WIDE, BOLD, MONO = 0.62, 0.70, 0.602
"""em per character: DejaVu Sans and its bold face on average, DejaVu Sans Mono always; other fonts are narrower."""
SIZES = {"title": 17.0, "small": 9.0, "tiny": 7.0, "mono": 10.0}
"""Pixels by class, as in STYLE; others are 11."""
TAIL = 5
"""Characters of the end of a shortened text."""
MARK = 5.5  # half the size of a marker

STYLE = """
svg.lab { background: #ffffff; }
.lab text { font-family: "DejaVu Sans", "Segoe UI", Helvetica, Arial, sans-serif; font-size: 11px; fill: #1f2328; }
.lab text.mono { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 10px; }
.lab text.small { font-size: 9px; fill: #57606a; }
.lab text.tiny { font-size: 7px; }
.lab text.name { font-weight: bold; }
.lab text.title { font-size: 17px; font-weight: bold; }
.lab text.middle { text-anchor: middle; }
.lab text.end { text-anchor: end; }
.lab .box { stroke-width: 1.3; }
.lab .node .frame { fill: #f6f8fa; stroke: #8c959f; }
.lab .pod .box { fill: #ffffff; stroke: #57606a; }
.lab .bridge .box { fill: #ddf4ff; stroke: #218bff; }
.lab .overlay .box { fill: #fbefff; stroke: #a475f9; }
.lab .agent .box { fill: #fff8c5; stroke: #bf8700; }
.lab .uplink .box { fill: #eaeef2; stroke: #57606a; }
.lab .switch .box { fill: #d0d7de; stroke: #424a53; }
.lab .router .box { fill: #ffe9d9; stroke: #bc4c00; }
.lab .gateway .box { fill: #ffffff; stroke: #57606a; }
.lab .etcd .box { fill: #dafbe1; stroke: #2da44e; }
.lab .missing .box, .lab .down .box { fill: #ffffff; stroke: #cf222e; stroke-dasharray: 4 3; }
.lab .state-bad .frame { stroke: #cf222e; stroke-width: 2.2; }
.lab .state-busy .frame { stroke: #9a6700; stroke-width: 2.2; }
.lab .mark.good { fill: #1a7f37; }
.lab .mark.busy { fill: #bf8700; }
.lab .mark.bad { fill: none; stroke: #cf222e; stroke-width: 2.6; }
.lab text.word-busy { fill: #7d4e00; }
.lab text.word-bad { fill: #a40e26; font-weight: bold; }
.lab .wire { fill: none; stroke-width: 1.6; }
.lab .wire.cable { stroke: #424a53; stroke-width: 2.2; }
.lab .wire.spare { stroke-dasharray: 7 4; }
.lab .wire.veth { stroke: #218bff; }
.lab .wire.kernel { stroke: #8250df; }
.lab .wire.agent { stroke: #bf8700; }
.lab .wire.down { stroke: #cf222e; stroke-dasharray: 4 4; }
.lab .border { fill: none; stroke: #9a6700; stroke-width: 1.6; stroke-dasharray: 8 4; }
.lab .service .box { fill: #ffffff; stroke: #0969da; stroke-dasharray: 2 2; }
.lab .fault rect { fill: #cf222e; stroke: #ffffff; stroke-width: 1; }
.lab .fault text { fill: #ffffff; font-weight: bold; }
.lab .cut { stroke: #cf222e; stroke-width: 2.6; fill: none; }
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """Something drawn, for a larger picture."""

    content: str
    width: float
    height: float


def element(name: str, content: str = "", **attributes: object) -> str:
    """Return one element; in attribute names, a final `_` is dropped and others become hyphens."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def svg_document(content: str, width: float, height: float, style: str = "") -> str:
    """Wrap elements into a document of this size."""
    return element(
        "svg",
        (element("style", style) if style else "") + content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=round(width),
        height=round(height),
        class_="lab",
    )


def _number(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def rectangle(box: Box, class_: str = "box", radius: float = 4) -> str:
    """Return a box with round corners."""
    return element("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=radius, class_=class_)


def text_size(classes: str) -> float:
    """Return the height of a text's letters in pixels."""
    return next((size for name, size in SIZES.items() if name in classes.split()), 11.0)


def text_width(text: str, classes: str = "") -> float:
    """Return the maximum width of a text, in pixels."""
    words = classes.split()
    bold = {"name", "title", "changed"} & set(words) or any(word.startswith("leg-") for word in words)
    return len(text) * text_size(classes) * (MONO if "mono" in words else BOLD if bold else WIDE)


def fitted(text: str, width: float, classes: str) -> str:
    """Return the text; if it is wider than `width` pixels, its beginning and, if there is room, its end.

    The end distinguishes a Deployment's pods.
    """
    room = int(width / text_width("x", classes))
    if len(text) <= room:
        return text
    tail = TAIL if room >= 2 * TAIL else 0
    return text[: max(1, room - 1 - tail)] + "…" + text[len(text) - tail :]


def label(text: str, spot: Spot, classes: str = "", width: float | None = None) -> str:
    """Return a text whose baseline starts (or, with `middle` or `end`, is centred or ends) at `spot`."""
    shown = text if width is None else fitted(text, width, classes)
    return element("text", escape(shown), x=spot[0], y=spot[1], class_=classes or None)


def marker(health: Health, spot: Spot) -> str:
    """Return the marker of a state, by colour and shape: a disc, a triangle, a cross."""
    x, y = spot
    if health == "good":
        return element("circle", cx=x, cy=y, r=MARK, class_="mark good")
    if health == "busy":
        shape = f"M {x:.1f} {y - MARK:.1f} L {x + MARK:.1f} {y + MARK:.1f} L {x - MARK:.1f} {y + MARK:.1f} Z"
        return element("path", d=shape, class_="mark busy")
    return cross(spot, "mark bad")


def cross(spot: Spot, class_: str, size: float = MARK - 1) -> str:
    """Return two crossed strokes; `size` is half their width."""
    (x, y), a = spot, size
    shape = f"M {x - a:.1f} {y - a:.1f} L {x + a:.1f} {y + a:.1f} M {x + a:.1f} {y - a:.1f} L {x - a:.1f} {y + a:.1f}"
    return element("path", d=shape, class_=class_)


def line(spots: Sequence[Spot]) -> str:
    """Return the `d` of a path through these spots."""
    return "M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in spots)


def group(content: str, class_: str, title: str, **attributes: object) -> str:
    """Group elements, with a tooltip."""
    return element("g", element("title", escape(title)) + content, class_=class_, **attributes)
