"""Objects in Kubernetes' own shapes, which its typed clients read. Pure: values in, JSON out.

Facts without a Kubernetes field are in our own field, `testbed`, at the top of the object: clients skip unknown fields,
numbers and lists keep their types (annotations are texts), and no later version of Kubernetes gives such a field
another meaning.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from testbed.cluster import kinds
from testbed.cluster.config_objects import ConfigObject
from testbed.cluster.kinds import KINDS, Kind
from testbed.cluster.manifest import PodManifest
from testbed.cluster.namespace import Namespace
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import ObjectKey, key_of, object_uid
from testbed.cluster.placement import node_labels
from testbed.cluster.resources import qos_class
from testbed.cluster.service import VERSIONS, Service
from testbed.control.answers.lab import EventLine, NodeStatus
from testbed.control.answers.objects import NodeOwnFacts, PodOwnFacts, ServiceOwnFacts
from testbed.control.wire import WrittenOnce
from testbed.lab.events import EVENTS_KEPT
from testbed.pods.pod_state import ContainerStatus, PodStatus
from testbed.services.endpoints import Endpoint

Shape = dict[str, Any]
COMPONENT = "testbed"
ARCHITECTURE_LABEL = "kubernetes.io/arch"


@dataclass(frozen=True, slots=True)
class LabIdentity:
    """Distinguishes an object of one lab from an object with that name elsewhere."""

    name: str
    since: str

    def uid(self, kind: Kind, key: ObjectKey, created_at: str) -> str:
        """Return an id that is the same for one object while it exists, and different for a later one."""
        return object_uid(self.name, self.since, kind.name, key, created_at)

    def head(self, kind: Kind, key: ObjectKey, created_at: str) -> Shape:
        """Return apiVersion, kind and metadata."""
        metadata = {"name": key.name, "uid": self.uid(kind, key, created_at), "creationTimestamp": created_at}
        if kind.namespaced:
            metadata["namespace"] = key.namespace
        return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}

    def of_manifest(self, kind: Kind, key: ObjectKey, created_at: str, manifest: Shape) -> Shape:
        """Return a manifest with the metadata that the API server adds."""
        head = self.head(kind, key, created_at)
        return {**manifest, **head, "metadata": {**manifest["metadata"], **head["metadata"]}}


@dataclass(frozen=True, slots=True)
class OwnerReference:
    """The owner of an object, which is deleted with it."""

    kind: Kind
    key: ObjectKey
    created_at: str

    def shape(self, lab: LabIdentity) -> Shape:
        """Return an entry of `metadata.ownerReferences`."""
        reference = {"apiVersion": self.kind.api_version, "kind": self.kind.name, "name": self.key.name}
        uid = lab.uid(self.kind, self.key, self.created_at)
        return {**reference, "uid": uid, "controller": True, "blockOwnerDeletion": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSurroundings:
    """Facts about a pod that it does not know itself."""

    created_at: str
    deleted_at: str | None
    host_address: str
    link: str | None
    """The node's end of its link; None if it uses its node's network."""
    written: Shape | None = None
    """Its manifest as JSON, if that is known; writing it takes a third of the time of `get pods`."""
    owner: OwnerReference | None = None
    """The ReplicaSet or DaemonSet that owns it."""
    started_at: str | None = None
    """When all its containers had started, or when that ended."""
    ready_at: str | None = None
    """When it became ready or unready; None, as above: never since its creation."""


def pod_shape(lab: LabIdentity, manifest: PodManifest, status: PodStatus, around: PodSurroundings) -> Shape:
    """Return a v1 Pod."""
    written = around.written or manifest.to_manifest()
    shape = lab.of_manifest(kinds.POD, manifest.key, around.created_at, written)
    if around.owner is not None:
        shape["metadata"]["ownerReferences"] = [around.owner.shape(lab)]
    if around.deleted_at is not None:
        shape["metadata"]["deletionTimestamp"] = around.deleted_at
    shape["spec"] = {**written["spec"], "nodeName": status.node}
    shape["status"] = without_nothing(
        {
            "phase": status.phase,
            "conditions": _pod_conditions(status, around),
            "hostIP": around.host_address,
            "podIP": status.address,
            "podIPs": [{"ip": address} for address in status.addresses],
            "startTime": status.started_at,
            "qosClass": qos_class(container.resources for container in manifest.spec.all_containers),
            "containerStatuses": [_container_status(one, shape["metadata"]["uid"]) for one in status.containers],
        }
    )
    own: PodOwnFacts = {
        "state": status.state,
        "restarts": status.restarts,
        "link": around.link,
        "pausePid": status.pause_pid,
        "pids": {container.name: container.pid for container in status.containers},
    }
    return {**shape, "testbed": own}


def _pod_conditions(status: PodStatus, around: PodSurroundings) -> list[Shape]:
    why = {} if status.ready else {"reason": "ContainersNotReady", "message": status.why_not_ready or status.state}
    started = status.phase != "Pending"
    since = {"lastTransitionTime": around.created_at}
    since_started = {"lastTransitionTime": around.started_at or around.created_at}
    since_ready = {"lastTransitionTime": around.ready_at or around.created_at}
    return [
        {"type": "PodScheduled", "status": "True", **since},
        {"type": "Initialized", "status": _truth(started), **since_started},
        {"type": "ContainersReady", "status": _truth(status.ready), **since_ready, **why},
        {"type": "Ready", "status": _truth(status.ready), **since_ready, **why},
    ]


def _container_status(container: ContainerStatus, pod_uid: str) -> Shape:
    ended = None
    if container.exit_code is not None:
        ended = {"terminated": {"exitCode": container.exit_code, "reason": container.ended}}
    if container.state == "running":
        state: Shape = {"running": without_nothing({"startedAt": container.started_at})}
    elif container.state == "terminated" and ended is not None:
        state = ended
    else:
        state = {"waiting": without_nothing({"reason": container.reason, "message": container.message})}
    return {
        "name": container.name,
        "image": container.image,
        # One of our recipes; nothing is pulled.
        "imageID": f"testbed://{container.image}",
        **({"containerID": f"testbed://{pod_uid}/{container.name}"} if container.started_at else {}),
        "state": state,
        "lastState": {} if ended is None or state is ended else ended,
        "ready": container.ready,
        "started": container.state == "running",
        "restartCount": container.restarts,
    }


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What every node reports about the machine that they all share."""

    kernel: str
    os_image: str
    boot_id: str
    version: str
    """The testbed's version."""


def node_shape(
    lab: LabIdentity, line: NodeStatus, created_at: str, labels: Mapping[str, str], host: HostFacts
) -> Shape:
    """Return a v1 Node; `labels`: those of the cluster file."""
    shape = lab.head(kinds.NODE, key_of(line["name"]), created_at)
    own_labels = node_labels(line["name"])
    shape["metadata"]["labels"] = {**own_labels, **labels}
    subnets = [one for one in (line["subnet"], line.get("ipv6_subnet")) if one]
    shape["spec"] = without_nothing({"podCIDR": line["subnet"], "podCIDRs": subnets})
    if line["drained"]:
        shape["spec"]["unschedulable"] = True
        shape["spec"]["taints"] = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    addresses = [one for one in (line["address"], line.get("ipv6_address")) if one]
    shape["status"] = {
        "addresses": [
            *({"type": "InternalIP", "address": one} for one in addresses),
            {"type": "Hostname", "address": line["name"]},
        ],
        "conditions": _node_conditions(line),
        "nodeInfo": {
            "machineID": line["name"],
            "systemUUID": shape["metadata"]["uid"],
            "bootID": host.boot_id,
            "kernelVersion": host.kernel,
            "osImage": host.os_image,
            "operatingSystem": "linux",
            "architecture": own_labels[ARCHITECTURE_LABEL],
            "containerRuntimeVersion": f"{COMPONENT}://{host.version}",
            "kubeletVersion": f"{COMPONENT}-{host.version}",
            "kubeProxyVersion": f"{COMPONENT}-{host.version}",
        },
    }
    own: NodeOwnFacts = {
        "backend": line["backend"],
        "device": line["device"],
        "datapath": line["datapath"],
        "agent": line["agent"],
        "peers": line["peers"],
        "warnings": line["warnings"],
    }
    if line.get("cordoned"):
        own["cordoned"] = True
    return {**shape, "testbed": own}


def _node_conditions(line: NodeStatus) -> list[Shape]:
    """Return readiness as the agent reports it; and flannel's own condition."""
    state = line["agent"]["state"]
    is_ready = state == "ready"
    reason, message = ("AgentReady", "the agent is ready") if is_ready else ("AgentNotReady", f"the agent is {state}")
    network = ("FlannelIsUp", "Flannel is running on this node") if is_ready else ("FlannelIsDown", message)
    return [
        {"type": "NetworkUnavailable", "status": _truth(not is_ready), "reason": network[0], "message": network[1]},
        {"type": "Ready", "status": _truth(is_ready), "reason": reason, "message": message},
    ]


def namespace_shape(lab: LabIdentity, namespace: Namespace, created_at: str, *, ends: bool) -> Shape:
    """Return a v1 Namespace."""
    shape = lab.of_manifest(kinds.NAMESPACE, namespace.key, created_at, namespace.to_manifest())
    return {**shape, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating" if ends else "Active"}}


def network_policy_shape(lab: LabIdentity, policy: NetworkPolicy, created_at: str) -> Shape:
    """Return a networking.k8s.io/v1 NetworkPolicy."""
    return lab.of_manifest(kinds.NETWORK_POLICY, policy.key, created_at, policy.to_manifest())


def service_shape(lab: LabIdentity, service: Service, created_at: str, ready_endpoints: int) -> Shape:
    """Return a v1 Service, with its numbers."""
    shape = lab.of_manifest(kinds.SERVICE, service.key, created_at, service.to_manifest())
    spec = service.spec
    addresses = list(spec.cluster_ips) or ([spec.cluster_ip] if spec.cluster_ip else [])
    families = [name for name, version in VERSIONS.items() if service.address_of(version) is not None]
    shape["spec"] |= {
        "type": spec.type,
        "clusterIP": spec.cluster_ip,
        "clusterIPs": addresses,
        "ipFamilies": list(spec.ip_families) or families or ["IPv4"],
        "ipFamilyPolicy": spec.ip_family_policy or "SingleStack",
        "sessionAffinity": spec.session_affinity,
        "ports": [
            without_nothing(
                {
                    "name": port.name,
                    "protocol": port.protocol,
                    "port": port.port,
                    "targetPort": port.target_port or port.port,
                    "nodePort": port.node_port,
                }
            )
            for port in spec.ports
        ],
    }
    outside = service.external_address
    shape["status"] = {"loadBalancer": {"ingress": [{"ip": str(outside)}]} if outside else {}}
    own: ServiceOwnFacts = {"readyEndpoints": ready_endpoints}
    return {**shape, "testbed": own}


def config_shape(lab: LabIdentity, kind: Kind, found: ConfigObject, created_at: str) -> Shape:
    """Return a v1 ConfigMap or Secret."""
    return lab.of_manifest(kind, found.key, created_at, found.to_manifest())


def endpoints_shape(
    lab: LabIdentity,
    service: Service,
    created_at: str,
    ready: Sequence[Sequence[Endpoint]],
    other: Sequence[Sequence[Endpoint]],
) -> Shape:
    """Return a v1 Endpoints: a subset for each port that has pods."""
    shape = lab.head(kinds.ENDPOINTS, service.key, created_at)
    shape["subsets"] = [
        without_nothing(
            {
                "addresses": [_endpoint_address(one) for one in here],
                "notReadyAddresses": [_endpoint_address(one) for one in there],
                "ports": [
                    without_nothing({"name": port.name, "port": [*here, *there][0].port, "protocol": port.protocol})
                ],
            }
        )
        for port, here, there in zip(service.spec.ports, ready, other, strict=True)
        if here or there
    ]
    return shape


def _endpoint_address(endpoint: Endpoint) -> Shape:
    target = {"kind": kinds.POD.name, "name": endpoint.pod.name, "namespace": endpoint.pod.namespace}
    return {"ip": str(endpoint.address), "nodeName": endpoint.node, "targetRef": target}


def event_shapes(lab: LabIdentity, events: Iterable[EventLine]) -> list[Shape]:
    """Return v1 Events, oldest first."""
    return [_event_shape(lab, one["at"], one["type"], one["object"], one["reason"], one["message"]) for one in events]


# An event does not change, and describe asks for all of them.
@lru_cache(maxsize=EVENTS_KEPT)
def _event_shape(lab: LabIdentity, at: str, level: str, thing: str, reason: str, message: str) -> Shape:
    word, _, name = thing.partition("/")
    about = next((kind for kind in KINDS if kind.singular == word), None)
    key = key_of(name or word)
    involved = {
        "kind": about.name if about else word.capitalize(),
        "apiVersion": about.api_version if about else "testbed/v1",
        "name": key.name,
    }
    if about is None or about.namespaced:
        involved["namespace"] = key.namespace
    which = uuid.uuid5(uuid.NAMESPACE_URL, "/".join((at, thing, reason, message)))
    own_key = ObjectKey(key.namespace, f"{key.name}.{which.hex[:16]}")
    shape = {
        **lab.head(kinds.EVENT, own_key, at),
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": level,
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": lab.name,
    }
    return WrittenOnce(shape)


def _truth(value: bool) -> str:
    return "True" if value else "False"


def without_nothing(shape: Mapping[str, Any]) -> Shape:
    """Remove fields without a value, as the API server does."""
    return {name: value for name, value in shape.items() if value not in (None, "", [])}
