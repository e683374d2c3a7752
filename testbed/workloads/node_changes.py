"""Adds, drains, cordons and deletes nodes of a running lab."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from pydantic_core import PydanticCustomError

from testbed.cluster.addresses import FIRST_NODE_OFFSET, AddressPlan, UnderlayFull, with_node
from testbed.cluster.cluster_document import AgentSpec, NodeSpec
from testbed.cluster.difference import agent_of
from testbed.cluster.free_values import free_address, free_name
from testbed.cluster.kinds import DAEMON_SET
from testbed.cluster.name_rules import MAX_NODE_NAME, check_node_name
from testbed.cluster.spec import Cluster
from testbed.cluster.underlay_plan import UnderlayPlan, plan_underlay
from testbed.cluster.wiring import Cable, Wiring
from testbed.errors import EtcdFailed, InvalidInput, TestbedError
from testbed.lab.node import LabNode
from testbed.lab.state import LabState
from testbed.lab.underlay_growth import add_machine, remove_machine
from testbed.lab.waiting import wait_for
from testbed.pods.pod import NETNS_DIRECTORY, Pod
from testbed.pods.pod_network import bind_name, unbind_name
from testbed.spelling import listed
from testbed.workloads.pod_controller import PodController
from testbed.workloads.workloads import Workloads

READY_LIMIT_S = 45.0
PEERS_LIMIT_S = 20.0
BEGINS_WITHIN_S = 3.0
"""An agent that has written nothing by then, and still runs, found its files as they should be."""
LOOK_S = 0.05


class NodeRefused(InvalidInput):
    """The request for a node is impossible: all reasons, one line each."""


class NodeFailed(TestbedError):
    """The change was started and not completed; the message has its progress."""


class NodeChanges:
    """Adds, drains and deletes nodes; the caller ensures that one change runs at a time."""

    def __init__(self, state: LabState, workloads: Workloads, pod_controller: PodController) -> None:
        self._state = state
        self._workloads = workloads
        self._pod_controller = pod_controller

    def check(self, name: str, address: str | None, switch: str) -> Iterator[str]:
        """Find all problems of a node that is to be added."""
        state = self._state
        try:
            check_node_name(name)
        except PydanticCustomError as error:
            yield f"node add: {error.message()}"
        other = free_name(name, {*state.underlay.machines, *state.pods.names()}, between="", longest=MAX_NODE_NAME)
        if name in state.underlay.machines:
            yield f"node add: a machine has this name (got {name}; want another, such as {other})"
        if state.pods.named(name) is not None:
            yield f"node add: a pod has this name (got {name}; want another, such as {other})"
        switches = state.cluster.wiring.switches
        if switch not in switches:
            yield f"--switch: no such switch (got {switch}; want {listed(switches, switch)})"
            return
        if address is None:
            return
        segment = state.cluster.wiring.segment_of_switch[switch]
        subnet = state.cluster.addresses.subnets[segment]
        try:
            wanted = IPv4Address(address)
        except AddressValueError:
            yield f"--ip: not an IPv4 address (got {address}; want one in {subnet})"
            return
        if wanted not in subnet or wanted in (subnet.network_address, subnet.broadcast_address):
            yield f"--ip: not a host's address on {switch} (got {wanted}; want one inside {subnet})"
        machines = list(state.underlay.plan.machines.values())
        taken = {port.address.ip for machine in machines for port in machine.ports}
        for machine in machines:
            if any(port.address.ip == wanted for port in machine.ports):
                free = free_address(subnet, taken, FIRST_NODE_OFFSET)
                yield f"--ip: the address of {machine.name} (got {wanted}; want another, such as {free})"

    def add(
        self,
        name: str,
        address: str | None,
        switch: str | None,
        subnet: IPv4Network | None,
        labels: Mapping[str, str],
    ) -> LabNode:
        """Add a machine with an agent, and wait until it is ready and every node knows its subnet.

        `switch` None: the first one. `subnet` is the one that its agent requests; it gets another if that is taken.

        Raises NodeRefused, EtcdFailed and OSError with nothing changed, and NodeFailed.
        """
        state, cluster = self._state, self._state.cluster
        switch = switch or cluster.wiring.switches[0]
        problems = list(self.check(name, address, switch))
        if problems:
            raise NodeRefused("\n".join(problems))
        wiring = cluster.wiring.with_node(name, switch)
        now = replace(cluster.addresses, nodes={node.name: node.address for node in state.nodes.values()})
        try:
            given = IPv4Address(address) if address else None
            addresses = with_node(now, name, given, wiring.segment_of_switch[switch])
        except UnderlayFull as full:
            raise NodeRefused(f"node add: no address left for {full} (got {cluster.underlay.cidr})") from full
        spec = NodeSpec.model_construct(ip=addresses.nodes[name], subnet=subnet, labels=dict(labels))
        with ExitStack() as undo:
            undo.callback(self._forget_machine, name, replace(cluster, addresses=now))
            machine = add_machine(state.underlay, self._plan(wiring, addresses), name, Cable(name, switch))
            bind_name(NETNS_DIRECTORY, name, machine.pid)
            nodes = {**cluster.nodes, name: spec}
            state.change_cluster(replace(cluster, nodes=nodes, addresses=addresses, wiring=wiring))
            # No pod before its agent is ready: until then it has no subnet.
            self._workloads.close(name)
            node = state.make_node(name)
            undo.pop_all()
        state.events.note("Normal", f"node/{name}", "Added", f"{node.address} on {switch}")
        try:
            node.agent.start()
        except OSError as failure:
            what = f"its agent cannot be started: {failure}"
            raise NodeFailed(f"{name}: {what} (remove it: node delete {name})") from failure
        why = wait_for(lambda: node.why_not_ready() or "", READY_LIMIT_S)
        self._workloads.closed.discard(name)
        state.follow_node(node)
        if why:
            raise NodeFailed(f"{name}: not ready after {READY_LIMIT_S:g} s: {why} (remove it: node delete {name})")
        state.pods.changed.notify()
        self._await_peers()
        return node

    def agents(self) -> dict[str, str]:
        """Return each node's agent as JSON."""
        cluster = self._state.cluster
        return {name: agent_of(cluster, name).model_dump_json() for name in cluster.nodes}

    def change_agent(self, name: str, agent: AgentSpec, limit_s: float) -> None:
        """End the node's agent, start this one, and wait until it is ready and all nodes forward. Raises NodeFailed."""
        state = self._state
        node, cluster = state.nodes[name], state.cluster
        spec = cluster.nodes[name].model_copy(update={"agent": agent})
        state.change_cluster(replace(cluster, nodes={**cluster.nodes, name: spec}))
        program = "ours" if agent.command is None else agent.command[0]
        state.events.note("Normal", f"node/{name}", "AgentChanged", f"another agent from now on: {program}")
        changed_at_s = time.time()
        node.change_agent(agent)

        def missing() -> str:
            # What the former agent left makes another one look ready before it has begun.
            begins = not node.has_written_since(changed_at_s) and node.agent.running_for_s < BEGINS_WITHIN_S
            return node.why_not_ready() or ("its new agent has only just started" if begins else "")

        why = wait_for(missing, limit_s)
        if why:
            raise NodeFailed(f"{name}: not ready after {limit_s:g} s with its new agent: {why}")
        self._await_peers()

    def drain(self, name: str, limit_s: float) -> list[str]:
        """Accept no new pods, and wait until pods of ReplicaSets have moved; return the names of those that stay.

        Pods of DaemonSets stay too, as in Kubernetes, and are not named. Raises NodeFailed if some have not moved in
        time.
        """
        if name not in self._workloads.leaving:
            self._workloads.leaving.add(name)
            self._state.events.note(
                "Normal", f"node/{name}", "Drained", "accepts no new pods; those of ReplicaSets move to other nodes"
            )
        self._state.pods.changed.notify()
        deadline = time.monotonic() + limit_s
        while left := [pod.name for pod in self._movable(name)]:
            if time.monotonic() > deadline:
                unplaced = [one.why for one in self._workloads.unplaced.values()]
                why = "; ".join(unplaced) or "their successors are not ready"
                raise NodeFailed(f"{name}: pods still running after {limit_s:g} s: {', '.join(left)} ({why})")
            time.sleep(LOOK_S)
        stay = [(pod, self._workloads.owner_of(pod.key)) for pod in self._state.pods.on(name)]
        return [pod.name for pod, owner in stay if owner is None or owner.kind != DAEMON_SET.name]

    def cordon(self, name: str) -> None:
        """Accept no new pods; existing ones stay."""
        self._workloads.cordoned.add(name)
        self._state.events.note("Normal", f"node/{name}", "Cordoned", "accepts no new pods; existing ones stay")

    def uncordon(self, name: str) -> None:
        """Accept new pods again."""
        self._workloads.leaving.discard(name)
        self._workloads.cordoned.discard(name)
        self._state.events.note("Normal", f"node/{name}", "Uncordoned", "accepts new pods again")
        self._state.pods.changed.notify()

    def delete(self, name: str, limit_s: float) -> list[str]:
        """Drain the node, end its remaining pods, and remove the machine; return the pods deleted with it.

        Raises NodeRefused, and NodeFailed if the machine is gone and some node has not noticed.
        """
        state = self._state
        if len(state.nodes) == 1:
            raise NodeRefused(f"node delete: the last node (got {name}; want testbed node add before, or testbed down)")
        try:
            self.drain(name, limit_s)
        except NodeFailed as failure:
            # The node is deleted anyway; pods that could not move in time are recreated elsewhere.
            state.events.note("Warning", f"node/{name}", "DrainIncomplete", str(failure))
        self._workloads.close(name)
        lost = self._end_bare_pods(name)
        for pod in state.pods.on(name):
            self._workloads.end(pod)
        node = state.nodes[name]
        node.leave()
        state.notices.forget(node.run)
        self._delete_leases(node)
        wiring = state.cluster.wiring.without_node(name)
        addresses = replace(
            state.cluster.addresses, nodes={one.name: one.address for one in state.nodes.values() if one is not node}
        )
        specs = {other: spec for other, spec in state.cluster.nodes.items() if other != name}
        state.nodes.forget(node)
        state.pods.forget_node(node)
        self._forget_machine(name, replace(state.cluster, nodes=specs, addresses=addresses, wiring=wiring))
        self._workloads.leaving.discard(name)
        self._workloads.cordoned.discard(name)
        state.events.note("Normal", f"node/{name}", "Deleted", "the machine is gone, and its lease")
        state.pods.changed.notify()
        self._await_peers()
        return lost

    def _forget_machine(self, name: str, rest: Cluster) -> None:
        """Remove the machine, if there is one, and continue with the rest of the cluster."""
        state = self._state
        state.change_cluster(rest)
        unbind_name(NETNS_DIRECTORY, name)
        if name in state.underlay.machines:
            remove_machine(state.underlay, self._plan(rest.wiring, rest.addresses), name)
        self._workloads.closed.discard(name)

    def _plan(self, wiring: Wiring, addresses: AddressPlan) -> UnderlayPlan:
        is_ovs = self._state.underlay.plan.open_vswitch
        return plan_underlay(wiring, addresses, self._state.cluster.underlay.mtu, open_vswitch=is_ovs)

    def _end_bare_pods(self, name: str) -> list[str]:
        """Delete pods without an owner together with their node; they are not recreated."""
        bare = [key for key, pod in list(self._workloads.bare.items()) if pod.spec.node_name == name]
        for key in bare:
            self._workloads.report_lost(key, name)
            with suppress(KeyError):
                # It was deleted meanwhile.
                self._pod_controller.remove(key)
        return [str(key) for key in bare]

    def _delete_leases(self, node: LabNode) -> None:
        """Delete its lease, so that peers forget the node now, and not at the lease's expiry."""
        try:
            for lease in self._state.registry.leases():
                if lease.attrs.public_ip == node.address:
                    self._state.registry.etcd.delete(self._state.registry.key_of(lease.subnet))
        except EtcdFailed as failure:
            self._state.events.note(
                "Warning", f"node/{node.name}", "LeaseLeft", f"etcd: {failure}; the lease will expire"
            )

    def _await_peers(self) -> None:
        why = wait_for(lambda: "; ".join(self._state.missing_forwarding()), PEERS_LIMIT_S)
        if why:
            raise NodeFailed(f"after {PEERS_LIMIT_S:g} s: {why}")

    def _movable(self, name: str) -> list[Pod]:
        """Return pods of ReplicaSets whose templates do not name this node."""
        sets = [one for one in self._workloads.sets.values() if one.wanted.spec.template.spec.node_name is None]
        owners = {one.wanted.owner for one in sets}
        return [pod for pod in self._state.pods.on(name) if self._workloads.owner_of(pod.key) in owners]
