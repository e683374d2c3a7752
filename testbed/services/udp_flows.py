"""Decides which UDP flows must be forgotten after a change of Services and host ports. Pure.

A flow is right if its destination would be translated the same way now. Only flows of changed keys are checked: a right
flow stays with its pod.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.kernel.values import Flow, IPAddress, IPNetwork
from testbed.services.endpoints import BoundPort, HostPort

Key = tuple[IPAddress | None, int]
"""Address and port that clients send to; without an address: any of the node's except loopback."""
Target = tuple[IPAddress, int]
"""Address and port of a pod."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The translation of one key; without targets its datagrams are refused."""

    targets: frozenset[Target]
    from_outside: frozenset[Target] | None = None
    """Targets for clients that are neither pods nor nodes, which keep their address; None: the same as
    for all others.
    """


Translations = Mapping[Key, Translation]


def of_services(bound: Iterable[BoundPort]) -> Translations:
    """Return the translations that all nodes share."""
    found: dict[Key, Translation] = {}
    for one in bound:
        if one.protocol != "udp":
            continue
        to_all = Translation(_targets(one))
        found[one.cluster_ip, one.port] = to_all
        if one.node_port is not None:
            found[None, one.node_port] = to_all
    return found


def on_node(
    node: str, common: Translations, local: Iterable[BoundPort], host_ports: Iterable[HostPort]
) -> Translations:
    """Return the translations of `node`: the shared ones, node ports served only by its own pods, and its
    host ports.
    """
    found = dict(common)
    for one in local:
        if one.protocol == "udp" and one.node_port is not None:
            found[None, one.node_port] = Translation(_targets(one), _targets(one, node))
    for port in host_ports:
        if port.protocol != "udp":
            continue
        key: Key = (port.address, port.port)
        # The rules have this order too: a node port with targets comes first.
        if port.address is not None or key not in found or not found[key].targets:
            target = frozenset([(port.to.address, port.to.port)])
            found[key] = Translation(target, target)
    return found


def _targets(bound: BoundPort, node: str | None = None) -> frozenset[Target]:
    return frozenset((to.address, to.port) for to in bound.endpoints if node in (None, to.node))


def unsettled(old: Translations, new: Translations) -> frozenset[Key]:
    """Return the keys that may have wrong flows now; not those that only got more targets."""
    return frozenset(key for key in old.keys() | new.keys() if not _goes_on(old.get(key), new.get(key)))


def _goes_on(before: Translation | None, now: Translation | None) -> bool:
    """Report whether flows that were right then are right now."""
    if before == now:
        return True
    if before is None or now is None or not before.targets:
        return False
    if before.from_outside is None or now.from_outside is None:
        return before.from_outside is now.from_outside and before.targets <= now.targets
    return before.targets <= now.targets and before.from_outside <= now.from_outside


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A node's data to decide whether a flow is right."""

    translations: Translations
    addresses: frozenset[IPAddress]
    """The node's own."""
    pod_network: IPNetwork

    def is_stale(self, flow: Flow, keys: frozenset[Key]) -> bool:
        """Report whether a flow of one of these keys would be translated differently if it began now."""
        at_address: Key = (flow.destination, flow.destination_port)
        at_node: Key = (None, flow.destination_port)
        to_node = flow.destination in self.addresses and not flow.destination.is_loopback
        if at_address not in keys and not (to_node and at_node in keys):
            return False
        goes_to = (flow.reply_source, flow.reply_source_port)
        if at_address in self.translations:
            return goes_to not in self.translations[at_address].targets
        if not to_node or at_node not in self.translations:
            return goes_to != at_address
        return not self._fits(flow, self.translations[at_node])

    def _fits(self, flow: Flow, translation: Translation) -> bool:
        goes_to = (flow.reply_source, flow.reply_source_port)
        if flow.source in self.pod_network or flow.source in self.addresses:
            return goes_to in translation.targets
        masqueraded = flow.reply_destination != flow.source
        if translation.from_outside is None:
            # Packets to a pod with the node's own network do not leave it, so they are not masqueraded.
            return (masqueraded or flow.reply_source in self.addresses) and goes_to in translation.targets
        return not masqueraded and goes_to in translation.from_outside
