"""Faults of leases: what an operator, or another node, does to a node's key in etcd."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from agent.lease import Lease
from testbed.faults.agent_faults import node_of
from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.registry import LabRegistry

THIEF = IPv4Address("192.0.2.1")
"""An address of no machine: RFC 5737."""


class LeaseFaults:
    """See the catalogue."""

    def __init__(self, nodes: Nodes, registry: LabRegistry) -> None:
        self._nodes = nodes
        self._registry = registry

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {"lease revoke": self.revoke, "lease delete": self.delete, "lease steal": self.steal}

    def revoke(self, request: FaultRequest) -> Injected:
        """Revoke the etcd lease, as an operator would."""
        _, lease = self._held(request)
        number = f"{lease.etcd_lease_id:x}"
        self._registry.etcd.etcdctl(["lease", "revoke", number])
        return Injected(f"etcdctl lease revoke {number}: the key of {lease.subnet} is gone", "by the agent")

    def delete(self, request: FaultRequest) -> Injected:
        """Delete only the key."""
        _, lease = self._held(request)
        key = self._registry.key_of(lease.subnet)
        self._registry.etcd.etcdctl(["del", key])
        return Injected(f"etcdctl del {key}", "by the agent, which re-acquires its subnet")

    def steal(self, request: FaultRequest) -> Injected:
        """Give the subnet to another node: write its address into the key, without a lease that would expire."""
        node, lease = self._held(request)
        key = self._registry.key_of(lease.subnet)
        self._registry.etcd.put(key, replace(lease.attrs, public_ip=THIEF).to_json().encode())

        def give_back() -> str:
            held = [one for one in self._registry.leases() if one.subnet == lease.subnet]
            if held and held[0].attrs.public_ip == THIEF:
                self._registry.etcd.etcdctl(["del", key])
                return f"etcdctl del {key}"
            return f"{lease.subnet} no longer belongs to {THIEF}; nothing to do"

        did = f"etcdctl put {key}: {lease.subnet} of {node.name} now belongs to {THIEF}"
        return Injected(did, "by deleting the key", give_back)

    def _held(self, request: FaultRequest) -> tuple[LabNode, Lease]:
        """Return the node and its lease. Raises FaultImpossible, also for a reservation, which no agent would restore,
        and EtcdFailed.
        """
        node = node_of(self._nodes, request)
        for lease in self._registry.leases():
            if lease.attrs.public_ip == node.address and lease.is_reservation:
                raise FaultImpossible(f"{request.text}: {node.name}'s key is a reservation, without a lease")
            if lease.attrs.public_ip == node.address:
                return node, lease
        raise FaultImpossible(f"{request.text}: {node.name} has no key in etcd")
