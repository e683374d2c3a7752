"""Why a packet is where it was seen: from its previous hop, and from facts of kernels and agents."""

from collections.abc import Collection
from typing import Protocol

from agent.kernel.values import IPAddress, Route
from testbed.capture.headers import Packet, endpoint
from testbed.cluster.device_names import KERNEL_PEERS
from testbed.trace.recognise import Role
from testbed.trace.timeline import Step

ETHERNET_ADDRESS = slice(0, 6)
"""The destination's, in a frame."""
LOOPBACK = "lo"


class Known(Protocol):
    """Available queries; see `facts.Facts`."""

    def route(self, place: str, destination: IPAddress) -> Route | None:
        """Return the route to an address."""

    def bridge_of(self, place: str, interface: str) -> str | None:
        """Return the bridge of a port."""

    def port_of(self, place: str, bridge: str, mac: str) -> str | None:
        """Return the port behind which a bridge knows a MAC address."""

    def peer(self, place: str, destination: IPAddress) -> tuple[str, str] | None:
        """Return the forwarding entry for an inner address."""

    def subnet_of_node_at(self, place: str, node_address: IPAddress) -> str | None:
        """Return the subnet of the node with an underlay address."""

    def owner(self, address: IPAddress) -> str | None:
        """Return the owner of an address."""

    def service(self, place: str, address: IPAddress, port: int | None, protocol: str) -> str | None:
        """Return the service in the place's rules for that address and port, and the map that contains it."""


class Geography(Protocol):
    """Names; see `map.Map`."""

    @property
    def overlay_devices(self) -> Collection[str]:
        """Return names like `flannel0`."""

    def node_name(self, place: str, interface: str) -> str:
        """Return the owner of an interface."""

    def other_end(self, place: str, interface: str) -> tuple[str, str] | None:
        """Return the other end of a cable."""


def reason(before: Step | None, step: Step, known: Known, where: Geography) -> str:
    """Return why `step` happened after `before`, the same packet's previous step (None: its first)."""
    place = step.sighting.place
    if before is None or before.sighting.place != place:
        said = _origin(step, known, where) if step.sighting.outgoing else _arrival(before, step, known, where)
    elif step.sighting.outgoing:
        said = _passed_on(before, step, known)
    else:
        said = _taken_up(before, step, known)
    changes = [] if before is None or before.sighting.place != place else _translations(before, step, known)
    return "; ".join(part for part in (*changes, said) if part)


def _origin(step: Step, known: Known, where: Geography) -> str:
    """Explain its first departure."""
    sighting = step.sighting
    name = where.node_name(sighting.place, sighting.interface)
    maker = {Role.REPLY: f"{name} answers", Role.ERROR: f"{name} complains"}.get(step.role, f"{name} sends it")
    if step.role is Role.REPLY_ERROR:
        maker = f"{name} sends an ICMP error about the reply"
    return f"{maker}; {_route(known, sighting.place, step.inner.header.destination)}"


def _arrival(before: Step | None, step: Step, known: Known, where: Geography) -> str:
    """Explain an arrival at the far end of a cable, or without a previous step."""
    sighting = step.sighting
    other = where.other_end(sighting.place, sighting.interface)
    said = [f"the other end of {other[0]} {other[1]}" if other else ""]
    bridge = known.bridge_of(sighting.place, sighting.interface)
    if bridge:
        said.append(f"a port of {bridge}")
    elif step.outer is None and known.owner(step.inner.header.destination) == sighting.place:
        said.append(f"{step.inner.header.destination} is its own address")
    elif step.outer is not None and known.owner(step.outer.header.destination) == sighting.place:
        said.append(f"for {endpoint(step.outer.header.destination, step.outer.destination_port)}, its own address")
    if sighting.for_another and not bridge:
        said.append("with another machine's MAC address")
    if before is None and sighting.interface in where.overlay_devices:
        maker = "kernel" if sighting.interface.startswith(KERNEL_PEERS) else "agent"
        said.append(f"the {maker} of {sighting.place} made it")
    elif before is None:
        said.append("not seen before")
    return ", ".join(part for part in said if part)


def _taken_up(before: Step, step: Step, known: Known) -> str:
    """Explain another arrival in the same place: from a port to its bridge, or from a datagram to the
    overlay's device.
    """
    sighting, outer = step.sighting, before.outer
    if outer is not None and step.outer is None:
        subnet = known.subnet_of_node_at(sighting.place, outer.header.source)
        sender = f"{outer.header.source} holds {subnet}" if subnet else str(outer.header.source)
        return f"the packet out of the datagram, handed to the kernel by {sighting.interface}; {sender}"
    if known.bridge_of(before.sighting.place, before.sighting.interface) == sighting.interface:
        return f"for {sighting.interface}'s own MAC address: the node handles it"
    if sighting.interface == LOOPBACK:
        return "the loopback gives back what is sent to it"
    return ""


def _passed_on(before: Step, step: Step, known: Known) -> str:
    """Explain a departure from the same place: routed, bridged, or encapsulated."""
    sighting = step.sighting
    if step.outer is not None and before.outer is None:
        return _wrapped(step, step.outer, known)
    bridge = known.bridge_of(sighting.place, sighting.interface)
    if bridge is not None:
        return _bridged(step, bridge, known)
    packet = step.outer or step.inner
    same = before.outer or before.inner
    said = _route(known, sighting.place, packet.header.destination)
    if packet.header.ttl != same.header.ttl:
        said += f"; TTL {same.header.ttl} → {packet.header.ttl}"
    return said


def _wrapped(step: Step, outer: Packet, known: Known) -> str:
    place, inner = step.sighting.place, step.inner.header.destination
    peer = known.peer(place, inner)
    lease = f"lease {peer[0]} → {peer[1]}" if peer else f"the lease for {inner} is gone"
    sealed = "; encrypted, so it is matched only by size and order" if step.sighting.sealed is not None else ""
    return f"{lease}; {_route(known, place, outer.header.destination)}{sealed}"


def _bridged(step: Step, bridge: str, known: Known) -> str:
    sighting = step.sighting
    mac = ":".join(f"{byte:02x}" for byte in sighting.frame[ETHERNET_ADDRESS])
    port = known.port_of(sighting.place, bridge, mac)
    if port is None:
        return f"{bridge} does not know {mac} and floods all ports"
    return f"{bridge}'s table: {mac} is behind {port}"


def _route(known: Known, place: str, destination: IPAddress) -> str:
    route = known.route(place, destination)
    return f"route {route_words(route)}" if route else f"no route to {destination} now"


def route_words(route: Route) -> str:
    """Format a route for people: without the kernel's annotations (scope, protocol, preferred source)."""
    words = [] if route.kind == "unicast" else [route.kind]
    words.append("default" if route.destination.prefixlen == 0 else str(route.destination))
    if route.gateway is not None:
        words += ["via", str(route.gateway)]
    return " ".join([*words, *(["dev", route.device] if route.device else [])])


def _translations(before: Step, step: Step, known: Known) -> list[str]:
    """Describe address changes in between: by the place's rules, or by its connection tracking for replies."""
    old, new = before.inner, step.inner
    said = []
    was, becomes = (old.header.destination, old.destination_port), (new.header.destination, new.destination_port)
    turned_back = "" if step.role is Role.REQUEST else "conntrack translates it back: "
    if was != becomes:
        service = known.service(step.sighting.place, *was, old.protocol) if step.role is Role.REQUEST else None
        name = f"service {service}: " if service else ""
        how = turned_back or f"{name}DNAT "
        said.append(f"{how}destination {endpoint(*was)} → {endpoint(*becomes)}")
    was, becomes = (old.header.source, old.source_port), (new.header.source, new.source_port)
    if was != becomes:
        how = turned_back or "masquerade: "
        said.append(f"{how}source {endpoint(*was)} → {endpoint(*becomes)}")
    return said
