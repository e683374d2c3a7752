"""Nodes that come to a running lab, are drained, and leave it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from testbed.cluster.addresses import FIRST_NODE_OFFSET, AddressPlan, UnderlayFull, with_node
from testbed.cluster.cluster_document import NodeSpec
from testbed.cluster.free_values import free_address, free_name
from testbed.cluster.name_rules import MAX_NODE_NAME, check_node_name
from testbed.cluster.underlay_plan import UnderlayPlan, plan_underlay
from testbed.cluster.wiring import Cable, Wiring
from testbed.errors import EtcdFailed
from testbed.lab.node import LabNode
from testbed.lab.underlay_growth import add_machine, remove_machine
from testbed.pods.pod import NETNS_DIRECTORY, Pod
from testbed.pods.pod_network import bind_name, unbind_name

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab

READY_LIMIT_S = 45.0
PEERS_LIMIT_S = 20.0
LOOK_S = 0.05
SUBNETS = "/coreos.com/network/subnets"


class NodeRefused(Exception):
    """What is asked of a node cannot be: all reasons, a line each."""


class NodeFailed(Exception):
    """What was asked was begun and did not come to its end; says how far it came."""


def check_new_node(lab: "Lab", name: str, address: str | None, switch: str) -> Iterator[str]:
    """Everything that is wrong with a node that somebody wants to add."""
    try:
        check_node_name(name)
    except PydanticCustomError as error:
        yield f"node add: {error.message()}"
    other = free_name(name, {*lab.underlay.machines, *lab.pods}, between="", longest=MAX_NODE_NAME)
    if name in lab.underlay.machines:
        yield f"node add: a machine has this name (got {name}; want another, such as {other})"
    if name in lab.pods:
        yield f"node add: a pod has this name (got {name}; want another, such as {other})"
    switches = lab.cluster.wiring.switches
    if switch not in switches:
        yield f"--switch: no such switch (got {switch}; want {', '.join(switches)})"
        return
    if address is None:
        return
    segment = lab.cluster.wiring.segment_of_switch[switch]
    subnet = lab.cluster.addresses.subnets[segment]
    try:
        wanted = IPv4Address(address)
    except AddressValueError:
        yield f"--ip: not an IPv4 address (got {address}; want one in {subnet})"
        return
    if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
        yield f"--ip: not a host's address on {switch} (got {wanted}; want one inside {subnet})"
    machines = list(lab.underlay.plan.machines.values())
    taken = {port.address.ip for machine in machines for port in machine.ports}
    for machine in machines:
        if any(port.address.ip == wanted for port in machine.ports):
            free = free_address(subnet, taken, FIRST_NODE_OFFSET)
            yield f"--ip: the address of {machine.name} (got {wanted}; want another, such as {free})"


def add_node(lab: "Lab", name: str, address: str | None, switch: str, subnet: IPv4Network | None = None) -> LabNode:
    """Add a machine with an agent, and wait until it is ready and every node knows its subnet.

    `subnet` is what its agent asks for; it takes another where somebody has that.

    Raises NodeRefused with nothing changed, and NodeFailed.
    """
    problems = list(check_new_node(lab, name, address, switch))
    if problems:
        raise NodeRefused("\n".join(problems))
    wiring = lab.cluster.wiring.with_node(name, switch)
    now = replace(lab.cluster.addresses, nodes={node.name: node.address for node in lab.nodes.values()})
    try:
        given = IPv4Address(address) if address else None
        addresses = with_node(now, name, given, wiring.segment_of_switch[switch])
    except UnderlayFull as full:
        raise NodeRefused(f"node add: no address left for {full} (got {lab.cluster.underlay.cidr})") from full
    cable = Cable(name, switch)
    plan = _plan(lab, wiring, addresses)
    machine = add_machine(lab.underlay, plan, name, cable)
    bind_name(NETNS_DIRECTORY, name, machine.pid)
    spec = NodeSpec.model_construct(ip=addresses.nodes[name], subnet=subnet)
    lab.cluster = replace(lab.cluster, nodes={**lab.cluster.nodes, name: spec}, addresses=addresses, wiring=wiring)
    node = lab.make_node(name)
    lab.event("Normal", f"node/{name}", "Added", f"{node.address} on {switch}")
    node.agent.start()
    why = lab.wait_for(lambda: node.why_not_ready() or "", READY_LIMIT_S)
    if why:
        raise NodeFailed(f"{name}: not ready after {READY_LIMIT_S:g} s: {why} (take it away: node delete {name})")
    lab.follow_node(node)
    lab.pods_changed.notify()
    _await_peers(lab)
    return node


def drain_node(lab: "Lab", name: str, limit_s: float) -> list[str]:
    """Let no new pods come, and wait until pods of Deployments have gone; returns the names of those that stay.

    Raises NodeFailed when some have not gone in time.
    """
    if name not in lab.workloads.leaving:
        lab.workloads.leaving.add(name)
        lab.event("Normal", f"node/{name}", "Drained", "takes no new pods; those of Deployments go elsewhere")
    lab.pods_changed.notify()
    deadline = time.monotonic() + limit_s
    while left := [pod.name for pod in _movable(lab, name)]:
        if time.monotonic() > deadline:
            why = "; ".join(lab.workloads.why_not_placed.values()) or "their successors are not ready"
            raise NodeFailed(f"{name}: pods still there after {limit_s:g} s: {', '.join(left)} ({why})")
        time.sleep(LOOK_S)
    return [pod.name for pod in _pods_on(lab, name)]


def undrain_node(lab: "Lab", name: str) -> None:
    """Let new pods come again."""
    lab.workloads.leaving.discard(name)
    lab.event("Normal", f"node/{name}", "Uncordoned", "takes new pods again")
    lab.pods_changed.notify()


def delete_node(lab: "Lab", name: str, limit_s: float) -> list[str]:
    """Drain the node, end what stays on it, and take the machine away; returns the pods that went with it.

    Raises NodeRefused, and NodeFailed when the machine is gone and some node has not heard of it.
    """
    if len(lab.nodes) == 1:
        raise NodeRefused(f"node delete: the last node (got {name}; want testbed node add before, or testbed down)")
    try:
        drain_node(lab, name, limit_s)
    except NodeFailed as failure:
        # Whoever deletes a node wants it gone; what could not move in time is made anew elsewhere.
        lab.event("Warning", f"node/{name}", "DrainIncomplete", str(failure))
    lost = _end_bare_pods(lab, name)
    for pod in _pods_on(lab, name):
        lab.workloads.end(pod)
    node = lab.nodes[name]
    node.leave()
    _delete_leases(lab, node)
    wiring = lab.cluster.wiring.without_node(name)
    addresses = replace(
        lab.cluster.addresses, nodes={one.name: one.address for one in lab.nodes.values() if one is not node}
    )
    specs = {other: spec for other, spec in lab.cluster.nodes.items() if other != name}
    lab.nodes = {other: one for other, one in lab.nodes.items() if one is not node}
    lab.cluster = replace(lab.cluster, nodes=specs, addresses=addresses, wiring=wiring)
    unbind_name(NETNS_DIRECTORY, name)
    remove_machine(lab.underlay, _plan(lab, wiring, addresses), name)
    lab.workloads.leaving.discard(name)
    lab.event("Normal", f"node/{name}", "Deleted", "the machine is gone, and its lease")
    lab.pods_changed.notify()
    _await_peers(lab)
    return lost


def _plan(lab: "Lab", wiring: Wiring, addresses: AddressPlan) -> UnderlayPlan:
    is_ovs = lab.underlay.plan.open_vswitch
    return plan_underlay(wiring, addresses, lab.cluster.underlay.mtu, open_vswitch=is_ovs)


def _end_bare_pods(lab: "Lab", name: str) -> list[str]:
    """Pods of their own go with their node; nobody makes them again."""
    bare = [pod for pod in _pods_on(lab, name) if lab.workloads.owner_of(pod.name) is None]
    for pod in bare:
        lab.event(
            "Warning", f"pod/{pod.name}", "NodeDeleted", f"{name} is deleted, and the pod belongs to no Deployment"
        )
        lab.keepers["Pod"].remove(pod.name)
    return [pod.name for pod in bare]


def _delete_leases(lab: "Lab", node: LabNode) -> None:
    """Without its lease peers forget the node now, and not when the lease would have run out."""
    try:
        for lease in lab.leases():
            if lease.attrs.public_ip == node.address:
                lab.etcd.delete(f"{SUBNETS}/{lease.subnet.key}")
    except EtcdFailed as failure:
        lab.event("Warning", f"node/{node.name}", "LeaseLeft", f"etcd: {failure}; the lease ends by itself")


def _await_peers(lab: "Lab") -> None:
    why = lab.wait_for(lambda: "; ".join(lab.missing_forwarding()), PEERS_LIMIT_S)
    if why:
        raise NodeFailed(f"after {PEERS_LIMIT_S:g} s: {why}")


def _pods_on(lab: "Lab", name: str) -> list[Pod]:
    return [pod for pod in lab.pods.values() if pod.manifest.spec.node_name == name]


def _movable(lab: "Lab", name: str) -> list[Pod]:
    """Pods of Deployments whose templates do not name this node."""
    found = []
    for pod in _pods_on(lab, name):
        deployment = lab.workloads.deployments.get(lab.workloads.owner_of(pod.name) or "")
        if deployment is not None and deployment.spec.template.spec.node_name is None:
            found.append(pod)
    return found
