"""The bytes of a trace's hops: every header with its fields, and their hex. Pure."""

import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Hop = Mapping[str, Any]
PER_LINE = 16
"""Bytes."""
INDENT = "   "
WIDTH = 80 - len(INDENT)


def all_bytes(hops: Sequence[Hop]) -> Iterator[str]:
    """Return the lines of every hop; consecutive hops with the same bytes are shown once."""
    for _, same in itertools.groupby(hops, key=lambda hop: (hop["leg"], hop["frame"]["hex"])):
        group = list(same)
        first, last = group[0], group[-1]
        numbers = str(first["number"]) if first is last else f"{first['number']}-{last['number']}"
        places = f"{first['where']} {first['direction']}"
        if first is not last:
            places += f" … {last['where']} {last['direction']}"
        yield f"{numbers}  {places}, {first['frame']['length']} bytes"
        yield from (f"{INDENT}{line}" for line in hop_bytes(first))


def hop_bytes(hop: Hop) -> Iterator[str]:
    """Return the lines of one hop."""
    frame = bytes.fromhex(hop["frame"]["hex"])
    for layer in hop["frame"]["layers"]:
        start, end = layer["offset"], layer["offset"] + layer["length"]
        fields = ", ".join(f"{field['name']} {field['value']}" for field in layer["fields"])
        heading = f"{layer['name']}, {layer['length']} bytes" + (f": {fields}" if fields else "")
        yield from textwrap.wrap(heading, WIDTH, subsequent_indent="  ")
        for at in range(start, min(end, len(frame)), PER_LINE):
            yield f"  {at:04x}  {frame[at : min(end, at + PER_LINE)].hex(' ')}"
        hidden = end - max(start, len(frame))
        if hidden > 0:
            yield f"  … {hidden} more bytes"
