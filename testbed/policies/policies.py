"""The desired NetworkPolicies of a running lab; keeps every node's tables in line with pods and namespaces."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from agent.kernel.values import IPAddress
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import ObjectKey
from testbed.errors import NoSubnetYet
from testbed.lab.clock import now
from testbed.lab.events import Events
from testbed.lab.kept_table import KeptTable, RulesWatch, TableRefused
from testbed.lab.namespaces import Namespaces
from testbed.lab.node import LabNode
from testbed.lab.node_rules import NodeRules
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod import Pod
from testbed.policies import tables
from testbed.policies.world import PROTOCOLS, NamedPort, PolicyPod, World, cluster_dns

CHECK_EVERY_S = 1.0
WHY_FIRST = "NetworkPolicies isolate pods of this node"
WHY_LATER = "NetworkPolicies, pods or namespaces changed"
WHY_REPAIR = "another program changed the rules of NetworkPolicies"


class Policies:
    """All NetworkPolicies of a lab."""

    def __init__(self, nodes: Nodes, pods: Pods, namespaces: Namespaces, events: Events, *, has_dns: bool) -> None:
        self._nodes = nodes
        self._pods = pods
        self._namespaces = namespaces
        self._has_dns = has_dns
        self.deciding = threading.RLock()
        """Held while `applied` is read and changed."""
        self.applied: Mapping[ObjectKey, NetworkPolicy] = {}
        """Replaced as a whole on every change."""
        self.created_at: dict[ObjectKey, str] = {}
        """When each was first applied."""
        self._revision = 0
        """Counts changes of `applied`."""
        self._enforced = 0
        """The revision that all nodes have."""
        self._nodes_tables: Mapping[str, NodeTables] = {}
        self._enforcing = threading.Lock()
        self._rules = NodeRules(nodes, events, WHY_REPAIR, restored="PoliciesRestored", failed="PoliciesNotEnforced")

    def want(self, policies: Sequence[NetworkPolicy]) -> None:
        """Set the desired policies; nodes enforce them from `start` on."""
        self.applied = {policy.key: policy for policy in policies}
        self.created_at = dict.fromkeys(self.applied, now())
        self._revision += 1

    def start(self) -> None:
        """Enforce policies on every node from now on, before any pod there is linked to it."""
        self._pods.before_link = self.admit
        self._pods.changed.subscribe("policies", self.enforce)
        self._rules.start(CHECK_EVERY_S, lambda: self._nodes_tables.items(), self.enforce)

    def put(self, policy: NetworkPolicy) -> None:
        """Set this policy, and enforce it soon."""
        with self.deciding:
            self.applied = {**self.applied, policy.key: policy}
            self.created_at.setdefault(policy.key, now())
            self._revision += 1
        self._pods.changed.notify()

    def remove(self, key: ObjectKey) -> None:
        """Remove it, and update nodes soon. Raises KeyError."""
        with self.deciding:
            del self.created_at[key]
            self.applied = {other: policy for other, policy in self.applied.items() if other != key}
            self._revision += 1
        self._pods.changed.notify()

    def world(self, policies: Iterable[NetworkPolicy] | None = None) -> World:
        """Return everything that decides which packets pass now; with other `policies`, which would."""
        # A terminating pod may have its successor's address: the last one counts.
        pods = sorted(self._pods, key=lambda pod: not pod.leaves)
        found = [one for pod in pods if (one := policy_pod(pod)) is not None]
        return World(
            tuple(self.applied.values() if policies is None else policies),
            (*found, *([cluster_dns()] if self._has_dns else [])),
            {one.wanted.name: one.wanted.labels for one in self._namespaces},
            {name: frozenset(_addresses_of(node)) for name, node in self._nodes.items()},
        )

    def enforce(self) -> None:
        """Bring every node's tables in line with the current policies, pods and namespaces."""
        with self._enforcing:
            revision = self._revision
            nodes = dict(self._nodes.items())
            if self._nodes_tables.keys() != nodes.keys() or any(
                self._nodes_tables[name].pid != node.pid for name, node in nodes.items()
            ):
                self._nodes_tables = {name: self._tables_of(node) for name, node in nodes.items()}
            writes = []
            if self.applied or any(one.may_be_there for one in self._nodes_tables.values()):
                world = self.world()
                writes = [(name, partial(one.put, world)) for name, one in self._nodes_tables.items()]
            self._rules.write(writes)
            self._enforced = revision

    def admit(self, node: LabNode) -> None:
        """Enforce policies on a node before a pod is linked to it. Raises OSError with a message."""
        if not self.applied:
            return
        with self._enforcing:
            self._nodes_tables = {**self._nodes_tables, node.name: self._tables_of(node)}
            try:
                self._nodes_tables[node.name].repair()
                self._nodes_tables[node.name].put(self.world())
            except TableRefused as failure:
                raise OSError(f"network policies: {failure}") from failure

    def why_not_enforced(self) -> list[str]:
        """Return what is missing on nodes, one line each; empty if all enforce the policies."""
        if self._enforced < self._revision:
            return ["every node: network policies are not enforced yet"]
        return list(self._rules.failures.values())

    def _tables_of(self, node: LabNode) -> "NodeTables":
        """Return the tables of a node: another machine of the same name has its own."""
        before = self._nodes_tables.get(node.name)
        return before if before is not None and before.pid == node.pid else NodeTables(node)


class NodeTables:
    """Both tables of one node. Methods may be called from several threads."""

    def __init__(self, node: LabNode) -> None:
        self.pid = node.pid
        self._node = node.name
        self._rules = RulesWatch(node.pid)
        journal = node.kernel.journal
        self._inet = KeptTable(self._rules, journal, tables.SKELETON, tables.BASE_RULES)
        self._bridge = KeptTable(self._rules, journal, tables.BRIDGE_SKELETON, tables.BRIDGE_BASE_RULES)
        self._turn = threading.Lock()

    @property
    def may_be_there(self) -> bool:
        """Return whether a policy was ever enforced here, or may have been."""
        return self._bridge.may_be_there or self._inet.may_be_there

    def put(self, world: World) -> None:
        """Write both tables for this world. Raises OSError."""
        with self._turn:
            self._bridge.put(tables.wanted_on_bridge(world, self._node), WHY_FIRST, WHY_LATER)
            self._inet.put(tables.wanted(world, self._node), WHY_FIRST, WHY_LATER)

    def repair(self) -> bool:
        """Restore what another program changed; return whether it had to. Raises OSError."""
        with self._turn:
            if not self.may_be_there or not self._rules.moved():
                return False
            # Both are checked.
            return any([self._bridge.repair(WHY_REPAIR), self._inet.repair(WHY_REPAIR)])


def policy_pod(pod: Pod) -> PolicyPod | None:
    """Return a pod from the policies' view; None if it has no network of its own, or no address yet."""
    manifest = pod.manifest
    addresses = [ip_address(text) for text in (pod.address, pod.ipv6_address) if text is not None]
    if manifest.spec.host_network or not addresses:
        return None
    ports = (
        NamedPort(port.name, PROTOCOLS[port.protocol], port.container_port)
        for container in manifest.spec.containers
        for port in container.ports
        if port.name is not None
    )
    return PolicyPod(
        key=pod.key,
        labels=manifest.metadata.labels,
        node=manifest.spec.node_name or "",
        addresses=tuple(addresses),
        ports=tuple(ports),
        device=pod.host_end or "",
    )


def _addresses_of(node: LabNode) -> Iterable[IPAddress]:
    yield node.address
    if node.ipv6_address is not None:
        yield node.ipv6_address
    with suppress(NoSubnetYet):
        # The overlay's device has the first, the bridge the second.
        yield from (node.subnet.network_address, node.gateway)
        if node.ipv6_subnet is not None:
            yield from (node.ipv6_subnet.network_address, node.ipv6_subnet.network_address + 1)
