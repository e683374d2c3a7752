"""Looks at a running lab for the judge."""

from ipaddress import IPv4Address

from agent.errors import AgentError
from testbed.exercises.judge import LeaseSeen, NodeSeen, PairSeen, Seen
from testbed.lab.etcd import EtcdFailed
from testbed.lab.lab import Lab
from testbed.lab.node import LabNode
from testbed.lab.probe import PAYLOAD, Sender, Target, all_pairs, ping_pairs

HEADERS = 28
"""Bytes of IPv4 and ICMP headers without options (RFC 791, RFC 792)."""
ATTEMPTS = 2
"""A pair counts as reachable when one of so many requests is answered: the first may come amid a restart."""


def look(lab: Lab) -> Seen:
    """Everything that the judge wants to know, as it is now."""
    try:
        leases = [LeaseSeen(str(one.subnet.ipv4), str(one.attrs.public_ip)) for one in lab.leases()]
    except EtcdFailed:
        leases = None
    size = _full_size(lab)
    return Seen(
        network=str(lab.cluster.network["Network"]),
        nodes=[_node(lab, node) for node in list(lab.nodes.values())],
        leases=leases,
        small=_pairs(lab, PAYLOAD),
        full=_pairs(lab, bytes(size - HEADERS)),
        full_size=size,
        nodes_are_connected=lab.overlay.connects_nodes,
    )


def _node(lab: Lab, node: LabNode) -> NodeSeen:
    state = node.state()
    try:
        routes = {
            (str(route.destination), route.device or "") for route in node.kernel.routes() if route.kind == "unicast"
        }
    except AgentError:
        routes = set()
    return NodeSeen(
        name=node.name,
        address=str(node.address),
        ready=state["ready"] if state else not node.runs_our_agent and node.why_not_ready() is None,
        forwarding=frozenset((one["subnet"], one["via"].partition(":")[0]) for one in state["forwarding"])
        if state
        else None,
        routes=frozenset(routes),
        device=lab.overlay.device,
        bridge=node.bridge,
    )


def _full_size(lab: Lab) -> int:
    """The largest packet that every pod may send, in bytes; even, as the probe's checksum wants it."""
    return (int(lab.cluster.underlay.mtu) - lab.overlay.headers) // 2 * 2


def _pairs(lab: Lab, payload: bytes) -> list[PairSeen]:
    pods = [pod for pod in list(lab.pods.values()) if pod.pause_pid is not None and not pod.manifest.spec.host_network]
    senders = [Sender(pod.name, pod.pause_pid or 0) for pod in pods]
    targets = [Target(pod.name, IPv4Address(address)) for pod in pods if (address := pod.status().address)]
    pairs = all_pairs(senders, targets)
    results = ping_pairs(pairs, ATTEMPTS, payload=payload) if pairs else []
    return [PairSeen(one.source, one.destination, one.received > 0) for one in results]
