"""Services and their endpoints in `get`, `describe` and `status`."""

from typing import Any

from agent.kernel.values import Family
from testbed.cluster.dns import CLUSTER_DOMAIN
from testbed.cluster.object_key import key_of
from testbed.cluster.service import Service
from testbed.control.answers.lab import Description, ServiceLine
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.services.endpoints import endpoints_of
from testbed.services.rules import at
from testbed.services.services import Services

Object = dict[str, Any]


def family_of(service: Service) -> Family:
    """Return the family of its first cluster IP; IPv4 for a headless one."""
    return 6 if service.address_of(4) is None and service.address_of(6) is not None else 4


def families_of(service: Service, *, dual_stack: bool) -> tuple[Family, ...]:
    """Return the families of its cluster IPs; IPv4 for a headless one."""
    return (4,) if service.headless else service.families(dual_stack)


def url(address: str, port: int) -> str:
    """Return the URL as typed for curl: an IPv6 address in quoted brackets."""
    return f"http://{address}:{port}/" if ":" not in address else f"'http://[{address}]:{port}/'"


def service_status(known: Services) -> list[ServiceLine]:
    """Return one line per Service for `status`."""
    return [_line(service, known) for service in known.numbered.values()]


def _line(service: Service, known: Services) -> ServiceLine:
    spec = service.spec
    return {
        "name": str(service.key),
        "type": spec.type,
        "cluster_ip": None if service.headless else spec.cluster_ip,
        "ports": [{"port": port.port, "protocol": port.protocol, "node_port": port.node_port} for port in spec.ports],
        "endpoints": ready_pods(service, known),
    }


def ready_pods(service: Service, known: Services) -> int:
    """Return how many ready pods it has."""
    ready, _ = endpoints_of(service, known.pods(), family_of(service))
    return len({one.pod for port in ready for one in port})


def describe_service(known: Services, name: str, nodes: Nodes, pods: Pods, *, has_dns: bool) -> Description:
    """Return everything about one Service, as headings and values. Raises KeyError."""
    service = known.numbered[key_of(name)]
    spec, seen = service.spec, known.pods()
    both = [endpoints_of(service, seen, family) for family in families_of(service, dual_stack=known.dual_stack)]
    ready = [[one for ready, _ in both for one in ready[number]] for number in range(len(spec.ports))]
    other = [[one for _, other in both for one in other[number]] for number in range(len(spec.ports))]
    ports = {}
    for port, here, there in zip(spec.ports, ready, other, strict=True):
        heading = f"{port.name + ' ' if port.name else ''}{port.port}/{port.protocol}"
        ports[heading] = {
            "target port": port.target_port,
            "node port": port.node_port,
            "endpoints": [f"{at(one)}  {one.pod} on {one.node}" for one in here] or "none",
            "not ready": [f"{at(one)}  {one.pod} on {one.node}" for one in there] or None,
        }
    first = spec.ports[0]
    look = [f"exec {node} -- nft list table ip testbed-services" for node in list(nodes)[:1]]
    # Best a pod of its own namespace, which policies stop least.
    near = sorted(pods, key=lambda pod: pod.key.namespace != service.key.namespace)
    if not service.headless and first.protocol == "TCP" and near:
        look.insert(0, f"exec {near[0].name} -- curl -s {url(spec.cluster_ip or '', first.port)}")
    return {
        "Name": name,
        "Labels": service.metadata.labels or None,
        "Selector": spec.selector,
        "Type": spec.type,
        "Cluster IP": ", ".join(spec.cluster_ips) or spec.cluster_ip,
        "External address": str(service.external_address) if service.external_address else None,
        "IP family policy": spec.ip_family_policy,
        "DNS name": f"{service.name}.{service.metadata.namespace}.svc.{CLUSTER_DOMAIN}" if has_dns else None,
        "Session affinity": f"ClientIP, {service.affinity_s} s" if service.affinity_s else "none",
        "External traffic": spec.external_traffic_policy if spec.type == "NodePort" else None,
        "Ports": ports,
        "Look inside": look,
    }
