"""Capture points that see packets between nodes only inside the overlay's own, where no filter matches them. Pure."""

import re
from collections.abc import Sequence
from ipaddress import ip_network

from agent.kernel.values import IPNetwork
from testbed.capture.headers import IPIP
from testbed.capture.map import LAB, Map
from testbed.capture.plan import CapturePoint

SHOWN = 4
_PORTS = re.compile(r"\b(?:port|portrange)\s+([\w-]+)")
_ADDRESS = re.compile(r"[0-9a-f:.]*[:.][0-9a-f:.]+(?:/[0-9]+)?")
_INNER_WORDS = re.compile(r"\b(tcp|icmp6?|sctp)\b")


def decoding(known: Map) -> str:
    """Return the option with which Wireshark and tshark decode the overlay's datagrams; empty if none is needed."""
    overlay = known.overlay
    # A bare IP packet in UDP; they expect vxlan only on its IANA port.
    return f"-d udp.port=={overlay.port},{'ip' if overlay.kind == 'udp' else overlay.kind}" if overlay.port else ""


def note_of(expression: str, listenings: Sequence[CapturePoint], known: Map) -> str:
    """Return a note about a filter on inner packets, in a line; empty if it matches outer ones, or no point is
    affected.
    """
    points = _outer_points(listenings, known)
    if not points or not _is_about_inner(expression, known):
        return ""
    overlay = known.overlay
    shown = ", ".join(points[:SHOWN]) + (f" and {len(points) - SHOWN} more" if len(points) > SHOWN else "")
    if not overlay.port and not overlay.sealed_ports:
        around, outer = "another IP header", f"ip proto {IPIP}"
    else:
        port = overlay.port or overlay.sealed_ports[0]
        around, outer = f"UDP port {port}", f"udp port {port}"
    inside = f"; Wireshark decodes it with {decoding(known)}" if decoding(known) else ""
    device = known.overlay_device or "pods"
    return (
        f"note: {shown} see packets between nodes only inside {around}, which this filter does not match "
        f'(capture at pods and {device}, or filter "{outer}"{inside})'
    )


def _outer_points(listenings: Sequence[CapturePoint], known: Map) -> list[str]:
    if known.overlay.kind == "none" and not known.overlay.sealed_ports:
        return []
    found = []
    for listening in sorted(listenings, key=lambda one: (one.place != LAB, one.place)):
        place = listening.place
        if place in known.nodes:
            found += [f"{place}:uplink"] if listening.wants(f"{place}-eth0") else []
        elif place == LAB:
            found += sorted({known.node_name(LAB, one) for one in known.switch_ports if listening.wants(one)})
        elif place in known.machines and sum(owner == place for owner, _ in known.cables) > 1:
            found.append(place)
    return found


def _is_about_inner(expression: str, known: Map) -> bool:
    ports = {str(port) for port in (known.overlay.port, *known.overlay.sealed_ports) if port}
    asked = set(_PORTS.findall(expression))
    if asked & ports:
        return False
    pods = [address for address, place in known.addresses.items() if place not in known.machines]
    networks = [network for text in _ADDRESS.findall(expression) if (network := _network(text)) is not None]
    return bool(asked or _INNER_WORDS.search(expression) or any(pod in one for one in networks for pod in pods))


def _network(text: str) -> IPNetwork | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
