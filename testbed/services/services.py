"""The Services of a running lab: desired ones with their numbers; keeps every node's table in line with pods."""

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from agent.kernel.values import Family, IPNetwork
from agent.netconfig.config import NetworkConfig
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import allocate, number
from testbed.cluster.underlay_plan import GATEWAY
from testbed.lab.clock import now
from testbed.lab.events import Events
from testbed.lab.node_rules import NodeRules
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod_state import has_completed
from testbed.services.endpoints import HostPort, PodFacts, bind, host_ports
from testbed.services.external_addresses import ExternalAddresses
from testbed.services.programmer import WHY_REPAIR, Programmer
from testbed.services.rules import everywhere

CHECK_EVERY_S = 1.0


class Services:
    """All Services of a lab."""

    def __init__(
        self, nodes: Nodes, pods: Pods, network: NetworkConfig, events: Events, external: ExternalAddresses
    ) -> None:
        self._external = external
        self._nodes = nodes
        self._pods = pods
        self._network = network
        self.deciding = threading.RLock()
        """Held while `applied` is read and changed."""
        self.applied: dict[ObjectKey, Service] = {}
        """As applied."""
        self.numbered: Mapping[ObjectKey, Service] = {}
        """The same with cluster IPs and node ports."""
        self.created_at: dict[ObjectKey, str] = {}
        """When each was first applied."""
        self._revision = 0
        """Counts changes of `applied`."""
        self._programmed = 0
        """The revision that all nodes have."""
        self._programmers: dict[tuple[str, Family], Programmer] = {}
        """By node and family."""
        self._programming = threading.Lock()
        self._rules = NodeRules(nodes, events, WHY_REPAIR, restored="ServicesMended", failed="ServicesNotProgrammed")

    def want(self, services: Sequence[Service]) -> None:
        """Want these, and allocate their numbers; nodes are programmed from `start` on."""
        self.applied = {service.key: service for service in services}
        self.numbered = {}
        for service in allocate(services, self.dual_stack).values():
            self.numbered = {**self.numbered, service.key: self._with_external(service)}
        self.created_at = dict.fromkeys(self.applied, now())
        self._revision += 1

    def start(self) -> None:
        """Program every node, and keep doing so."""
        self._pods.changed.subscribe("services", self.program)
        self._rules.start(
            CHECK_EVERY_S, lambda: ((name, one) for (name, _), one in self._programmers.items()), self.program
        )

    def put(self, service: Service) -> None:
        """Want this Service, and program nodes soon. Raises NothingFree and then changes nothing."""
        with self.deciding:
            numbered = number(service, self.numbered, self.dual_stack)
            self.numbered = {**self.numbered, service.key: self._with_external(numbered)}
            self.applied[service.key] = service
            self.created_at.setdefault(service.key, now())
            self._revision += 1
        self._pods.changed.notify()

    def _with_external(self, service: Service) -> Service:
        """Return the same with its external address, if it has one. Raises NothingFree."""
        if service.spec.type != "LoadBalancer":
            return service
        others = [one for key, other in self.numbered.items() if key != service.key if (one := other.external_address)]
        before = self.numbered.get(service.key)
        return service.at_external_address(
            self._external.choose(service, before.external_address if before else None, others)
        )

    def remove(self, key: ObjectKey) -> None:
        """Remove it, and program nodes soon. Raises KeyError."""
        with self.deciding:
            del self.applied[key]
            self.numbered = {other: service for other, service in self.numbered.items() if other != key}
            del self.created_at[key]
            self._revision += 1
        self._pods.changed.notify()

    @property
    def pod_network(self) -> IPv4Network:
        """Return the network of all pods."""
        return self._network.network

    @property
    def dual_stack(self) -> bool:
        """Return whether pods also have IPv6."""
        return 6 in self._networks()

    def _networks(self) -> dict[Family, IPNetwork]:
        both: dict[Family, IPNetwork] = {4: self._network.network}
        return both if self._network.ipv6_network is None else {**both, 6: self._network.ipv6_network}

    def pods(self) -> list[PodFacts]:
        """Return the current facts about every pod of the lab."""
        found = []
        for pod in self._pods:
            status = pod.status()
            address = IPv4Address(status.address) if status.address else None
            ipv6 = IPv6Address(status.ipv6_address) if status.ipv6_address else None
            is_over = status.terminating or has_completed(pod.manifest.spec.restart_policy, status.phase)
            found.append(PodFacts(pod.manifest, address, status.ready, is_over, ipv6))
        return found

    def program(self) -> None:
        """Bring every node's table in line with the current Services and pods."""
        with self._programming:
            revision = self._revision
            pods = self.pods()
            networks = self._networks()
            common = {family: everywhere(bind(self.numbered.values(), pods, family), family) for family in networks}
            nodes = dict(self._nodes.items())
            former = {(*key, one.pid): one for key, one in self._programmers.items()}
            # A node that was deleted and added again has the same name but is another machine.
            self._programmers = {
                (name, family): former.get((name, family, node.pid)) or Programmer(name, node.pid, network, node.kernel)
                for name, node in nodes.items()
                for family, network in networks.items()
            }
            outside = [one for service in self.numbered.values() if (one := service.external_address)]
            self._rules.write(
                [
                    *(
                        (name, partial(one.program, common[family], self._host_ports(name, pods, family)))
                        for (name, family), one in self._programmers.items()
                    ),
                    (GATEWAY, partial(self._external.route, outside, nodes.values())),
                ]
            )
            self._programmed = revision

    def _host_ports(self, node: str, pods: Sequence[PodFacts], family: Family) -> tuple[HostPort, ...]:
        """Return a node's host ports; none if its CNI plugins have them."""
        one = self._nodes.get(node)
        return () if one is not None and one.cni is not None else host_ports(node, pods, family)

    def why_not_programmed(self) -> list[str]:
        """Return what is missing in nodes' tables, one line each; empty if they are right."""
        if self._programmed < self._revision:
            return ["every node: services are not programmed yet"]
        waiting = [
            f"{name}: services are not programmed yet" for name in self._nodes if (name, 4) not in self._programmers
        ]
        return waiting or self.why_not_written()

    def why_not_written(self) -> list[str]:
        """Return why nodes' tables could not be written, one line each."""
        return list(self._rules.failures.values())
