"""Addresses of Services of type LoadBalancer: from the underlay's range, answered by every node, and routed to one by
the gateway.
"""

import hashlib
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv4Network

from agent.kernel.values import Route
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import NothingFree
from testbed.cluster.underlay_plan import GATEWAY
from testbed.lab.node import LabNode
from testbed.lab.underlay import LabUnderlay

UPPER_HALF = 2
"""Machines get the lower addresses."""


class ExternalAddresses:
    """The addresses of one lab."""

    def __init__(self, underlay: LabUnderlay, segment: IPv4Network) -> None:
        """`segment` is the gateway's subnet."""
        self._underlay = underlay
        self._segment = segment
        self._routes: dict[IPv4Address, Route] = {}

    def choose(self, service: Service, before: IPv4Address | None, others: Iterable[IPv4Address]) -> IPv4Address:
        """Choose the Service's own address, its previous one, or a free one. Raises NothingFree."""
        machines = {port.address.ip for machine in self._underlay.plan.machines.values() for port in machine.ports}
        taken = {*others, *machines}
        asked = service.spec.load_balancer_ip
        if asked is not None:
            address = IPv4Address(asked)
            if address not in self._segment or address in taken:
                why = "is taken" if address in taken else f"is not in {self._segment}"
                raise NothingFree(f"service {service.key}: loadBalancerIP {asked} {why}")
            return address
        if before is not None and before not in taken:
            return before
        size = self._segment.num_addresses // UPPER_HALF - 1
        first = int.from_bytes(hashlib.sha256(str(service.key).encode()).digest()[:8], "big") % size
        for step in range(size):
            address = self._segment.broadcast_address - 1 - (first + step) % size
            if address not in taken:
                return address
        raise NothingFree(f"no free address for service {service.key}: all {size} of {self._segment} are taken")

    def route(self, addresses: Collection[IPv4Address], nodes: Collection[LabNode]) -> None:
        """Make the gateway route packets for these addresses to a node."""
        gateway = self._underlay.machines.get(GATEWAY)
        if gateway is None or (not addresses and not self._routes):
            return
        to = next((node.address for node in nodes if node.expected), None)
        hop = gateway.kernel.route_to(to) if to is not None and addresses else None
        wanted = {
            address: Route(IPv4Network(address), hop.device, hop.gateway or to)
            for address in addresses
            if hop is not None
        }
        for address, route in self._routes.items():
            if wanted.get(address) != route:
                gateway.kernel.delete_route(route, "the LoadBalancer or the node is gone")
        for address, route in wanted.items():
            if self._routes.get(address) != route:
                gateway.kernel.ensure_route(route, "every node answers for the address of a LoadBalancer")
        self._routes = wanted
