"""The columns of `get` for each kind. Pure: an object as JSON in, cells out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `get KIND`."""

    heading: str
    cell: Callable[[Object], object]
    wide: bool = False
    """Shown only with `-o wide`."""


def joined(parts: Iterable[str | None]) -> str | None:
    """Join addresses of both families, or any others, in one cell; None if there are none."""
    return ", ".join(part for part in parts if part) or None


def agent_state(state: str, drained: bool, cordoned: bool = False) -> str:
    """Return an agent's state and the administrative state of its node."""
    return f"{state}, cordoned" if cordoned else f"{state}, drained" if drained else state


def at(*path: str) -> Callable[[Object], object]:
    """Return a reader of the value at `path`; it returns None if part of the path is missing."""

    def cell(item: Object) -> object:
        value: Any = item
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    return cell


NAME = at("metadata", "name")
NAMESPACE = Column("namespace", at("metadata", "namespace"))
"""First column when objects of several namespaces are shown."""


def _node_agent(item: Object) -> str:
    own = item["testbed"]
    return agent_state(own["agent"]["state"], item["spec"].get("unschedulable", False), own.get("cordoned", False))


def _node_address(item: Object) -> str | None:
    addresses = item["status"]["addresses"]
    return joined(one["address"] for one in addresses if one["type"] == "InternalIP")


def _node_peers(item: Object) -> str:
    peers = item["testbed"]["peers"]
    return f"{peers['known']}/{peers['expected']}"


NODE_COLUMNS = (
    Column("node", NAME),
    Column("address", _node_address),
    Column("subnet", lambda item: joined(item["spec"].get("podCIDRs", ()))),
    Column("agent", _node_agent),
    Column("peers", _node_peers),
    Column("restarts", at("testbed", "agent", "restarts")),
    Column("backend", at("testbed", "backend"), wide=True),
    Column("datapath", at("testbed", "datapath"), wide=True),
    Column("agent pid", at("testbed", "agent", "pid"), wide=True),
)


def _pod_ready(item: Object) -> str:
    containers = item["status"]["containerStatuses"]
    return f"{sum(1 for container in containers if container['ready'])}/{len(containers)}"


def _pod_containers(item: Object) -> str | None:
    return joined(f"{one['name']}={one['image']}" for one in item["status"]["containerStatuses"])


POD_COLUMNS = (
    Column("pod", NAME),
    Column("node", at("spec", "nodeName")),
    Column("address", lambda item: joined(one["ip"] for one in item["status"].get("podIPs", ()))),
    Column("ready", _pod_ready),
    Column("state", at("testbed", "state")),
    Column("restarts", at("testbed", "restarts")),
    Column("since", at("status", "startTime"), wide=True),
    Column("containers", _pod_containers, wide=True),
)


def _deployment_ready(item: Object) -> str:
    return f"{item['status']['readyReplicas']}/{item['spec']['replicas']}"


def _template_images(item: Object) -> str | None:
    return joined(container["image"] for container in item["spec"]["template"]["spec"]["containers"])


def _labels(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in selector.items())


def selector_text(selector: Mapping[str, Any]) -> str:
    """Return a label selector as kubectl shows and takes it; `<none>` for an empty one."""
    parts = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    for one in selector.get("matchExpressions", ()):
        key, operator = one["key"], one["operator"]
        alone = {"Exists": key, "DoesNotExist": f"!{key}"}.get(operator)
        parts.append(alone or f"{key} {operator.lower()} ({','.join(one['values'])})")
    return ",".join(parts) or "<none>"


LABELS = Column("labels", lambda item: _labels(item["metadata"].get("labels") or {}) or None)
"""Of `get --show-labels`."""
DEPLOYMENT_COLUMNS = (
    Column("deployment", NAME),
    Column("ready", _deployment_ready),
    Column("up-to-date", at("status", "updatedReplicas")),
    Column("available", at("status", "availableReplicas")),
    Column("images", _template_images, wide=True),
    Column("selector", lambda item: _labels(item["spec"]["selector"]["matchLabels"]), wide=True),
)


REPLICA_SET_COLUMNS = (
    Column("replicaset", NAME),
    Column("desired", at("spec", "replicas")),
    Column("current", at("status", "replicas")),
    Column("ready", at("status", "readyReplicas")),
    Column("images", _template_images, wide=True),
    Column("selector", lambda item: _labels(item["spec"]["selector"]["matchLabels"]), wide=True),
)


def _daemon_nodes(item: Object) -> str | None:
    return _labels(item["spec"]["template"]["spec"].get("nodeSelector", {})) or None


DAEMON_SET_COLUMNS = (
    Column("daemonset", NAME),
    Column("desired", at("status", "desiredNumberScheduled")),
    Column("current", at("status", "currentNumberScheduled")),
    Column("ready", at("status", "numberReady")),
    Column("up-to-date", at("status", "updatedNumberScheduled")),
    Column("available", at("status", "numberAvailable")),
    Column("node selector", _daemon_nodes),
    Column("images", _template_images, wide=True),
    Column("selector", lambda item: _labels(item["spec"]["selector"]["matchLabels"]), wide=True),
)


def cluster_ips(item: Object) -> str | None:
    """Return the cluster IPs of a Service."""
    spec = item["spec"]
    return joined(spec.get("clusterIPs") or [spec.get("clusterIP")])


def service_ports(item: Object) -> str:
    """Return `80:30080/TCP` for a node port, `80/TCP` for a plain one."""
    return ", ".join(
        f"{port['port']}{f':{node_port}' if (node_port := port.get('nodePort')) else ''}/{port.get('protocol', 'TCP')}"
        for port in item["spec"]["ports"]
    )


def _external_ip(item: Object) -> str | None:
    ingress = item["status"].get("loadBalancer", {}).get("ingress", ())
    return joined([one["ip"] for one in ingress])


def _external_traffic(item: Object) -> str | None:
    spec = item["spec"]
    return spec.get("externalTrafficPolicy", "Cluster") if spec["type"] == "NodePort" else None


SERVICE_COLUMNS = (
    Column("service", NAME),
    Column("type", at("spec", "type")),
    Column("cluster ip", cluster_ips),
    Column("external ip", _external_ip, wide=True),
    Column("ports", service_ports),
    Column("endpoints", at("testbed", "readyEndpoints")),
    Column("selector", lambda item: _labels(item["spec"]["selector"]), wide=True),
    Column("affinity", lambda item: item["spec"].get("sessionAffinity", "None"), wide=True),
    Column("external traffic", _external_traffic, wide=True),
)


NAMESPACE_COLUMNS = (
    Column("namespace", NAME),
    Column("status", at("status", "phase")),
    Column("labels", lambda item: _labels(item["metadata"]["labels"]), wide=True),
)


NETWORK_POLICY_COLUMNS = (
    Column("networkpolicy", NAME),
    Column("pod selector", lambda item: selector_text(item["spec"]["podSelector"])),
    Column("policy types", lambda item: joined(item["spec"]["policyTypes"]), wide=True),
)


def _endpoints(part: str) -> Callable[[Object], str]:
    def cell(item: Object) -> str:
        subsets: Sequence[Any] = item["subsets"]
        pairs = [(address["ip"], subset["ports"][0]) for subset in subsets for address in subset.get(part, ())]
        return ", ".join(f"{address}:{port['port']}/{port['protocol']}" for address, port in pairs)

    return cell


ENDPOINTS_COLUMNS = (
    Column("service", NAME),
    Column("endpoints", lambda item: _endpoints("addresses")(item) or "none"),
    Column("not ready", _endpoints("notReadyAddresses")),
)


def _seconds_left(item: Object) -> object:
    status = item["status"]
    return "reservation" if status["reservation"] else status["secondsLeft"]


def _event_object(item: Object) -> str:
    about = item["involvedObject"]
    return f"{about['kind'].lower()}/{about['name']}"


def _number_of_keys(item: Object) -> int:
    return len(item.get("data", ())) + len(item.get("binaryData", ()))


CONFIG_MAP_COLUMNS = (
    Column("configmap", NAME),
    Column("data", _number_of_keys),
    Column("since", at("metadata", "creationTimestamp"), wide=True),
)
SECRET_COLUMNS = (
    Column("secret", NAME),
    Column("type", at("type")),
    Column("data", _number_of_keys),
    Column("since", at("metadata", "creationTimestamp"), wide=True),
)

EVENT_COLUMNS = (
    Column("at", at("lastTimestamp")),
    Column("type", at("type")),
    Column("object", _event_object),
    Column("reason", at("reason")),
    Column("message", at("message")),
)


LEASE_COLUMNS = (
    Column("subnet", lambda item: joined([item["spec"]["subnet"], item["spec"].get("ipv6Subnet")])),
    Column("node", at("spec", "node")),
    Column("public ip", lambda item: joined([item["spec"]["publicIP"], item["spec"].get("publicIPv6")])),
    Column("backend", at("spec", "backendType")),
    Column("seconds left", _seconds_left),
    Column("key", NAME, wide=True),
    Column("etcd lease", at("status", "etcdLease"), wide=True),
    Column("revision", at("metadata", "resourceVersion"), wide=True),
)

NAME_COLUMNS = (
    Column("name", NAME),
    Column("type", at("spec", "type")),
    Column("answer", at("spec", "data")),
)
