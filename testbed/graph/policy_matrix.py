"""What NetworkPolicies allow between every two pods, as a table of markers. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from testbed.control.answers.policy import PolicyAnswer, PolicyPair
from testbed.graph.drawing import STYLE, element, group, label, line, marker, svg_document, text_width
from testbed.graph.geometry import Spot
from testbed.graph.model import Health

MARGIN, GAP = 16.0, 8.0
CELL = 24.0
HEADINGS = 52.0
LEGEND = 34.0
WORDS: Mapping[Health, str] = {"good": "everything passes", "busy": "some ports pass", "bad": "nothing passes"}

MATRIX_STYLE = """
.lab .grid { stroke: #d0d7de; stroke-width: 1; }
.lab .grid.namespace { stroke: #57606a; stroke-width: 2; }
.lab .itself { fill: #eaeef2; }
"""


def draw_matrix(lab: str, answer: PolicyAnswer) -> str:
    """Return the pairs of `policy --matrix` as an SVG document: senders are rows, receivers columns.

    Lines are thick between namespaces; a marker's tooltip has the ports that pass.
    """
    pods = sorted(answer["pods"], key=_namespace)
    pairs = {(one["source"], one["target"]): one for one in answer["pairs"]}
    names = max((text_width(name) for name in pods), default=0.0)
    left, top = MARGIN + names + GAP, MARGIN + HEADINGS + names + GAP
    side = CELL * len(pods)
    legend, legend_width = _legend(top + side + LEGEND - GAP)
    title = f"lab {lab}: what NetworkPolicies allow"
    width = max(left + side, MARGIN + text_width(title, "title"), legend_width) + MARGIN
    height = top + side + LEGEND + MARGIN / 2
    content = [
        element("style", STYLE + MATRIX_STYLE),
        label(title, (MARGIN, MARGIN + 16), "title"),
        label(f"{len(pods)} pods · rows send, columns receive", (MARGIN, MARGIN + 36), "mono"),
        *_names(pods, left, top),
        *_grid(pods, left, top),
        *_cells(pods, pairs, left, top),
        legend,
    ]
    return svg_document("\n".join(content), width, height)


def _names(pods: Sequence[str], left: float, top: float) -> Iterator[str]:
    for number, name in enumerate(pods):
        middle = CELL * (number + 0.5) + 4
        yield label(name, (left - GAP, top + middle), "end")
        upright = f"translate({left + middle:.1f} {top - GAP:.1f}) rotate(-90)"
        yield element("g", label(name, (0, 0)), transform=upright)


def _grid(pods: Sequence[str], left: float, top: float) -> Iterator[str]:
    """Draw the lines between cells, thin ones first."""
    side = CELL * len(pods)
    changes = [False, *(_namespace(before) != _namespace(after) for before, after in pairwise(pods)), False][
        : len(pods) + 1
    ]
    for thick, class_ in ((False, "grid"), (True, "grid namespace")):
        for at in (CELL * number for number, change in enumerate(changes) if change == thick):
            across, down = [(left, top + at), (left + side, top + at)], [(left + at, top), (left + at, top + side)]
            yield element("path", d=line(across), class_=class_) + element("path", d=line(down), class_=class_)


def _namespace(pod: str) -> str:
    namespace, slash, _ = pod.partition("/")
    return namespace if slash else ""


def _cells(pods: Sequence[str], pairs: Mapping[tuple[str, str], PolicyPair], left: float, top: float) -> Iterator[str]:
    for row, source in enumerate(pods):
        for column, target in enumerate(pods):
            x, y = left + CELL * column, top + CELL * row
            pair = pairs.get((source, target))
            if pair is None:
                yield element("rect", x=x + 1, y=y + 1, width=CELL - 2, height=CELL - 2, class_="itself")
            else:
                yield _cell(pair, (x + CELL / 2, y + CELL / 2))


def _cell(pair: PolicyPair, middle: Spot) -> str:
    passes = reach(pair)
    return group(marker(passes, middle), f"pair {passes}", sentence_of(pair))


def reach(pair: PolicyPair) -> Health:
    """Return the marker of a pair: good if everything passes, bad if nothing does."""
    return "bad" if not pair["ports"] else "good" if pair["ports"] == ["all"] else "busy"


def sentence_of(pair: PolicyPair) -> str:
    """Return what passes between a pair, in words."""
    passes = reach(pair)
    words = f"{', '.join(pair['ports'])} pass" if passes == "busy" else WORDS[passes]
    return f"{pair['source']} → {pair['target']}: {words}"


def _legend(baseline: float) -> tuple[str, float]:
    """Return the legend and the place of its right edge."""
    pieces, x = [], MARGIN
    for passes, words in WORDS.items():
        pieces += [marker(passes, (x + 6, baseline - 4)), label(words, (x + 18, baseline), "small")]
        x += 34 + text_width(words, "small")
    return element("g", "".join(pieces), class_="legend"), x
