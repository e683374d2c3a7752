"""What no field of a Service can know alone. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from testbed.cluster.dns import DNS_ADDRESS
from testbed.cluster.problems import Problem
from testbed.cluster.service import Service, ServicePort
from testbed.cluster.validation import Source
from testbed.services.allocation import SERVICE_RANGE

Labels = Mapping[str, str]


def check_service(source: Source, service: object) -> Iterator[Problem]:
    """What the parts of one Service say about each other."""
    assert isinstance(service, Service)
    spec = service.spec
    if spec.type != "NodePort":
        for index, port in enumerate(spec.ports):
            if port.node_port is not None:
                what = f"a node port without type NodePort (got {port.node_port}; want type: NodePort, or no nodePort)"
                yield source.problem(("spec", "ports", index, "nodePort"), what)
        if spec.external_traffic_policy == "Local":
            what = f"only node ports have it (got type {spec.type}; want type: NodePort)"
            yield source.problem(("spec", "externalTrafficPolicy"), what)
    if service.headless and spec.type == "NodePort":
        what = "a Service without a cluster IP has no node ports (got clusterIP: None; want type: ClusterIP)"
        yield source.problem(("spec", "type"), what)
    if service.headless and spec.session_affinity != "None":
        what = "nothing stands between client and pod here (got clusterIP: None; want sessionAffinity: None)"
        yield source.problem(("spec", "sessionAffinity"), what)
    if spec.session_affinity_config is not None and spec.session_affinity == "None":
        what = "settings of an affinity that is off (got sessionAffinity: None; want sessionAffinity: ClientIP)"
        yield source.problem(("spec", "sessionAffinityConfig"), what)
    if spec.cluster_ip is not None and not service.headless and IPv4Address(spec.cluster_ip) not in SERVICE_RANGE:
        what = f"not an address for Services (got {spec.cluster_ip}; want one of {SERVICE_RANGE})"
        yield source.problem(("spec", "clusterIP"), what)
    if spec.cluster_ip == str(DNS_ADDRESS):
        what = f"the address of the cluster's DNS (got {DNS_ADDRESS}; want another of {SERVICE_RANGE})"
        yield source.problem(("spec", "clusterIP"), what)
    yield from _check_ports(source, spec.ports)


def _check_ports(source: Source, ports: Sequence[ServicePort]) -> Iterator[Problem]:
    names: dict[str, int] = {}
    numbers: dict[tuple[int, str], int] = {}
    for index, port in enumerate(ports):
        path = ("spec", "ports", index)
        if port.name is None and len(ports) > 1:
            what = f"one of several ports without a name (got port {port.port}; want name: …)"
            yield source.problem(path, what)
        if port.name is not None and names.setdefault(port.name, index) != index:
            line = source.line(("spec", "ports", names[port.name]))
            what = f"two ports of one name (got {port.name}, line {line} has it too; want another)"
            yield source.problem((*path, "name"), what)
        key = (port.port, port.protocol)
        if numbers.setdefault(key, index) != index:
            line = source.line(("spec", "ports", numbers[key]))
            what = f"the same port twice (got {port.port}/{port.protocol}, line {line} has it too; want another)"
            yield source.problem((*path, "port"), what)


def check_together(applied: Sequence[tuple[Source, Service]], others: Iterable[Service] = ()) -> Iterator[Problem]:
    """Cluster IPs and node ports that two Services ask for: two of `applied`, or one and one of `others`.

    `others` are those that stay beside `applied`; each has its numbers.
    """
    again = {service.name for _, service in applied}
    taken_addresses: dict[str, str] = {}
    taken_ports: dict[tuple[int, str], str] = {}
    for other in others:
        if other.name in again:
            continue
        if not other.headless and other.spec.cluster_ip is not None:
            taken_addresses[other.spec.cluster_ip] = f"service {other.name}"
        for port in other.spec.ports:
            if port.node_port is not None:
                taken_ports[port.node_port, port.protocol] = f"service {other.name}"
    for source, service in applied:
        address = service.spec.cluster_ip
        if address is not None and not service.headless:
            path = ("spec", "clusterIP")
            if address in taken_addresses:
                what = f"a cluster IP twice (got {address}, {taken_addresses[address]} has it too; want another)"
                yield source.problem(path, what)
            taken_addresses.setdefault(address, f"line {source.line(path)}")
        for index, port in enumerate(service.spec.ports):
            if port.node_port is None:
                continue
            place = ("spec", "ports", index, "nodePort")
            key = (port.node_port, port.protocol)
            if key in taken_ports:
                got = f"{port.node_port}/{port.protocol}, {taken_ports[key]} has it too"
                yield source.problem(place, f"a node port twice (got {got}; want another)")
            taken_ports.setdefault(key, f"line {source.line(place)}")


def check_range(applied: Sequence[tuple[Source, Service]], pod_network: IPv4Network) -> Iterator[Problem]:
    """Whether an address could be a pod's and a Service's."""
    if applied and SERVICE_RANGE.overlaps(pod_network):
        what = (
            f"addresses of Services, {SERVICE_RANGE}, are pods' too (got Network {pod_network}; want one beside them)"
        )
        yield applied[0][0].problem(("spec",), what)


def selects_nothing(applied: Sequence[tuple[Source, Service]], labels: Sequence[Labels]) -> Iterator[Problem]:
    """Services that no pod belongs to: no error, for pods may come, but probably a mistake."""
    for source, service in applied:
        selector = service.spec.selector
        if not any(selector.items() <= found.items() for found in labels):
            shown = ", ".join(f"{key}={value}" for key, value in selector.items())
            what = f"no pod has these labels (got {shown}; want labels of pods, or pods with them)"
            yield source.problem(("spec", "selector"), what)
