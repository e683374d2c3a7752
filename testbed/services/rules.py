"""The content of one node's table for Services. Pure.

    to 10.96.3.7:80 ── map cluster-ips ──> chain service-web-tcp-80 ── one endpoint at random ──> dnat to 10.0.90.2:8080

Maps are looked up once per connection, however many Services there are (kube-proxy's nftables mode does the same).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.kernel.values import Family, IPNetwork
from testbed.lab.ruleset import Ruleset
from testbed.services.endpoints import BoundPort, Endpoint, HostPort
from testbed.services.udp_flows import Translations, of_services

TABLE = "testbed-services"
MEMORY_SIZE = 65535
"""Limit of clients that an endpoint with affinity remembers."""
MASQUERADE = 0x4000
"""kube-proxy's mark; the agent's own rules skip packets with it (agent/kernel/firewall.py)."""
MAPS_BY_ADDRESS = ("cluster-ips", "marked-cluster-ips", "refused-cluster-ips", "host-ports-at")
MAPS_BY_PORT = ("node-ports", "refused-node-ports")
MAPS = (*MAPS_BY_ADDRESS, *MAPS_BY_PORT)
REMEMBER_MASQUERADE = f"meta mark set meta mark or {MASQUERADE:#x}"
WORDS: Mapping[Family, str] = {4: "ip", 6: "ip6"}
"""nft's names of a family, as a table's and as a header's."""
LOOPBACK: Mapping[Family, str] = {4: "127.0.0.0/8", 6: "::1"}


def table_of(family: Family) -> str:
    """Return family and name of the table, as nft expects them."""
    return f"{WORDS[family]} {TABLE}"


def skeleton(pod_network: IPNetwork) -> str:
    """Return a script that makes the table with its maps, sets and base chains, without any Service.

    - dnat: in `prerouting` for what comes from elsewhere, in `output` for the node's own processes.
    - A client that is not a pod is masqueraded on the way to a pod (mark 0x4000): the overlay carries only
      packets between addresses of pods, and answers must come back here to be translated.
    - `filter-*`: a Service without endpoints is refused at once, instead of timing out.
    - A packet that conntrack calls invalid must not be forwarded: it would reach the client with a pod's address.
    """
    family = pod_network.version
    ip = WORDS[family]
    to_node = f"fib daddr type local {ip} daddr != {LOOPBACK[family]}"
    nat = [
        f"{ip} saddr != {pod_network} {ip} daddr . meta l4proto . th dport vmap @marked-cluster-ips",
        f"{ip} daddr . meta l4proto . th dport vmap @cluster-ips",
        f"{ip} daddr . meta l4proto . th dport vmap @host-ports-at",
        f"{to_node} meta l4proto . th dport vmap @node-ports",
    ]
    refuse = [
        f"{ip} daddr . meta l4proto . th dport vmap @refused-cluster-ips",
        f"{to_node} meta l4proto . th dport vmap @refused-node-ports",
    ]
    # The hook "forward" comes after routing, so cluster IPs without endpoints pass it by the default route.
    chains = {
        "refuse": ("", ["meta l4proto tcp reject with tcp reset", "reject"]),
        "ignore": ("", ["drop"]),
        "prerouting": ("type nat hook prerouting priority dstnat; policy accept;", nat),
        "output": ("type nat hook output priority -100; policy accept;", nat),
        "filter-forward": (
            "type filter hook forward priority filter - 1; policy accept;",
            ["ct state invalid drop", refuse[0]],
        ),
        "filter-input": ("type filter hook input priority filter - 1; policy accept;", refuse),
        "filter-output": ("type filter hook output priority filter - 1; policy accept;", refuse),
        "postrouting": (
            "type nat hook postrouting priority srcnat - 1; policy accept;",
            [
                f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
                # The mark must not stay on the carrying packet: it would be masqueraded once more.
                f"meta mark and {MASQUERADE:#x} == {MASQUERADE:#x} meta mark set meta mark xor {MASQUERADE:#x} "
                "masquerade fully-random",
            ],
        ),
    }
    address = f"ipv{family}_addr"
    where, at = f"type {address} . inet_proto . inet_service : verdict;", "type inet_proto . inet_service : verdict;"
    maps = {
        **dict.fromkeys(MAPS_BY_ADDRESS, where),
        **dict.fromkeys(MAPS_BY_PORT, at),
    }
    lines = [f"table {table_of(family)} {{"]
    lines += [f"\tmap {name} {{ {kind} }}" for name, kind in maps.items()]
    lines.append(f"\tset hairpin {{ type {address} . {address}; }}")
    for name, (hook, rules) in chains.items():
        lines += [f"\tchain {name} {{", *([f"\t\t{hook}"] if hook else []), *(f"\t\t{rule}" for rule in rules), "\t}"]
    return "\n".join([*lines, "}"]) + "\n"


@dataclass(frozen=True, slots=True)
class Everywhere:
    """The common part of all nodes' tables: built once for all, because a thousand Services take a while."""

    ruleset: Ruleset
    local: tuple[BoundPort, ...]
    """Services whose node ports each node serves only with its own pods."""
    translations: Translations
    """UDP's translations."""


def everywhere(bound: Iterable[BoundPort], family: Family = 4) -> Everywhere:
    """Return the part of every node's table that depends on Services and their endpoints."""
    bound = tuple(bound)
    made = _Table(Ruleset(table_of(family), maps={name: {} for name in MAPS}), family)
    for one in bound:
        made.add_service(one)
    local = tuple(one for one in bound if one.local_only and one.endpoints and one.node_port is not None)
    return Everywhere(made.ruleset, local, of_services(bound))


def wanted(node: str, common: Everywhere, ports: Iterable[HostPort], pod_network: IPNetwork) -> Ruleset:
    """Return the part of `node`'s table that depends on Services and pods."""
    made = _Table(common.ruleset, pod_network.version)
    for one in common.local:
        made.add_local(one, node, pod_network)
    for host_port in ports:
        made.add_host_port(host_port)
    return made.ruleset


class _Table:
    """A copy of a ruleset, to which more is added."""

    def __init__(self, base: Ruleset, family: Family) -> None:
        self.table = base.table
        self.chains = dict(base.chains)
        self.maps = {name: dict(elements) for name, elements in base.maps.items()}
        self.hairpin = set(base.sets.get("hairpin", ()))
        self.declared = dict(base.declared)
        self.ip = WORDS[family]
        self._client = f"type ipv{family}_addr; size {MEMORY_SIZE}; flags dynamic,timeout"

    @property
    def ruleset(self) -> Ruleset:
        return Ruleset(self.table, self.chains, self.maps, {"hairpin": frozenset(self.hairpin)}, self.declared)

    def add_service(self, bound: BoundPort) -> None:
        addresses = [bound.cluster_ip, *([bound.external] if bound.external is not None else [])]
        at_addresses = [f"{address} . {bound.protocol} . {bound.port}" for address in addresses]
        at_node = f"{bound.protocol} . {bound.node_port}"
        if not bound.endpoints:
            self.maps["refused-cluster-ips"] |= dict.fromkeys(at_addresses, "goto refuse")
            if bound.node_port is not None:
                self.maps["refused-node-ports"][at_node] = "goto refuse"
            return
        chain = f"service-{bound.key}"
        self.chains[chain] = self._spread(bound, bound.endpoints)
        self.chains[f"marked-{bound.key}"] = (REMEMBER_MASQUERADE, f"goto {chain}")
        self.maps["cluster-ips"] |= dict.fromkeys(at_addresses, f"goto {chain}")
        self.maps["marked-cluster-ips"] |= dict.fromkeys(at_addresses, f"goto marked-{bound.key}")
        if bound.node_port is not None and not bound.local_only:
            self.maps["node-ports"][at_node] = f"goto marked-{bound.key}"

    def add_local(self, bound: BoundPort, node: str, pod_network: IPNetwork) -> None:
        at_node = f"{bound.protocol} . {bound.node_port}"
        here = [endpoint for endpoint in bound.endpoints if endpoint.node == node]
        inside = (
            f"{self.ip} saddr {pod_network} goto service-{bound.key}",
            f"fib saddr type local goto marked-{bound.key}",
        )
        self.chains[f"local-{bound.key}"] = (*inside, *self._spread(bound, here))
        self.maps["node-ports"][at_node] = f"goto local-{bound.key}"
        if not here:
            self.maps["refused-node-ports"][at_node] = "goto ignore"

    def _spread(self, bound: BoundPort, endpoints: Sequence[Endpoint]) -> tuple[str, ...]:
        for endpoint in endpoints:
            self.hairpin.add(f"{endpoint.address} . {endpoint.address}")
        if not endpoints:
            return ()
        if bound.affinity_s is None:
            return (_random(bound.protocol, endpoints),)
        known, steps = [], []
        for number, endpoint in enumerate(endpoints):
            name = f"{bound.key}-{endpoint.address}-{endpoint.port}".replace(":", "_")
            clients = f"clients-{bound.affinity_s}-{name}"
            self.declared[clients] = f"{self._client}; timeout {bound.affinity_s}s;"
            self.chains[f"endpoint-{name}"] = (
                f"update @{clients} {{ {self.ip} saddr }}",
                f"meta l4proto {bound.protocol} dnat to {at(endpoint)}",
            )
            known.append(f"{self.ip} saddr @{clients} goto endpoint-{name}")
            steps.append(f"{number} : goto endpoint-{name}")
        return (*known, f"numgen random mod {len(endpoints)} vmap {{ {', '.join(steps)} }}")

    def add_host_port(self, host_port: HostPort) -> None:
        to = host_port.to
        chain = f"host-port-{host_port.protocol}-{host_port.address or 'any'}-{host_port.port}"
        self.chains[chain] = (_random(host_port.protocol, [to]),)
        self.hairpin.add(f"{to.address} . {to.address}")
        if host_port.address is None:
            self.maps["node-ports"].setdefault(f"{host_port.protocol} . {host_port.port}", f"goto {chain}")
        else:
            key = f"{host_port.address} . {host_port.protocol} . {host_port.port}"
            self.maps["host-ports-at"][key] = f"goto {chain}"


def at(endpoint: Endpoint) -> str:
    """Format address and port for nft and for people: 10.0.90.2:8080, [fd00:a::2]:8080."""
    address = endpoint.address
    return f"{address}:{endpoint.port}" if address.version == 4 else f"[{address}]:{endpoint.port}"


def _random(protocol: str, endpoints: Sequence[Endpoint]) -> str:
    if len(endpoints) == 1:
        return f"meta l4proto {protocol} dnat to {at(endpoints[0])}"
    steps = ", ".join(f"{number} : {one.address} . {one.port}" for number, one in enumerate(endpoints))
    ip = WORDS[endpoints[0].address.version]
    return f"meta l4proto {protocol} dnat {ip} to numgen random mod {len(endpoints)} map {{ {steps} }}"
