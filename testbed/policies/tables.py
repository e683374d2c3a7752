"""The nftables tables with which a node enforces policies for its own pods. Pure.

    table inet      pod → pod ── map egress: client's address ──> chain egress-client ── allowed ──┐ return, else drop
                    ┌─────────────────────────────────────────────────────────────────────────────┘
                    └─ map ingress: tomcat's address ──> chain ingress-tomcat ── allowed ──> accept, else drop

A packet of a known connection matches one rule; the first of a connection is looked up in at most two maps and, for
each, in an interval set of addresses and one of addresses with ports, however many policies there are.

    table bridge    what reaches an isolated pod's port past the first table: broadcasts, other network protocols,
                    frames with a VLAN tag (a tag of VLAN 0 would be taken off by the pod's kernel)

Packets of the node itself pass neither (no hook of `output` or `input`), so probes always reach pods.
"""

from collections.abc import Iterable, Mapping

from agent.kernel.values import Family
from testbed.cluster.network_policy import Direction, NetworkPolicy, Peer, PolicyPort
from testbed.cluster.object_key import ObjectKey
from testbed.lab.ruleset import Ruleset
from testbed.policies.ranges import ALL_PORTS, LAST, Allowed, Grant, PortRange, Range, allowed, range_of, without
from testbed.policies.world import DIRECTIONS, PROTOCOLS, PolicyPod, World, pods_on

NAME = "testbed-policies"
TABLE = f"inet {NAME}"
BRIDGE_TABLE = f"bridge {NAME}"
FAMILIES: tuple[Family, ...] = (4, 6)
IP: Mapping[Family, str] = {4: "ip", 6: "ip6"}
NEIGHBOURS = "{ nd-neighbor-solicit, nd-neighbor-advert }"

SKELETON = f"""table {TABLE} {{
	map egress4 {{ type ipv4_addr : verdict; }}
	map egress6 {{ type ipv6_addr : verdict; }}
	map ingress4 {{ type ipv4_addr : verdict; }}
	map ingress6 {{ type ipv6_addr : verdict; }}
	chain forward {{
		type filter hook forward priority filter - 2; policy accept;
		ct state established,related accept
		icmpv6 type {NEIGHBOURS} accept comment "neighbours on the bridge"
		ip saddr vmap @egress4
		ip6 saddr vmap @egress6
		ip daddr vmap @ingress4
		ip6 daddr vmap @ingress6
	}}
}}
"""
BASE_RULES = {"forward": 6}
BRIDGE_SKELETON = f"""table {BRIDGE_TABLE} {{
	set senders {{ type ifname; }}
	set receivers {{ type ifname; }}
	set own4 {{ type ifname . ipv4_addr; }}
	set own6 {{ type ifname . ipv6_addr; }}
	chain receiver {{
		ether type ip oifname . ip daddr @own4 accept
		ether type ip6 oifname . ip6 daddr @own6 accept
		ether type arp accept
		icmpv6 type {NEIGHBOURS} accept
		counter drop comment "not for this pod"
	}}
	chain forward {{
		type filter hook forward priority -250; policy accept;
		iifname @senders ether type != {{ ip, ip6, arp }} counter drop comment "policies know IP only"
		oifname @receivers goto receiver
	}}
}}
"""
BRIDGE_BASE_RULES = {"receiver": 5, "forward": 2}


def chain_of(direction: Direction, pod: PolicyPod) -> str:
    """Return the name of the chain for a pod's packets of a direction."""
    return f"{direction.lower()}-{pod.key.file_name}"


def wanted(world: World, node: str) -> Ruleset:
    """Return the wanted content of a node's table of family inet."""
    chains: dict[str, tuple[str, ...]] = {}
    maps: dict[str, dict[str, str]] = {f"{one.lower()}{family}": {} for one in DIRECTIONS for family in FAMILIES}
    sets: dict[str, frozenset[str]] = {}
    declared: dict[str, str] = {}
    grants = _Grants(world)
    for pod in pods_on(world, node):
        for direction in DIRECTIONS:
            policies = world.isolating(pod, direction)
            if not policies:
                continue
            name = chain_of(direction, pod)
            rules: list[str] = []
            for family in FAMILIES:
                own = pod.address_of(family)
                if own is None:
                    continue
                found = grants.of(pod, direction, policies, family)
                maps[f"{direction.lower()}{family}"][str(own)] = f"{VERBS[direction]} {name}"
                for suffix, declaration, match, elements in _sets(found, direction, family):
                    declared[f"{name}{suffix}"] = declaration
                    sets[f"{name}{suffix}"] = elements
                    rules.append(f"{match} @{name}{suffix} {PASSES[direction]}")
            comment = f"no {direction.lower()} rule allows it"
            chains[name] = (*rules, f'counter drop comment "{comment}"')
    return Ruleset(TABLE, chains, maps, sets, declared)


VERBS: Mapping[Direction, str] = {"Egress": "jump", "Ingress": "goto"}
PASSES: Mapping[Direction, str] = {"Egress": "return", "Ingress": "accept"}
FAR_END: Mapping[Direction, str] = {"Egress": "daddr", "Ingress": "saddr"}


def _sets(found: Allowed, direction: Direction, family: Family) -> Iterable[tuple[str, str, str, frozenset[str]]]:
    """Yield suffix, declaration, lookup expression, and elements of each set that a chain needs."""
    far, address = f"{IP[family]} {FAR_END[direction]}", f"ipv{family}_addr"
    if found.whole:
        yield f"-{family}", f"type {address}; flags interval;", far, found.whole
    if found.at_ports:
        kind = f"type {address} . inet_proto . inet_service; flags interval;"
        yield f"-{family}-ports", kind, f"{far} . meta l4proto . th dport", found.at_ports


def wanted_on_bridge(world: World, node: str) -> Ruleset:
    """Return the wanted content of a node's table of family bridge."""
    sets: dict[str, set[str]] = {name: set() for name in ("senders", "receivers", "own4", "own6")}
    for pod in pods_on(world, node):
        if not pod.device:
            continue
        if world.isolating(pod, "Egress"):
            sets["senders"].add(pod.device)
        if world.isolating(pod, "Ingress"):
            sets["receivers"].add(pod.device)
            for address in pod.addresses:
                sets[f"own{address.version}"].add(f"{pod.device} . {address}")
    return Ruleset(BRIDGE_TABLE, sets={name: frozenset(elements) for name, elements in sets.items()})


class _Grants:
    """The grants of rules, computed once for all pods that they apply to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._peers: dict[tuple[ObjectKey, Direction, int, Family], tuple[Range, ...]] = {}

    def of(self, pod: PolicyPod, direction: Direction, policies: Iterable[NetworkPolicy], family: Family) -> Allowed:
        """Return what these policies allow to or from a pod; itself always."""
        own = pod.address_of(family)
        assert own is not None
        grants = [Grant(((int(own), int(own)),), None)]
        for policy in policies:
            for number in range(len(policy.rules(direction))):
                grants += self._of_rule(pod, direction, policy, number, family)
        return allowed(grants, family)

    def _of_rule(
        self, pod: PolicyPod, direction: Direction, policy: NetworkPolicy, number: int, family: Family
    ) -> Iterable[Grant]:
        rule = policy.rules(direction)[number]
        key = (policy.key, direction, number, family)
        if key not in self._peers:
            self._peers[key] = tuple(self._find_peers(policy, direction, number, family))
        peers = self._peers[key]
        if not rule.ports:
            yield Grant(peers, None)
            return
        ports = [one for port in rule.ports if (one := _port_range(port, pod if direction == "Ingress" else None))]
        if ports:
            yield Grant(peers, tuple(sorted(set(ports))))
        if direction == "Egress":
            yield from self._by_name(peers, [one for one in rule.ports if isinstance(one.port, str)], family)

    def _by_name(self, peers: tuple[Range, ...], named: Iterable[PolicyPort], family: Family) -> Iterable[Grant]:
        """Yield each receiving pod with its port number for the name."""
        for port in named:
            for pod in self._world.pods:
                address = pod.address_of(family)
                number = pod.number_of(str(port.port), PROTOCOLS[port.protocol])
                if address is None or number is None:
                    continue
                own = int(address)
                if any(first <= own <= last for first, last in peers):
                    yield Grant(((own, own),), ((PROTOCOLS[port.protocol], number, number),))

    def _find_peers(self, policy: NetworkPolicy, direction: Direction, number: int, family: Family) -> Iterable[Range]:
        peers = policy.rules(direction)[number].peers
        if not peers:
            yield 0, LAST[family]
        for peer in peers:
            yield from self._addresses(policy, peer, family)

    def _addresses(self, policy: NetworkPolicy, peer: Peer, family: Family) -> Iterable[Range]:
        block = peer.ip_block
        if block is not None:
            if block.network.version == family:
                yield from without(range_of(block.network), map(range_of, block.excluded))
            return
        for pod in self._world.selected(policy, peer):
            address = pod.address_of(family)
            if address is not None:
                yield int(address), int(address)


def _port_range(port: PolicyPort, receiver: PolicyPod | None) -> PortRange | None:
    """Return the ports as numbers; None for a name that the receiver does not have, or of another protocol."""
    protocol = PROTOCOLS[port.protocol]
    if port.port is None:
        return protocol, *ALL_PORTS
    if isinstance(port.port, str):
        number = receiver.number_of(port.port, protocol) if receiver else None
        return None if number is None else (protocol, number, number)
    return protocol, port.port, port.end_port or port.port
