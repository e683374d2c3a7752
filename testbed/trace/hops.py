"""Hops as JSON, in the shape of docs/trace.md. Pure except for the queries of `reasons`."""

from collections.abc import Mapping, Sequence

from testbed.capture.headers import Packet
from testbed.capture.layers import Layer, layers_of
from testbed.capture.map import End, Map
from testbed.control.answers.trace import HopFrame, HopLayer, HopPacket, TraceHop
from testbed.trace.reasons import Known, reason
from testbed.trace.recognise import Role
from testbed.trace.timeline import Step, describe
from testbed.trace.verdict import is_delivered
from testbed.trace.watch import Sighting

SHORTEST_HEADERS = 72
"""IPv4 and TCP with their usual options and a margin: the payload is smaller than the intended packet by this."""
MOST_BYTES = 256
"""Limit of shown bytes of a frame: all possible headers, and the start of a large payload."""


def hop_list(
    steps: Sequence[Step],
    known: Map,
    facts: Known,
    mtus: Mapping[End, int | None],
    *,
    with_headers: bool = False,
) -> list[TraceHop]:
    """Return one object per step, numbered from 1."""
    if not steps:
        return []
    first_ns = steps[0].sighting.at_ns
    hops: list[TraceHop] = []
    last_of: dict[Role, Step] = {}
    at_us = 0.0
    last = {step.role: number for number, step in enumerate(steps, 1)}
    for number, step in enumerate(steps, 1):
        # Two processors' clocks may differ by a little; a later hop is never shown as earlier.
        at_us = max(at_us, (step.sighting.at_ns - first_ns) / 1000)
        hop: TraceHop = {
            "number": number,
            "leg": step.role.leg,
            "where": known.where(*step.end),
            "node": known.node_name(*step.end),
            "interface": step.sighting.interface,
            "direction": "out" if step.sighting.outgoing else "in",
            "at_us": round(at_us, 1),
            "inner": packet_json(step.sighting.frame, step.inner),
            "outer": None if step.outer is None else packet_json(step.sighting.frame, step.outer),
            "mtu": mtus.get(step.end),
            "why": reason(last_of.get(step.role), step, facts, known)
            + (": delivered" if number == last[step.role] and is_delivered(step, known) else ""),
        }
        if with_headers:
            hop["frame"] = frame_json(step.sighting, known)
        hops.append(hop)
        last_of[step.role] = step
    return hops


def frame_json(sighting: Sighting, known: Map) -> HopFrame:
    """Return the frame as captured: its bytes, and every header with its fields and positions."""
    frame = sighting.frame if sighting.sealed is None else sighting.sealed
    return {
        "length": len(frame),
        "hex": frame[:MOST_BYTES].hex(),
        "layers": layers_json(layers_of(frame, sighting.link_header, known.overlay)),
    }


def layers_json(layers: Sequence[Layer]) -> list[HopLayer]:
    """Return one object per header."""
    return [
        {
            "name": layer.name,
            "offset": layer.offset,
            "length": layer.length,
            "depth": layer.depth,
            "fields": [
                {"name": one.name, "value": one.value, "offset": one.offset, "length": one.length}
                for one in layer.fields
            ],
        }
        for layer in layers
    ]


def packet_json(frame: bytes, packet: Packet) -> HopPacket:
    """Return the fields of a hop table."""
    return {
        "src": str(packet.header.source),
        "dst": str(packet.header.destination),
        "ttl": packet.header.ttl,
        "proto": packet.protocol,
        "sport": packet.source_port,
        "dport": packet.destination_port,
        "id": packet.header.identification,
        "length": packet.header.total_length,
        "info": describe(frame, packet),
    }


def narrow_places(hops: Sequence[TraceHop]) -> list[str]:
    """Return hops between nodes whose MTU is below the sender's (that of the first hop): packets larger than the probe
    may be silently lost there. Pure.
    """
    said = []
    for leg in dict.fromkeys(hop["leg"] for hop in hops):
        own = [hop for hop in hops if hop["leg"] == leg]
        promised = own[0]["mtu"]
        carriers = [
            (hop["mtu"], hop["outer"]["length"] - hop["inner"]["length"], hop["where"])
            for hop in own
            if hop["outer"] is not None and hop["mtu"] is not None
        ]
        mtu, headers, where = min(carriers, key=lambda carrier: carrier[0], default=(None, 0, ""))
        if promised is None or mtu is None:
            continue
        room = mtu - headers
        if room < promised:
            said.append(
                f"{own[0]['where']} allows packets of {promised} bytes, but {where} only {room} (MTU {mtu}): larger"
                f" ones may be lost (try --size {promised - SHORTEST_HEADERS})"
            )
    return said
