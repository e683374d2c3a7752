"""The lab's side of `testbed policy`."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

from agent.kernel.values import Family
from testbed.cluster.kinds import SERVICE
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey, key_of
from testbed.control.answers.policy import PolicyAnswer, PolicyDirection, PolicyLine, PolicyTarget
from testbed.control.questions import POLICY
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.policies.evaluate import Decision, PolicyVerdict, evaluate
from testbed.policies.pairs import port_answers, reachable
from testbed.policies.policies import Policies
from testbed.policies.world import PROTOCOLS, End, Protocol, World
from testbed.services.endpoints import endpoints_of
from testbed.services.services import Services
from testbed.spelling import listed


def policy_verbs(policies: Policies, services: Services, nodes: Nodes, pods: Pods) -> Sequence[AnyVerb]:
    """Return the verb."""
    return (Verb(POLICY, PolicyVerb(policies, services, nodes, pods).answer, changes=False),)


class PolicyVerb:
    """Reports what policies allow, without sending a packet."""

    def __init__(self, policies: Policies, services: Services, nodes: Nodes, pods: Pods) -> None:
        self._policies = policies
        self._services = services
        self._nodes = nodes
        self._pods = pods

    def answer(self, request: Request) -> PolicyAnswer:
        """Return the verdict for two ends, or for every pair of pods. Raises TestbedError."""
        namespace = request.argument("namespace", str)
        words = (request.argument("source", str, ""), request.argument("destination", str, ""))
        by_ipv6 = request.argument("ipv6", bool, False) or any(map(is_ipv6, words))
        family: Family = 6 if by_ipv6 else 4
        world = self._policies.world()
        source, target = words
        if request.argument("matrix", bool, False):
            return matrix_answer(world, family, namespace, key_of(source) if source else None)
        protocol, port = request.argument("protocol", str), request.argument("port", int)
        within = namespace or DEFAULT_NAMESPACE
        sender = self._end(world, source, within, family, sends=True)
        return {
            "source": str(sender),
            "targets": [
                _target(world, sender, end, as_protocol(protocol) if number is not None or protocol else None, number)
                for end, number in self._targets(world, target, port, protocol, within, family)
            ],
        }

    def _targets(
        self, world: World, word: str, port: int | None, protocol: str | None, namespace: str, family: Family
    ) -> list[tuple[End, int | None]]:
        """Return the named end, or each endpoint of a Service with its own port."""
        kind, slash, rest = word.partition("/")
        is_service = bool(slash) and kind in SERVICE.words
        key = key_of(rest if is_service else word, namespace)
        service = self._services.numbered.get(key)
        if service is None or (not is_service and self._pods.get(key) is not None):
            if is_service:
                raise TestbedError(f"no service {key} (there are: {listed(map(str, self._services.numbered), rest)})")
            return [(self._end(world, word, namespace, family), port)]
        ready, _ = endpoints_of(service, self._services.pods(), family)
        found = [
            (world.at(one.address), one.port)
            for number, endpoints in zip(service.spec.ports, ready, strict=True)
            if port in (None, number.port) and (protocol is None or PROTOCOLS[number.protocol] == protocol)
            for one in endpoints
        ]
        if not found:
            numbers = ", ".join(f"{one.port}/{PROTOCOLS[one.protocol]}" for one in service.spec.ports)
            raise TestbedError(f"service {key} has no endpoint at this port (its ports: {numbers})")
        return list(found)

    def _end(self, world: World, word: str, namespace: str, family: Family, *, sends: bool = False) -> End:
        with contextlib.suppress(ValueError):
            return world.at(ip_address(word))
        key = key_of(word, namespace)
        pod = self._pods.get(key)
        if pod is not None:
            found = next((one for one in world.pods if one.key == key), None)
            text = pod.address if family == 4 else pod.ipv6_address
            if text is None:
                raise TestbedError(
                    f"pod {key} has no IPv{family} address (want a pod that runs; for -6 a network with EnableIPv6)"
                )
            return End(ip_address(text), found, str(key))
        node = self._nodes.get(word)
        if node is not None:
            return _node_end(node, family, sends=sends)
        there = listed([*self._pods.names(), *self._nodes], word)
        raise TestbedError(f"no pod, node or address {word} (there are: {there})")


def _node_end(node: LabNode, family: Family, *, sends: bool) -> End:
    """Return a node with the address that other nodes' pods see: the overlay device's, if there is one."""
    if family == 6:
        address = node.ipv6_address
        if address is None:
            raise TestbedError(f"node {node.name} has no IPv6 address (want an underlay with both families)")
        return End(address, name=node.name)
    through_overlay = sends and node.overlay_device is not None
    return End(node.subnet.network_address if through_overlay else node.address, name=node.name)


def is_ipv6(word: str) -> bool:
    """Report whether a word is an IPv6 address."""
    with contextlib.suppress(ValueError):
        return ip_address(word).version == 6
    return False


def as_protocol(word: str | None) -> Protocol:
    """Return the protocol of that name; TCP for none. Raises InvalidInput."""
    known: dict[str, Protocol] = {"tcp": "tcp", "udp": "udp", "sctp": "sctp", "icmp": "icmp"}
    if word is not None and word not in known:
        raise InvalidInput(f"policy: protocol (got {word}; want tcp, udp, sctp or icmp)")
    return known[word or "tcp"]


def _target(world: World, source: End, target: End, protocol: Protocol | None, port: int | None) -> PolicyTarget:
    if protocol is not None:
        verdict = evaluate(world, source, target, protocol, port)
        lines = [_line([protocol if port is None else f"{port}/{protocol}"], verdict)]
    else:
        lines = [
            _line(one.ports, one.verdict if one.is_one_port else _of_no_port(one.verdict))
            for one in port_answers(world, source, target)
        ]
    return {"target": str(target), "address": str(target.address), "lines": lines}


def _of_no_port(verdict: PolicyVerdict) -> PolicyVerdict:
    """Return the verdict without its port: its text is about many."""
    return replace(verdict, protocol="tcp", port=None)


def _line(ports: list[str], verdict: PolicyVerdict) -> PolicyLine:
    return {
        "ports": ports,
        "allowed": verdict.allowed,
        "reason": str(verdict),
        "egress": _direction(verdict.egress),
        "ingress": _direction(verdict.ingress),
    }


def _direction(decision: Decision | None) -> PolicyDirection | None:
    if decision is None:
        return None
    return {
        "pod": decision.pod,
        "isolated_by": list(decision.isolated_by),
        "allowed_by": list(decision.allowed_by),
    }


def matrix_answer(world: World, family: Family, namespace: str | None, about: ObjectKey | None = None) -> PolicyAnswer:
    """Return what every two pods (of a namespace; `about`: with this one of them) may send to each other."""
    ends = [
        End(address, pod)
        for pod in world.pods
        if pod.node and namespace in (None, pod.key.namespace) and (address := pod.address_of(family)) is not None
    ]
    every = permutations(ends, 2)
    pairs = reachable(world, every if about is None else (pair for pair in every if str(about) in map(str, pair)))
    return {
        "pods": list(map(str, ends)),
        "pairs": [{"source": source, "target": target, "ports": ports} for (source, target), ports in pairs.items()],
    }
