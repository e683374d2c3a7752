"""The effects of network policies on a traced packet: which allowed it at a node, and which dropped it. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.capture.headers import Packet
from testbed.cluster.network_policy import Direction
from testbed.control.answers.trace import TracePolicy
from testbed.policies.evaluate import Decision, decide, denial
from testbed.policies.tables import TABLE
from testbed.policies.world import End, PolicyPod, Protocol, World, names_of
from testbed.trace.recognise import Role
from testbed.trace.timeline import Step

CHAIN = re.compile(rf"table {TABLE}, chain (?P<direction>ingress|egress)-(?P<pod>[^\s:]+)")
DIRECTIONS: Mapping[str, Direction] = {"ingress": "Ingress", "egress": "Egress"}
PROTOCOLS: Mapping[str, Protocol] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp"}


@dataclass(frozen=True, slots=True)
class PolicyWords:
    """Explains hops by the current policies of a lab."""

    world: World

    def dropped(self, rule: str, packet: Packet) -> str | None:
        """Return which policies dropped a packet, by the rule that the kernel named; None: none did."""
        found = CHAIN.search(rule)
        pod = found and next((one for one in self.world.pods if one.key.file_name == found["pod"]), None)
        if not found or not pod:
            return None
        direction = DIRECTIONS[found["direction"]]
        source, target = self.world.at(packet.header.source), self.world.at(packet.header.destination)
        if direction == "Ingress" and target.pod is not pod:
            # The rules of Services gave it a pod's address only then.
            connection = f"{source} → {pod.key} (sent to {_at(target, packet)})"
        else:
            connection = f"{source} → {_at(target, packet)}"
        by = names_of(self.world.isolating(pod, direction))
        return f"dropped by {denial(by, direction, str(pod.key), connection)}"

    def passed(self, steps: Sequence[Step]) -> list[tuple[int, TracePolicy]]:
        """Return, for packets that passed policies, the number of the step after each and what allowed it."""
        requests = [step for step in steps if step.role is Role.REQUEST]
        if not requests or not self.world.policies:
            return []
        first, last = requests[0].inner, requests[-1].inner
        source, target = self.world.at(first.header.source), self.world.at(last.header.destination)
        protocol: Protocol = PROTOCOLS.get(last.protocol, "icmp")
        decisions = list(self._decisions(source, target, protocol, last.destination_port))
        found = []
        for role in (Role.REQUEST, Role.REPLY):
            own = [(number, step) for number, step in enumerate(steps) if step.role is role]
            ends = decisions if role is Role.REQUEST else [_turned(self.world, pod, one) for pod, one in decisions]
            for pod, decision in ends:
                if decision.isolated_by and (number := _left_node(own, pod, decision.direction)) is not None:
                    found.append((number, _as_json(pod, decision, role)))
        return sorted(found, key=lambda one: one[0])

    def _decisions(
        self, source: End, target: End, protocol: Protocol, port: int | None
    ) -> Iterator[tuple[PolicyPod, Decision]]:
        sender, receiver = source.pod, target.pod
        if sender is not None and sender is not receiver:
            yield sender, decide(self.world, sender, "Egress", target, protocol, port)
        if receiver is not None and receiver.node and sender is not receiver:
            yield receiver, decide(self.world, receiver, "Ingress", source, protocol, port)


def _turned(world: World, pod: PolicyPod, decision: Decision) -> tuple[PolicyPod, Decision]:
    """Return the policies for the reply in the other direction: none, its connection is known."""
    direction: Direction = "Ingress" if decision.direction == "Egress" else "Egress"
    return pod, Decision(direction, decision.pod, names_of(world.isolating(pod, direction)), ())


def _left_node(steps: Sequence[tuple[int, Step]], pod: PolicyPod, direction: Direction) -> int | None:
    """Return the first step that shows that the packet passed the pod's chain: out of its node, or out to the pod
    itself.
    """
    for number, step in steps:
        sighting = step.sighting
        if (
            sighting.place == pod.node
            and sighting.outgoing
            and (direction == "Egress" or sighting.interface == pod.device)
        ):
            return number
    return None


def _as_json(pod: PolicyPod, decision: Decision, role: Role) -> TracePolicy:
    return {
        "leg": role.leg,
        "node": pod.node,
        "pod": decision.pod,
        "direction": decision.direction,
        "isolated_by": list(decision.isolated_by),
        "allowed_by": list(decision.allowed_by),
    }


def passed_words(policy: TracePolicy) -> str:
    """Describe a policy that a hop passed."""
    what = f"{policy['direction'].lower()} of {policy['pod']}"
    if policy["leg"] == "reply":
        return f"{what} is isolated; the reply of a known connection passes"
    if not policy["allowed_by"]:
        return f"{what}: no policy allows it now"
    word = "policy" if len(policy["allowed_by"]) == 1 else "policies"
    return f"{what}: allowed by {word} {', '.join(policy['allowed_by'])}"


def _at(end: End, packet: Packet) -> str:
    port = "" if packet.destination_port is None else f":{packet.destination_port}"
    return f"{end}{port}{'' if packet.protocol == 'tcp' else f' ({packet.protocol})'}"
