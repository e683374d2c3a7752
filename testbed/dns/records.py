"""The records of the cluster's DNS: a pure function of Services, their endpoints and pods.

The names are those of Kubernetes' specification (github.com/kubernetes/dns, docs/specification.md, version 1.1.0):

    web.default.svc.cluster.local                A    the cluster IP; headless: every ready endpoint; IPv6: AAAA
    _http._tcp.web.default.svc.cluster.local     SRV  a named port; headless: one for every ready endpoint
    POD.web.default.svc.cluster.local            A    headless: one endpoint, by its pod's hostname or name
    10-0-46-2.default.pod.cluster.local          A    a pod, by its address; fd00-a--2: AAAA
    20.0.96.10.in-addr.arpa                      PTR  a cluster IP, and the endpoints of headless Services; ip6.arpa too
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from agent.kernel.values import IPAddress
from testbed.cluster.dns import CLUSTER_DOMAIN, DNS_ADDRESS
from testbed.cluster.ipv6_checks import SERVICE_RANGE_IPV6
from testbed.cluster.service import Service
from testbed.cluster.service_addresses import SERVICE_RANGE
from testbed.services.endpoints import PodFacts, endpoints_of

NAME_SERVER = f"ns.dns.{CLUSTER_DOMAIN}"
OWN_SERVICE = f"kube-dns.kube-system.svc.{CLUSTER_DOMAIN}"
"""The DNS's own Service name in Kubernetes, whatever program it is."""
SPECIFICATION = "1.1.0"
NIBBLES = 32
"""Of an IPv6 address; each is a label of its name in ip6.arpa."""


class Record(NamedTuple):
    """One resource record."""

    name: str
    """Complete, without the final dot."""
    type: str
    data: str
    """In a zone file's form; names in it end with a dot."""


def zones_of(pod_network: IPv4Network, pod_network_ipv6: IPv6Network | None = None) -> tuple[str, ...]:
    """Return the domains that the server serves: the cluster's, and the reverse zones of pods' and
    Services' addresses.
    """
    networks = (pod_network, SERVICE_RANGE)
    octets = {
        octet
        for network in networks
        for octet in range(network.network_address.packed[0], network.broadcast_address.packed[0] + 1)
    }
    networks_ipv6 = () if pod_network_ipv6 is None else (pod_network_ipv6, SERVICE_RANGE_IPV6)
    return (
        CLUSTER_DOMAIN,
        *(f"{octet}.in-addr.arpa" for octet in sorted(octets)),
        *(zone for network in networks_ipv6 for zone in _reverse_zones(network)),
    )


def _reverse_zones(network: IPv6Network) -> Iterator[str]:
    """Yield the zones of the network's addresses: a zone begins at a whole nibble."""
    nibbles = -(-network.prefixlen // 4)
    for part in network.subnets(new_prefix=4 * nibbles):
        labels = part.network_address.reverse_pointer.split(".")
        yield ".".join(labels[NIBBLES - nibbles :])


def records(services: Iterable[Service], pods: Sequence[PodFacts]) -> tuple[Record, ...]:
    """Return every record, in order, each once. Services have their numbers."""
    found = set(_own())
    for service in services:
        found.update(_of_headless(service, pods) if service.headless else _of_service(service))
    found.update(_of_pod(pod, address) for pod in pods for address in (pod.address, pod.ipv6) if address is not None)
    return tuple(sorted(found))


def by_zone(found: Iterable[Record], zones: Sequence[str]) -> Mapping[str, tuple[Record, ...]]:
    """Return the records of each zone, in order; records outside of them are omitted."""
    everything = sorted(found)
    ends = {zone: f".{zone}" for zone in zones}
    return {zone: tuple(one for one in everything if one.name.endswith(end)) for zone, end in ends.items()}


def _of_pod(pod: PodFacts, address: IPAddress) -> Record:
    return _address(f"{_dashed(address)}.{pod.manifest.metadata.namespace}.pod.{CLUSTER_DOMAIN}", address)


def _name_of(service: Service) -> str:
    return f"{service.name}.{service.metadata.namespace}.svc.{CLUSTER_DOMAIN}"


def _own() -> Iterator[Record]:
    yield _address(NAME_SERVER, DNS_ADDRESS)
    yield Record(f"dns-version.{CLUSTER_DOMAIN}", "TXT", f'"{SPECIFICATION}"')
    yield _address(OWN_SERVICE, DNS_ADDRESS)
    yield _pointer(DNS_ADDRESS, OWN_SERVICE)
    yield _port("dns", "UDP", OWN_SERVICE, 53, OWN_SERVICE)
    yield _port("dns-tcp", "TCP", OWN_SERVICE, 53, OWN_SERVICE)


def _of_service(service: Service) -> Iterator[Record]:
    name = _name_of(service)
    for family in (4, 6):
        if (address := service.address_of(family)) is not None:
            yield _address(name, address)
            yield _pointer(address, name)
    for port in service.spec.ports:
        if port.name is not None:
            yield _port(port.name, port.protocol, name, port.port, name)


def _of_headless(service: Service, pods: Sequence[PodFacts]) -> Iterator[Record]:
    name = _name_of(service)
    hosts = {pod.manifest.key: pod.manifest.spec.hostname or pod.manifest.name for pod in pods}
    # Pods of a network with IPv4 only have no IPv6 endpoints.
    for family in service.families(dual_stack=True):
        ready, _ = endpoints_of(service, pods, family)
        for port, endpoints in zip(service.spec.ports, ready, strict=True):
            for endpoint in endpoints:
                own = f"{hosts[endpoint.pod]}.{name}"
                yield _address(name, endpoint.address)
                yield _address(own, endpoint.address)
                yield _pointer(endpoint.address, own)
                if port.name is not None:
                    yield _port(port.name, port.protocol, name, endpoint.port, own)


def _address(name: str, address: IPAddress) -> Record:
    return Record(name, "A" if address.version == 4 else "AAAA", str(address))


def _pointer(address: IPAddress, name: str) -> Record:
    return Record(address.reverse_pointer, "PTR", f"{name}.")


def _port(port_name: str, protocol: str, name: str, number: int, target: str) -> Record:
    return Record(f"_{port_name}._{protocol.lower()}.{name}", "SRV", f"0 100 {number} {target}.")


def _dashed(address: IPAddress) -> str:
    return str(address).replace("." if address.version == 4 else ":", "-")
