"""Hops as JSON, in the shape of docs/trace.md. Pure but for the questions that `reasons` asks."""

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.capture.headers import Packet
from testbed.trace.map import Map
from testbed.trace.order import End
from testbed.trace.reasons import Known, reason
from testbed.trace.recognise import Role
from testbed.trace.story import Step, address, describe
from testbed.trace.verdict import is_delivered

Hop = dict[str, Any]


def hop_list(steps: Sequence[Step], known: Map, facts: Known, mtus: Mapping[End, int | None]) -> list[Hop]:
    """One object a step, numbered from 1."""
    if not steps:
        return []
    first_ns = steps[0].sighting.at_ns
    hops: list[Hop] = []
    last_of: dict[Role, Step] = {}
    at_us = 0.0
    last = {step.role: number for number, step in enumerate(steps, 1)}
    for number, step in enumerate(steps, 1):
        # Two processors' clocks may differ by a little; what is known to come later is never shown as earlier.
        at_us = max(at_us, (step.sighting.at_ns - first_ns) / 1000)
        hops.append(
            {
                "number": number,
                "leg": step.role.value,
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
        )
        last_of[step.role] = step
    return hops


def packet_json(frame: bytes, packet: Packet) -> dict[str, Any]:
    """The fields that a hop table shows."""
    return {
        "src": address(packet.header.source),
        "dst": address(packet.header.destination),
        "ttl": packet.header.ttl,
        "proto": packet.protocol,
        "sport": packet.source_port,
        "dport": packet.destination_port,
        "id": packet.header.identification,
        "length": packet.header.total_length,
        "info": describe(frame, packet),
    }
