"""Where a packet may have been lost after its last sighting: each suspicion is a query to kernels and agents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agent.kernel.values import IPAddress, IPNetwork, Route
from testbed.capture.headers import Packet
from testbed.capture.map import LAB, Map
from testbed.cluster.device_names import DROP_DEVICE
from testbed.cluster.object_key import key_of
from testbed.trace.evidence import Counters
from testbed.trace.facts import STANDS_STILL, Facts
from testbed.trace.policy_words import PolicyWords
from testbed.trace.reasons import route_words
from testbed.trace.timeline import Step, error_words

DROP_WORDS = {
    "peer": "the datagram's sender holds no lease known to this agent",
    "source": "the inner source is not in the subnet of the node that sent it",
    "destination": "the inner destination is not in this node's subnet",
    "own": "it is for the node's own subnet, and no route leads to the pods: the bridge is gone or down",
    "no_route": "no node holds a lease for the destination",
    "toolong": "it is longer than the overlay's MTU here",
    "tun_write": "the kernel refused it at the overlay device",
    "udp_send": "the underlay refused the datagram",
    "fenced": "another node owns this node's subnet",
}
"""Drop reasons that apply to a whole packet (docs/reference.md)."""
ASKING = {4: "ARP", 6: "neighbour solicitations"}


@dataclass(slots=True)
class Finding:
    """Why a packet was lost, and where to look next."""

    reasons: list[str] = field(default_factory=list)
    """The surest first."""
    hints: list[str] = field(default_factory=list)
    """Verbs to type next, without `sudo testbed`."""


@dataclass(frozen=True, slots=True)
class Suspects:
    """Checks the suspicions, the likeliest first."""

    known: Map
    facts: Facts
    drops: dict[str, Counters]
    """Increased counters of agents."""
    kernels: dict[str, Counters]
    """Increased counters of kernels."""
    policies: PolicyWords
    pod_network: IPNetwork | None = None
    """The overlay's network, of the packet's family."""

    def about(self, lost: Step, errors: list[Step], path: Sequence[Step] = ()) -> Finding:
        """Return the findings about a packet last seen at `lost`, on its path so far."""
        finding = Finding()
        for step in errors[:1]:
            who = self.known.addresses.get(step.inner.header.source)
            said = error_words(step.inner)
            finding.reasons.append(f"{who or step.inner.header.source} says: {said}")
        place = lost.sighting.place
        if lost.sighting.outgoing and (place, lost.sighting.interface) in self.known.cables:
            self._cable(lost, finding)
        elif self._is_agents_turn(lost):
            self._agent(place, lost, finding)
        elif self.facts.bridge_of(place, lost.sighting.interface) and self._is_bridged(lost):
            self._bridge(lost, finding)
        elif (node := self._without_route(lost, path)) is not None:
            self._strayed(node, lost, finding)
        else:
            self._kernel(place, lost, finding)
        finding.reasons += self._moved(finding)
        return finding

    def about_sender(self, place: str, destination: IPAddress, said: str | None) -> Finding:
        """Explain why a packet did not even leave its sender."""
        finding = Finding()
        route = self.facts.route(place, destination)
        if route is None or route.kind not in ("unicast", "local"):
            shown = f": {route_words(route)}" if route else ""
            finding.reasons.append(f"{place} has no route to {destination}{shown}")
        elif route.device == DROP_DEVICE:
            finding.reasons.append(self._drops(place, route))
        else:
            self._filtered(place, finding)
        finding.reasons.append(f"the kernel of {place} reports: {said or 'nothing'}")
        finding.hints.append(f"exec {place} -- ip route get {destination}")
        return finding

    def _without_route(self, lost: Step, path: Sequence[Step]) -> str | None:
        """Explain a pod's packet that its node's default route sent, without encapsulation, to a machine that is not a
        node.
        """
        place, destination = lost.sighting.place, lost.inner.header.destination
        inside = self.pod_network is not None and destination in self.pod_network
        if not inside or lost.outer is not None or place not in self.known.machines - self.known.nodes:
            return None
        return next((step.sighting.place for step in reversed(path) if step.sighting.place in self.known.nodes), None)

    def _strayed(self, node: str, lost: Step, finding: Finding) -> None:
        destination = lost.inner.header.destination
        route = self.facts.route(node, destination)
        by = f" ({route_words(route)} now)" if route else ""
        finding.reasons.insert(
            0, f"{node} had no route of its own to {destination} and sent it to {lost.sighting.place}{by}"
        )
        finding.hints += [f"get routes {node}", f"exec {node} -- ip route get {destination}", f"logs {node}"]

    def _is_agents_turn(self, lost: Step) -> bool:
        sighting = lost.sighting
        on_device = sighting.outgoing and sighting.interface == self.known.overlay_device
        device = self.facts.link(sighting.place, self.known.overlay_device)
        by_kernel = device is not None and device.kind == "ipip"
        return self.known.overlay.kind == "udp" and not by_kernel and (on_device or self._for_agent(lost))

    def _for_agent(self, lost: Step) -> bool:
        sighting, outer = lost.sighting, lost.outer
        mine = outer is not None and self.facts.owner(outer.header.destination) == sighting.place
        return mine and not sighting.outgoing and sighting.place in self.known.nodes

    def _is_bridged(self, lost: Step) -> bool:
        """Report whether it arrived at a port, and not for the bridge's own MAC address, which the next step would
        show.
        """
        sighting = lost.sighting
        if sighting.place == LAB:
            return True
        bridge = self.facts.bridge_of(sighting.place, sighting.interface)
        link = self.facts.link(sighting.place, bridge or "")
        mac = ":".join(f"{byte:02x}" for byte in sighting.frame[:6])
        return link is not None and (link.mac != mac or not link.up)

    def _cable(self, lost: Step, finding: Finding) -> None:
        """Explain a packet that left one end of a cable and was not seen at the other."""
        sighting = lost.sighting
        near, far = sighting.place, self.known.cables[sighting.place, sighting.interface]
        length = (lost.outer or lost.inner).header.total_length
        link = self.facts.link(*far)
        where = self.known.where(*far)
        if link is None:
            finding.reasons.append(f"the cable's other end, {where}, is gone")
        elif not link.up:
            finding.reasons.append(f"{where} is down")
        elif link.mtu < length:
            finding.reasons.append(f"{length} bytes do not fit through {where} (MTU {link.mtu})")
        else:
            finding.reasons.append(f"it left {self.known.where(near, sighting.interface)} and did not reach {where}")
        finding.hints.append(self._type_at(far[0], f"ip -s link show {far[1]}"))

    def _agent(self, place: str, lost: Step, finding: Finding) -> None:
        if self.facts.has_other_agent(place):
            self._other_agent(place, lost, finding)
            return
        if self.facts.state(place) is None:
            said = self.facts.silent_agent(place)
            finding.reasons.insert(0, f"the agent of {place} does not answer: {said}")
            finding.reasons += self._what_it_would_repair(place)
            finding.hints += [f"logs {place}", "fault list", "status"]
            if said == STANDS_STILL:
                self._filtered(place, finding, lost)
            return
        moved = self.drops.get(place, {})
        for reason in moved:
            words = DROP_WORDS.get(reason, "see docs/reference.md")
            finding.reasons.insert(0, f"the agent of {place} dropped it ({reason}): {words}")
        if "own" in moved:
            name = self.facts.pods_bridge(place)
            if name is not None:
                bridge = self.facts.link(place, name)
                if bridge is None or not bridge.up:
                    finding.reasons.insert(0, f"{name} of {place} is {'down' if bridge else 'gone'}")
                finding.hints.append(f"exec {place} -- ip link show {name}")
            finding.hints.append(f"get routes {place}")
            return
        outgoing = lost.sighting.outgoing
        peer = self.facts.peer(place, lost.inner.header.destination)
        if outgoing and peer is None:
            finding.reasons.append(f"{place} has no lease for {lost.inner.header.destination}")
            finding.hints += ["get leases", f"get routes {place}"]
        elif not outgoing and not moved:
            self._receiving_side(place, lost, finding)
        if not finding.hints:
            finding.hints += [f"describe node {place}", f"logs {place}", "get leases"]

    def _other_agent(self, place: str, lost: Step, finding: Finding) -> None:
        """Check a foreign agent, which reports no counters: only whether it runs."""
        if not self.facts.agent_runs(place):
            finding.reasons.insert(0, f"the agent of {place}, which is not ours, does not run")
        elif lost.sighting.outgoing:
            finding.reasons.append(f"the agent of {place}, which is not ours, took it and sent nothing")
        else:
            self._receiving_side(place, lost, finding)
        finding.reasons += self._what_it_would_repair(place)
        finding.hints += [f"logs {place}", f"describe node {place}", "get leases"]

    def _what_it_would_repair(self, place: str) -> Iterator[str]:
        """Yield obstacles that the packet would meet if the agent had carried it; a running agent repairs these."""
        for name in (self.known.overlay_device, self.facts.pods_bridge(place)):
            link = self.facts.link(place, name) if name else None
            if link is not None and not link.up:
                yield f"{name} of {place} is down"

    def _receiving_side(self, place: str, lost: Step, finding: Finding) -> None:
        """Check a node that received the datagram without a counted drop: perhaps a filter before the agent."""
        self._filtered(place, finding, lost)
        link = self.facts.link(place, self.known.overlay_device)
        if link is None or not link.up:
            finding.reasons.insert(0, f"{self.known.overlay_device} of {place} is {'down' if link else 'gone'}")
            finding.hints.append(f"exec {place} -- ip link show {self.known.overlay_device}")

    def _bridge(self, lost: Step, finding: Finding) -> None:
        sighting = lost.sighting
        bridge = self.facts.bridge_of(sighting.place, sighting.interface) or ""
        link = self.facts.link(sighting.place, bridge)
        owner = self.known.node_name(sighting.place, sighting.interface)
        length = (lost.outer or lost.inner).header.total_length
        mac = ":".join(f"{byte:02x}" for byte in sighting.frame[:6])
        port = self.facts.port_of(sighting.place, bridge, mac)
        out = self.facts.link(sighting.place, port) if port else None
        if link is None or not link.up:
            finding.reasons.insert(0, f"{bridge} of {owner} is down")
        elif out is not None and not (out.up and out.carrier):
            finding.reasons.insert(0, f"{owner}'s port {port}, which leads to {mac}, is down")
        elif out is not None and out.mtu < length:
            finding.reasons.insert(0, f"{length} bytes do not fit through {owner}'s port {port} (MTU {out.mtu})")
        elif not self._filtered(sighting.place, finding, lost):
            down = self._ports_down(sighting.place, bridge)
            said = f"; down: {', '.join(down)}" if down else ""
            finding.reasons.insert(0, f"{bridge} did not forward it to {port or 'any port'}{said}")
        finding.hints.append(self._type_at(sighting.place, f"ip -s link show {port or bridge}"))

    def _ports_down(self, place: str, bridge: str) -> list[str]:
        """Return the bridge's ports that cannot send, each with its other end."""
        found = []
        for interface in sorted(interface for owner, interface in self.known.cables if owner == place):
            link = self.facts.link(place, interface)
            if link is not None and self.facts.bridge_of(place, interface) == bridge and not (link.up and link.carrier):
                other = self.known.other_end(place, interface)
                found.append(f"{interface} (to {other[0]})" if other else interface)
        return found

    def _kernel(self, place: str, lost: Step, finding: Finding) -> None:
        """Explain a packet that the kernel of the place received and did not send on."""
        packet: Packet = lost.outer or lost.inner
        destination = packet.header.destination
        route = self.facts.route(place, destination)
        device = self.facts.link(place, route.device) if route and route.device else None
        source = packet.header.source
        # A packet to one of the Service's ports is translated first; if it is dropped then, no interface shows its new
        # destination.
        if service := self.facts.service_without_port(destination, packet.destination_port, packet.protocol):
            finding.reasons.insert(0, f"{destination} is the cluster IP of {service}; only the Service's ports answer")
            finding.hints += ["get services", *self._look_at(place)]
            return
        if route is None and (main := self.facts.main_route(place, destination)) is not None:
            what = f"a routing rule of {place} comes before its main table, where the route is {route_words(main)}"
            finding.reasons.insert(0, what)
            finding.hints += [f"exec {place} -- ip rule", f"exec {place} -- ip route show table all"]
            return
        if route is None:
            finding.reasons.insert(0, f"{place} has no route to {destination}")
        elif route.kind == "local" and self.facts.route(place, source) is None:
            finding.reasons.insert(0, f"{place} cannot answer: it has no route to {source}")
            finding.hints += [f"exec {place} -- ip route get {source}", *self._look_at(place)]
            return
        elif route.kind not in ("unicast", "local"):
            refusal = f"{place}'s route refuses it: {route_words(route)}"
            finding.reasons.insert(0, refusal + self._without_agent(place))
        elif route.device == DROP_DEVICE:
            finding.reasons.insert(0, self._drops(place, route))
        elif device is not None and not device.up:
            finding.reasons.insert(0, f"{device.name} of {place} is down")
        elif device is not None and device.mtu < packet.header.total_length:
            size = packet.header.total_length
            finding.reasons.insert(0, f"{size} bytes do not fit through {device.name} of {place} (MTU {device.mtu})")
        elif following := self.facts.unanswered(place, destination, route):
            finding.reasons.insert(
                0, f"no reply to {ASKING[following.version]} for {following} on {route.device} of {place}"
            )
        else:
            self._filtered(place, finding, lost)
            if not finding.reasons:
                finding.reasons.append(f"{place} received it and did not forward it (route {route_words(route)})")
        finding.hints += [f"exec {place} -- ip route get {destination}", *self._look_at(place)]

    def _type_at(self, place: str, command: str) -> str:
        """Return the verb that runs a command there.

        Containers may not read packet filters, switches have no machine.
        """
        if place == LAB:
            return f"shell  # then: {command}"
        if self.known.pid(place) is None or place in self.known.machines:
            return f"exec {place} -- {command}"
        return f"shell  # then: ip netns exec {key_of(place).file_name} {command}"

    def _look_at(self, place: str) -> list[str]:
        return [f"get routes {place}"] if place in self.known.nodes else []

    def _drops(self, place: str, route: Route) -> str:
        return f"{place}'s route drops it: {route_words(route)}{self._without_agent(place)}"

    def _without_agent(self, place: str) -> str:
        if self.facts.has_other_agent(place):
            return "" if self.facts.agent_runs(place) else " (its agent does not run)"
        gone = place in self.known.nodes and self.facts.state(place) is None
        return " (its agent does not answer)" if gone else ""

    def _filtered(self, place: str, finding: Finding, lost: Step | None = None) -> bool:
        """Record the place's rule that drops such a packet; return whether there is one."""
        rule = self.facts.dropping_rule(place)
        if rule is None:
            return False
        policy = self.policies.dropped(rule, lost.inner) if lost is not None else None
        if policy is not None:
            finding.reasons[:0] = [policy, f"on {place}: {rule}"]
            finding.hints[:0] = ["policy --matrix", "get networkpolicies -A"]
        else:
            finding.reasons.insert(0, f"a packet filter of {place} drops it: {rule}")
            finding.hints.insert(0, self._type_at(place, "nft list ruleset"))
        return True

    def _moved(self, finding: Finding) -> Iterator[str]:
        for place, counters in self.drops.items():
            for reason, count in counters.items():
                if not any(f"({reason})" in said and place in said for said in finding.reasons):
                    yield f"meanwhile the agent of {place} dropped {count}: {reason}"
        for place, counters in self.kernels.items():
            moved = ", ".join(f"{name} +{count}" for name, count in counters.items())
            yield f"meanwhile counters of {self._shown(place)} increased: {moved}"

    def _shown(self, place: str) -> str:
        return "the switches" if place == LAB else place
