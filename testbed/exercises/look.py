"""Observes a running lab for the judge."""

from collections.abc import Collection, Mapping

from agent.errors import AgentError
from agent.kernel.values import Family, IPAddress
from agent.lease import Lease
from testbed.cluster.object_key import key_of
from testbed.cluster.overlay import Overlay
from testbed.dns.names import Names
from testbed.errors import EtcdFailed
from testbed.exercises.judge import JudgedLab, JudgedLease, JudgedNode, PairSeen, ServiceSeen
from testbed.exercises.reach import DNS_PORT, ServicePortTarget, try_names, try_services
from testbed.lab.forwarding import host_of, problems_in_kernel
from testbed.lab.node import LabNode
from testbed.lab.ping import PAYLOAD, PingSender
from testbed.lab.pod_pings import ping_every_pair
from testbed.lab.pods import Pods
from testbed.lab.state import LabState
from testbed.policies.evaluate import evaluate
from testbed.policies.world import End, Protocol, World
from testbed.services.endpoints import endpoints_of
from testbed.services.services import Services

HEADERS: Mapping[Family, int] = {4: 28, 6: 48}
"""Bytes of IP and ICMP headers without options (RFC 791, RFC 792, RFC 8200)."""
ATTEMPTS = 2
"""A pair counts as reachable if one of this many requests is answered: the first may coincide with a restart."""

NO_POLICIES = World((), ())


def look(state: LabState, services: Services, names: Names, world: World = NO_POLICIES) -> JudgedLab:
    """Return the current state of everything that the judge checks, without what the policies of `world` deny."""
    try:
        held = state.registry.leases()
        leases = [_lease(one) for one in held]
    except EtcdFailed:
        held, leases = [], None
    senders = _one_pod_of_each_node(state.pods)
    size = _full_size(state)
    has_ipv6 = state.network.ipv6_network is not None
    families: tuple[Family, ...] = (4, 6) if has_ipv6 else (4,)
    small = [pair for family in families for pair in _pairs(state.pods, family, PAYLOAD)]
    full = [pair for family in families for pair in _pairs(state.pods, family, bytes(size - HEADERS[family]))]
    return JudgedLab(
        network=str(state.network.network),
        nodes=[_node(state.overlay, node, held) for node in state.nodes.values()],
        leases=leases,
        etcd=[member.name for member in state.registry.etcd.members],
        shares_network=state.registry.shares_network,
        small=[pair for pair in small if _may_pass(world, pair)],
        full=[pair for pair in full if _may_pass(world, pair)],
        full_size=size,
        nodes_are_connected=state.overlay.connects_nodes,
        has_ipv6=has_ipv6,
        services=[one for one in try_services(senders, _targets(services)) if _may_be_served(world, one, services)],
        names=[]
        if names.server is None
        else try_names(
            [one for one in senders if _may_reach(world, one.name, names.server.address, "udp", DNS_PORT)],
            names.server.address,
            names.server.zones[0],
        ),
    )


def _may_pass(world: World, pair: PairSeen) -> bool:
    target = world.pod_named(pair.destination)
    address = None if target is None else target.address_of(pair.family)
    return address is None or _may_reach(world, pair.source, address, "icmp", None)


def _may_be_served(world: World, seen: ServiceSeen, services: Services) -> bool:
    """Report whether policies let the pod reach every endpoint, of which the rules choose one at random."""
    name, _, port = seen.service.rpartition(":")
    service = services.numbered.get(key_of(name))
    if service is None:
        return True
    families: tuple[Family, ...] = (4, 6)
    return all(
        _may_reach(world, seen.source, one.address, "tcp", one.port)
        for family in families
        for number, ready in zip(service.spec.ports, endpoints_of(service, services.pods(), family)[0], strict=True)
        if number.port == int(port)
        for one in ready
    )


def _may_reach(world: World, source: str, address: IPAddress, protocol: Protocol, port: int | None) -> bool:
    """Report whether policies let a pod reach an address."""
    pod = world.pod_named(source)
    own = None if pod is None else pod.address_of(address.version)
    if not world.policies or own is None:
        return True
    return evaluate(world, End(own, pod), world.at(address), protocol, port).allowed


def _one_pod_of_each_node(pods: Pods) -> list[PingSender]:
    """Return the pods that try Services and names: each node has its own rules for them."""
    found: dict[str, PingSender] = {}
    for pod in pods:
        if pod.pause_pid is not None and not pod.leaves and not pod.manifest.spec.host_network:
            found.setdefault(str(pod.manifest.spec.node_name), PingSender(pod.name, pod.pause_pid))
    return list(found.values())


def _targets(services: Services) -> list[ServicePortTarget]:
    families: tuple[Family, ...] = (4, 6)
    return [
        ServicePortTarget(f"{service.key}:{port.port}", address, port.port)
        for service in list(services.numbered.values())
        for port in service.spec.ports
        for address in map(service.address_of, families)
        if port.protocol == "TCP" and address is not None
    ]


def _lease(lease: Lease) -> JudgedLease:
    subnet, attrs = lease.subnet, lease.attrs
    ipv6 = None if subnet.ipv6 is None else (str(subnet.ipv6), str(attrs.public_ipv6))
    return JudgedLease(str(subnet.ipv4), str(attrs.public_ip), ipv6)


def _node(overlay: Overlay, node: LabNode, leases: Collection[Lease]) -> JudgedNode:
    said = node.state()
    try:
        found = (*node.kernel.routes(4), *node.kernel.routes(6))
        routes = {(str(route.destination), route.device or "") for route in found if route.kind == "unicast"}
    except AgentError:
        routes = set()
    return JudgedNode(
        name=node.name,
        address=str(node.address),
        ready=said["ready"] if said else not node.runs_our_agent and node.why_not_ready() is None,
        forwarding=frozenset((one["subnet"], host_of(one["via"])) for one in said["forwarding"]) if said else None,
        kernel_problems=None if node.runs_our_agent else tuple(problems_in_kernel(node, leases)),
        routes=frozenset(routes),
        device=overlay.device,
        bridge=None if node.cni is not None else node.bridge,
    )


def _full_size(state: LabState) -> int:
    """Return the size of the largest packet that every pod may send, in bytes; even, for the probe's checksum."""
    return (int(state.cluster.underlay.mtu) - state.overlay.headers) // 2 * 2


def _pairs(pods: Pods, family: Family, payload: bytes) -> list[PairSeen]:
    results = ping_every_pair(pods, family, ATTEMPTS, payload, lambda pod: not pod.manifest.spec.host_network)
    return [PairSeen(one.source, one.destination, one.received > 0, family) for one in results if not one.skipped]
