"""The content of an encapsulation picture, row by row, from a trace's answer (docs/trace.md, `hops[].frame`). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.cluster.device_names import KERNEL_PEERS

Hop = Mapping[str, Any]
Header = Mapping[str, Any]
LEG_WORDS = {
    "request": "request",
    "data": "payload",
    "reply": "reply",
    "error": "error about the request",
    "reply error": "error about the reply",
}
NETWORK = ("IPv4", "IPv6", "encrypted")


@dataclass(frozen=True, slots=True)
class HeaderCell:
    """One header of one row."""

    name: str
    size: int
    """In bytes."""
    lines: tuple[str, ...]
    changed: frozenset[int]
    """Lines that differ from the row above."""
    column: int
    """0 for the network header of the packet that an overlay may carry; columns before it are negative."""
    wrapped: bool
    """Whether it is inside the packet that an overlay carries."""


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """The difference between two rows."""

    text: str
    by_agent: bool
    """Whether the packet passed through the agent's process."""


@dataclass(frozen=True, slots=True)
class StackRow:
    """Consecutive hops with identical frames."""

    leg: str
    numbers: str
    places: tuple[str, ...]
    cells: tuple[HeaderCell, ...]
    size: int
    """Of the frame, in bytes."""
    change: HeaderChange | None
    """Relative to the row above; None for the first one of a leg."""


def rows_of(hops: Sequence[Hop]) -> list[StackRow]:
    """Return the rows of a trace whose hops have their frames."""
    groups: list[list[Hop]] = []
    for hop in hops:
        if groups and _same(groups[-1][-1], hop):
            groups[-1].append(hop)
        else:
            groups.append([hop])
    rows = []
    before: Hop | None = None
    for group in groups:
        first, last = group[0], group[-1]
        if before is not None and before["leg"] != first["leg"]:
            before = None
        numbers = str(first["number"]) if first is last else f"{first['number']}-{last['number']}"
        places = [f"{hop['where']} {hop['direction']}" for hop in group]
        shown = places if len(places) < 3 else [places[0], f"… {places[-1]}"]
        change = None if before is None else change_between(before, first)
        rows.append(
            StackRow(first["leg"], numbers, tuple(shown), _cells(first, before), first["frame"]["length"], change)
        )
        before = last
    return rows


def row_of(hop: Hop, before: Hop | None) -> StackRow:
    """Return the row of one hop; `before` is the previous one in the same leg, if any."""
    place = f"{hop['where']} {hop['direction']}"
    change = None if before is None else change_between(before, hop)
    return StackRow(hop["leg"], str(hop["number"]), (place,), _cells(hop, before), hop["frame"]["length"], change)


def change_between(before: Hop, after: Hop) -> HeaderChange:
    """Return how the frame changed between two hops of one leg."""
    node, old, new = after["node"], _outer(before), _outer(after)
    if new and not old:
        around = ", ".join(f"{layer['name']} {layer['length']}" for layer in new)
        if _is_agents(new, before):
            text = f"agent of {node}: reads the packet from {before['interface']}, sends it in a datagram (+ {around})"
            return HeaderChange(text, by_agent=True)
        return HeaderChange(
            f"kernel of {node}: {before['interface']} encapsulates the packet (+ {around})", by_agent=False
        )
    if old and not new:
        if _is_agents(old, after):
            text = f"agent of {node}: receives the datagram, writes the packet inside it to {after['interface']}"
            return HeaderChange(text, by_agent=True)
        return HeaderChange(
            f"kernel of {node}: decapsulates the packet, which arrives on {after['interface']}", by_agent=False
        )
    return HeaderChange(f"{node}: {_routed(before, after)}", by_agent=False)


def _routed(before: Hop, after: Hop) -> str:
    one, other = before["inner"], after["inner"]
    said = []
    for end, word in (("src", "source"), ("dst", "destination")):
        if one[end] != other[end]:
            said.append(f"translates the {word} {one[end]} → {other[end]}")
    if one["ttl"] != other["ttl"]:
        said.append(f"routes it: ttl {one['ttl']} → {other['ttl']}")
    had, has = (hop["frame"]["layers"][0]["name"] == "Ethernet" for hop in (before, after))
    if had and not has:
        said.append(f"{after['interface']} has no Ethernet header")
    elif had != has or (has and before["frame"]["hex"][:28] != after["frame"]["hex"][:28]):
        said.append("new Ethernet header")
    return "; ".join(said) or "the frame has changed"


def _same(one: Hop, other: Hop) -> bool:
    return bool(one["leg"] == other["leg"] and one["frame"] == other["frame"])


def _outer(hop: Hop) -> list[Header]:
    """Return the headers around an overlay's payload; none without an overlay."""
    layers = hop["frame"]["layers"]
    return [layer for layer in layers if not layer["depth"]] if any(layer["depth"] for layer in layers) else []


def _is_agents(outer: Sequence[Header], inside: Hop) -> bool:
    """Report whether the udp backend's process sent or received the datagram; `inside`: its packet on a device."""
    return bool(outer[-1]["name"] == "UDP") and not inside["interface"].startswith(KERNEL_PEERS)


def _cells(hop: Hop, before: Hop | None) -> tuple[HeaderCell, ...]:
    old = {} if before is None else {key: _lines(layer, before) for key, layer in _columns(before).items()}
    found = []
    for key, layer in _columns(hop).items():
        lines = _lines(layer, hop)
        was = old.get(key)
        changed = {at for at, line in enumerate(lines) if was is not None and line not in was}
        found.append(
            HeaderCell(layer["name"], layer["length"], lines, frozenset(changed), key[0], wrapped=bool(layer["depth"]))
        )
    return tuple(found)


def _columns(hop: Hop) -> dict[tuple[int, str], Header]:
    """Return headers by column and name. The payload stays in its columns; its encapsulation comes before them."""
    layers = hop["frame"]["layers"]
    depth = max(layer["depth"] for layer in layers)
    start = next(
        (at for at, layer in enumerate(layers) if layer["depth"] == depth and layer["name"] in NETWORK), len(layers)
    )
    sealed = any(layer["name"] == "encrypted" for layer in layers)
    # An encrypted packet takes the room of its three parts.
    return {(at - start + (2 if sealed and at > start else 0), layer["name"]): layer for at, layer in enumerate(layers)}


def _lines(layer: Header, hop: Hop) -> tuple[str, ...]:
    said = {one["name"]: one["value"] for one in layer["fields"]}
    inner = hop["inner"]
    match layer["name"]:
        case "Ethernet":
            return f"to {said['destination']}", f"from {said['source']}", f"type {said['type']}"
        case "IPv4":
            return said["source"], f"→ {said['destination']}", f"ttl {said['ttl']}, {said['protocol']}"
        case "IPv6":
            return said["source"], f"→ {said['destination']}", f"hop limit {said['hop limit']}"
        case "UDP":
            return f"{said['source port']} → {said['destination port']}", f"length {said['length']}"
        case "TCP":
            return f"{said['source port']} → {said['destination port']}", said["flags"], f"seq {said['sequence']}"
        case "ICMP" | "ICMPv6":
            return inner["info"], f"id {said['identifier']}", f"seq {said['sequence']}"
        case "VXLAN":
            return (f"VNI {said['VNI']}",)
        case "WireGuard":
            return f"to {said['receiver']}", f"counter {said['counter']}"
        case "encrypted":
            padding = layer["length"] - inner["length"]
            return f"{inner['src']} → {inner['dst']}", f"{inner['proto']} {inner['info']}", f"padding {padding} bytes"
        case "payload":
            return (f"{layer['length']} bytes",)
    return ()
