"""`testbed graph`: the lab as a picture."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.command.command_line import lab_option, verbs
from testbed.control.client import find_lab
from testbed.errors import TestbedError

if TYPE_CHECKING:
    from testbed.graph.model import Graph

FORMS = ("svg", "png", "dot", "mermaid", "html", "json")
SUFFIXES = {".mmd": "mermaid", ".gv": "dot", ".htm": "html", **{f".{form}": form for form in FORMS}}


@verbs.command()
@lab_option
@click.option("-o", "--output", type=click.Choice(FORMS), help="Form of the picture.  [default: as FILE ends, or svg]")
@click.option("-w", "--write", "file", metavar="FILE", help="Write it there instead of to standard output.")
def graph(lab: str | None, output: str | None, file: str | None) -> None:
    """Draw the lab: nodes, bridges, TUN devices, pods, underlay, addresses, states.

    \b
    graph -w lab.svg             for a page or a slide; png needs the package librsvg2-bin
    graph -o mermaid             for Markdown; dot for Graphviz; html is a page of its own
    graph -o json                what is drawn, as data
    """
    form = output or (SUFFIXES.get(Path(file).suffix.lower()) if file else "svg")
    if form is None:
        raise click.UsageError(
            f"cannot tell the format from the name {file} (want -o {'|'.join(FORMS)})", click.get_current_context()
        )
    if form == "png" and file is None and os.isatty(1):
        raise click.UsageError(
            "a PNG cannot be shown on a terminal (want -w FILE, or > FILE)", click.get_current_context()
        )
    record = find_lab(lab)
    from testbed.graph.facts import facts_of_lab

    facts = facts_of_lab(record)
    if form == "json":
        from json import dumps

        data = (dumps(facts, indent=2) + "\n").encode()
    else:
        from testbed.graph.model import graph_of

        data = _drawn(graph_of(facts), form)
    if file is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    write_picture("graph", file, data)
    print(f"wrote {file}: lab {record.name}, {len(facts['nodes'])} nodes, {len(facts['pods'])} pods")


def write_picture(verb: str, file: str, data: bytes) -> None:
    """Write the picture. Raises TestbedError if that fails."""
    try:
        Path(file).write_bytes(data)
    except OSError as failure:
        raise TestbedError(f"{verb}: {file}: cannot be written (got {failure.strerror}; want a place for it)") from None


def _drawn(picture: "Graph", form: str) -> bytes:
    from testbed.graph import png, svg, text_forms

    if form == "png":
        return png.png(svg.draw(picture))
    forms = {"svg": svg.draw, "dot": text_forms.dot, "mermaid": text_forms.mermaid, "html": text_forms.html}
    return forms[form](picture).encode()
