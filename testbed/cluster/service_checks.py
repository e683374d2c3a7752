"""Checks across the fields of a Service. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, ip_address

from testbed.cluster.dns import DNS_ADDRESS
from testbed.cluster.free_values import free_address, free_name, free_port
from testbed.cluster.ipv6_checks import SERVICE_RANGE_IPV6
from testbed.cluster.problems import Problem
from testbed.cluster.service import HEADLESS, NODE_PORTS, Service, ServicePort
from testbed.cluster.service_addresses import SERVICE_RANGE, SERVICE_RANGES
from testbed.cluster.validation import Source

FIRST_SUGGESTED = 101
"""In the range of Services, for messages."""

Labels = Mapping[str, str]


def check_service(source: Source, service: object) -> Iterator[Problem]:
    """Check the parts of one Service against each other."""
    assert isinstance(service, Service)
    spec = service.spec
    if not service.has_node_ports and not source.is_doubtful(("spec", "type")):
        for index, port in enumerate(spec.ports):
            if port.node_port is not None:
                what = f"a node port without type NodePort (got {port.node_port}; want type: NodePort, or no nodePort)"
                yield source.problem(("spec", "ports", index, "nodePort"), what)
    if spec.type != "NodePort" and spec.external_traffic_policy == "Local" and not source.is_doubtful(("spec", "type")):
        what = f"only node ports have it (got type {spec.type}; want type: NodePort)"
        yield source.problem(("spec", "externalTrafficPolicy"), what)
    if spec.load_balancer_ip is not None and spec.type != "LoadBalancer" and not source.is_doubtful(("spec", "type")):
        what = f"only a LoadBalancer has it (got type {spec.type}; want type: LoadBalancer)"
        yield source.problem(("spec", "loadBalancerIP"), what)
    if service.headless and service.has_node_ports:
        what = "a Service without a cluster IP has no node ports (got clusterIP: None; want type: ClusterIP)"
        yield source.problem(("spec", "type"), what)
    if service.headless and spec.session_affinity != "None":
        what = "clients connect to pods directly (got clusterIP: None; want sessionAffinity: None)"
        yield source.problem(("spec", "sessionAffinity"), what)
    affinity_is_off = spec.session_affinity == "None" and not source.is_doubtful(("spec", "sessionAffinity"))
    if spec.session_affinity_config is not None and affinity_is_off:
        what = "settings of a disabled affinity (got sessionAffinity: None; want sessionAffinity: ClientIP)"
        yield source.problem(("spec", "sessionAffinityConfig"), what)
    if spec.cluster_ip is not None and not service.headless and not _is_for_services(spec.cluster_ip):
        ranges = SERVICE_RANGE if ":" not in spec.cluster_ip else SERVICE_RANGE_IPV6
        what = f"not an address for Services (got {spec.cluster_ip}; want one of {ranges})"
        yield source.problem(("spec", "clusterIP"), what)
    if spec.cluster_ip == str(DNS_ADDRESS):
        want = f"another, such as {_free_cluster_ip(spec.cluster_ip)}"
        what = f"the address of the cluster's DNS (got {DNS_ADDRESS}; want {want})"
        yield source.problem(("spec", "clusterIP"), what)
    yield from _check_families(source, service)
    yield from _check_ports(source, spec.ports)


def _free_cluster_ip(text: str, taken: Iterable[str] = ()) -> str:
    reserved = {DNS_ADDRESS, *map(ip_address, taken)}
    return str(free_address(SERVICE_RANGES[ip_address(text).version], reserved, FIRST_SUGGESTED))


def _is_for_services(text: str) -> bool:
    address = ip_address(text)
    return address in SERVICE_RANGES[address.version]


def _check_families(source: Source, service: Service) -> Iterator[Problem]:
    spec = service.spec
    if len(set(spec.ip_families)) < len(spec.ip_families):
        what = f"a family twice (got {', '.join(spec.ip_families)}; want each once)"
        yield source.problem(("spec", "ipFamilies"), what)
    elif spec.ip_family_policy == "SingleStack" and len(spec.ip_families) > 1:
        got = f"{', '.join(spec.ip_families)} with SingleStack"
        what = f"two families of one that has one (got {got}; want ipFamilyPolicy: PreferDualStack or RequireDualStack)"
        yield source.problem(("spec", "ipFamilies"), what)
    if spec.cluster_ips and (len(spec.cluster_ips) > 2 or spec.cluster_ips[0] != spec.cluster_ip):
        got = f"{', '.join(spec.cluster_ips)} beside clusterIP: {spec.cluster_ip or 'nothing'}"
        what = f"not the cluster IP and one of the other family (got {got}; want clusterIP first)"
        yield source.problem(("spec", "clusterIPs"), what)
    elif len({":" in one for one in spec.cluster_ips}) < len(spec.cluster_ips):
        what = f"two of one family (got {', '.join(spec.cluster_ips)}; want one of each)"
        yield source.problem(("spec", "clusterIPs"), what)
    elif wrong := [one for one in spec.cluster_ips if one != HEADLESS and not _is_for_services(one)]:
        what = f"not an address for Services (got {wrong[0]}; want one of {SERVICE_RANGE} or {SERVICE_RANGE_IPV6})"
        yield source.problem(("spec", "clusterIPs"), what)
    if spec.cluster_ip is not None and not service.headless and spec.ip_families:
        version = ip_address(spec.cluster_ip).version
        if spec.ip_families[0] != f"IPv{version}":
            what = f"the cluster IP is of another family (got {spec.cluster_ip}; want IPv{version} first)"
            yield source.problem(("spec", "ipFamilies"), what)


def check_dual_stack(applied: Iterable[tuple[Source, Service]], dual_stack: bool) -> Iterator[Problem]:
    """Check that the network has the families that Services request."""
    for source, service in applied:
        spec = service.spec
        wants_ipv6 = spec.ip_families[:1] == ("IPv6",) or ":" in (spec.cluster_ip or "")
        # As in Kubernetes, two families without a policy are both required.
        both = spec.ip_family_policy == "RequireDualStack" or (not spec.ip_family_policy and len(spec.ip_families) > 1)
        if not dual_stack and (both or wants_ipv6):
            got = "RequireDualStack" if not wants_ipv6 else "IPv6"
            what = f"the network has IPv4 only (got {got}; want EnableIPv6: true in network, or another ipFamilyPolicy)"
            yield source.problem(("spec",), what)


def _check_ports(source: Source, ports: Sequence[ServicePort]) -> Iterator[Problem]:
    names: dict[str, int] = {}
    numbers: dict[tuple[int, str], int] = {}
    for index, port in enumerate(ports):
        path = ("spec", "ports", index)
        if port.name is None and len(ports) > 1 and not source.is_doubtful((*path, "name")):
            what = f"one of several ports without a name (got port {port.port}; want name: port-{port.port})"
            yield source.problem(path, what)
        if port.name is not None and names.setdefault(port.name, index) != index:
            line = source.line(("spec", "ports", names[port.name]))
            other = free_name(port.name, {one.name for one in ports if one.name})
            what = f"two ports of one name (got {port.name}, line {line} has it too; want another, such as {other})"
            yield source.problem((*path, "name"), what)
        key = (port.port, port.protocol)
        if numbers.setdefault(key, index) != index:
            line = source.line(("spec", "ports", numbers[key]))
            free = free_port(port.port, {one.port for one in ports if one.protocol == port.protocol})
            got = f"{port.port}/{port.protocol}, line {line} has it too"
            what = f"the same port twice (got {got}; want another, such as {free})"
            yield source.problem((*path, "port"), what)


def check_together(applied: Sequence[tuple[Source, Service]], others: Iterable[Service] = ()) -> Iterator[Problem]:
    """Check for cluster IPs and node ports that two Services request: two of `applied`, or one and one of `others`.

    `others` are those that stay beside `applied`; each has its numbers.
    """
    again = {service.key for _, service in applied}
    taken_addresses: dict[str, str] = {}
    taken_ports: dict[tuple[int, str], str] = {}
    for other in others:
        if other.key in again:
            continue
        if not other.headless and other.spec.cluster_ip is not None:
            taken_addresses[other.spec.cluster_ip] = f"service {other.key}"
        for port in other.spec.ports:
            if port.node_port is not None:
                taken_ports[port.node_port, port.protocol] = f"service {other.key}"
    for source, service in applied:
        address = service.spec.cluster_ip
        if address is not None and not service.headless:
            path = ("spec", "clusterIP")
            if address in taken_addresses:
                free = _free_cluster_ip(address, taken_addresses)
                got = f"{address}, {taken_addresses[address]} has it too"
                what = f"a cluster IP twice (got {got}; want another, such as {free})"
                yield source.problem(path, what)
            taken_addresses.setdefault(address, f"line {source.line(path)}")
        for index, port in enumerate(service.spec.ports):
            if port.node_port is None:
                continue
            place = ("spec", "ports", index, "nodePort")
            key = (port.node_port, port.protocol)
            if key in taken_ports:
                got = f"{port.node_port}/{port.protocol}, {taken_ports[key]} has it too"
                number = free_port(port.node_port, {taken for taken, _ in taken_ports}, *NODE_PORTS)
                yield source.problem(place, f"a node port twice (got {got}; want another, such as {number})")
            taken_ports.setdefault(key, f"line {source.line(place)}")


def check_range(applied: Sequence[tuple[Source, Service]], pod_network: IPv4Network) -> Iterator[Problem]:
    """Check whether an address could belong to a pod and to a Service."""
    if applied and SERVICE_RANGE.overlaps(pod_network):
        what = (
            f"addresses of Services, {SERVICE_RANGE}, are pods' too (got Network {pod_network}; want one beside them)"
        )
        yield applied[0][0].problem(("spec",), what)


def selects_nothing(applied: Sequence[tuple[Source, Service]], pods: Sequence[tuple[str, Labels]]) -> Iterator[Problem]:
    """Check for Services that select no pod: not an error, since pods may be added, but probably a mistake.

    `pods` are the namespaces and labels of pods, including those from templates.
    """
    for source, service in applied:
        selector = service.spec.selector
        own = [labels for namespace, labels in pods if namespace == service.metadata.namespace]
        if not any(selector.items() <= found.items() for found in own):
            shown = ", ".join(f"{key}={value}" for key, value in selector.items())
            what = f"no pod has these labels (got {shown}; want labels of pods, or pods with them)"
            yield source.problem(("spec", "selector"), what)
