"""The answers of `get`: the objects of each kind, in the order of the cluster file."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from ipaddress import IPv4Address
from pathlib import Path

from agent.lease import Lease
from testbed.cluster import kinds
from testbed.cluster.environment import ConfigKind
from testbed.cluster.kinds import Kind
from testbed.cluster.object_key import ObjectKey, Owner
from testbed.control.answers.objects import LeaseObject, LeaseSpec, NameObject, RouteTableObject
from testbed.errors import EtcdFailed
from testbed.lab.node import AgentState, LabNode
from testbed.places import PROJECT
from testbed.pods.pod import Pod
from testbed.pods.pod_state import rfc3339
from testbed.policies.policies import Policies
from testbed.services.endpoints import endpoints_of
from testbed.services.services import Services
from testbed.services.show import ready_pods
from testbed.supervisor.lab import Lab
from testbed.supervisor.owner_shapes import daemon_set_shape, deployment_shape, replica_set_shape
from testbed.supervisor.shapes import (
    HostFacts,
    LabIdentity,
    OwnerReference,
    PodSurroundings,
    Shape,
    config_shape,
    endpoints_shape,
    event_shapes,
    namespace_shape,
    network_policy_shape,
    node_shape,
    service_shape,
)
from testbed.supervisor.status import node_status
from testbed.workloads.progress import daemon_numbers, replica_failure, set_numbers

OWNERS = {kind.name: kind for kind in kinds.POD_OWNERS}
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identity_of(lab: Lab) -> LabIdentity:
    """Return what distinguishes this lab's objects from others'."""
    return LabIdentity(lab.state.name, lab.state.since)


@cache
def this_host() -> HostFacts:
    """Return what nodes report about this machine."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        system = "Linux"
    names = os.uname()
    boot_id = BOOT_ID.read_text().strip()
    return HostFacts(names.release, system, boot_id, metadata.version(PROJECT))


def nodes(lab: Lab) -> list[Shape]:
    """Return every node (`get nodes`)."""
    identity, host = identity_of(lab), this_host()
    return [
        node_shape(identity, node_status(lab, node, node.state()), node.created_at, node.labels, host)
        for node in lab.state.nodes.values()
    ]


def pods(lab: Lab) -> list[Shape]:
    """Return every pod (`get pods`)."""
    identity = identity_of(lab)
    return [_pod_shape(lab, identity, pod) for pod in lab.state.pods]


def pod(lab: Lab, name: str) -> Shape | None:
    """Return the pod of a name that is unique in the lab (`get pods NAME`); None: there is none."""
    found = lab.state.pods.named(name)
    return None if found is None else _pod_shape(lab, identity_of(lab), found)


def _pod_shape(lab: Lab, identity: LabIdentity, pod: Pod) -> Shape:
    status = pod.status()
    return lab.pod_shapes.shape(identity, pod, status, _around(lab, pod))


def _around(lab: Lab, pod: Pod) -> PodSurroundings:
    times = lab.state.pods.times(pod)
    return PodSurroundings(
        created_at=pod.created_at,
        deleted_at=pod.deleted_at,
        host_address=str(pod.node_address),
        link=pod.host_end,
        written=pod.written_manifest(),
        owner=_reference(lab, lab.workloads.owner_of(pod.key)),
        started_at=rfc3339(times.started.at) if times.started else None,
        ready_at=rfc3339(times.ready.at) if times.ready else None,
    )


def _reference(lab: Lab, owner: Owner | None) -> OwnerReference | None:
    created_at = None if owner is None else lab.workloads.created_at_of(owner)
    if owner is None or created_at is None:
        return None
    return OwnerReference(OWNERS[owner.kind], owner.key, created_at)


def deployments(lab: Lab) -> list[Shape]:
    """Return every Deployment (`get deployments`)."""
    identity, workloads, seen = identity_of(lab), lab.workloads, lab.workloads.seen()
    return [
        deployment_shape(
            identity,
            wanted,
            workloads.created_at_of(wanted.owner) or lab.state.since,
            workloads.progress(wanted, seen),
            workloads.sets_of(key),
        )
        for key, wanted in list(workloads.deployments.items())
    ]


def replica_sets(lab: Lab) -> list[Shape]:
    """Return every ReplicaSet, those of a Deployment newest first (`get replicasets`)."""
    identity, workloads, seen = identity_of(lab), lab.workloads, lab.workloads.seen()
    return [
        replica_set_shape(
            identity,
            one,
            set_numbers(one, seen.pods),
            _reference(lab, one.owner),
            [replica_failure(why)] if (why := workloads.unplaced.get(one.wanted.owner)) else [],
        )
        for one in sorted(workloads.sets.values(), key=lambda one: (str(one.deployment or one.key), -one.revision))
    ]


def daemon_sets(lab: Lab) -> list[Shape]:
    """Return every DaemonSet (`get daemonsets`)."""
    identity, workloads, seen = identity_of(lab), lab.workloads, lab.workloads.seen()
    return [
        daemon_set_shape(
            identity,
            wanted,
            workloads.created_at_of(wanted.owner) or lab.state.since,
            daemon_numbers(wanted, seen.pods.get(wanted.owner, ()), seen.nodes),
        )
        for wanted in list(workloads.daemon_sets.values())
    ]


def services(lab: Lab) -> list[Shape]:
    """Return every Service, with its numbers (`get services`)."""
    identity = identity_of(lab)
    return [
        service_shape(identity, service, _created(lab, lab.services, key), ready_pods(service, lab.services))
        for key, service in lab.services.numbered.items()
    ]


def namespaces(lab: Lab) -> list[Shape]:
    """Return every namespace (`get namespaces`)."""
    identity = identity_of(lab)
    return [namespace_shape(identity, one.wanted, one.created_at, ends=one.ends) for one in lab.state.namespaces]


def network_policies(lab: Lab) -> list[Shape]:
    """Return every NetworkPolicy (`get networkpolicies`)."""
    identity = identity_of(lab)
    return [
        network_policy_shape(identity, policy, _created(lab, lab.policies, key))
        for key, policy in lab.policies.applied.items()
    ]


def config_maps(lab: Lab) -> list[Shape]:
    """Return every ConfigMap (`get configmaps`)."""
    return _configs(lab, kinds.CONFIG_MAP, "ConfigMap")


def secrets(lab: Lab) -> list[Shape]:
    """Return every Secret, its values in base64 (`get secrets`)."""
    return _configs(lab, kinds.SECRET, "Secret")


def _configs(lab: Lab, kind: Kind, name: ConfigKind) -> list[Shape]:
    identity, configs = identity_of(lab), lab.state.configs
    return [
        config_shape(identity, kind, found, configs.created_at.get((name, key), lab.state.since))
        for key, found in configs.of_kind(name).items()
    ]


def endpoints(lab: Lab) -> list[Shape]:
    """Return the endpoints of every Service (`get endpoints`)."""
    identity, pods = identity_of(lab), lab.services.pods()
    return [
        endpoints_shape(identity, service, _created(lab, lab.services, key), *endpoints_of(service, pods))
        for key, service in lab.services.numbered.items()
    ]


def _created(lab: Lab, kept: Services | Policies, key: ObjectKey) -> str:
    # It is read without a lock: objects just added or removed may have no time.
    return kept.created_at.get(key, lab.state.since)


def events(lab: Lab) -> list[Shape]:
    """Return all events, oldest first (`get events`)."""
    return event_shapes(identity_of(lab), lab.state.events)


def leases(lab: Lab) -> list[LeaseObject]:
    """Return every lease in etcd (`get leases`). Raises EtcdFailed while etcd does not answer."""
    names = {node.address: node.name for node in lab.state.nodes.values()}
    states = {node.name: node.state() for node in lab.state.nodes.values()}
    try:
        held = lab.state.registry.leases()
    except EtcdFailed as failure:
        raise EtcdFailed(f"etcd: {failure}") from failure
    return [_lease(lease, names, states, lab) for lease in held]


def _lease(
    lease: Lease, names: Mapping[IPv4Address, str], states: Mapping[str, AgentState | None], lab: Lab
) -> LeaseObject:
    owner = names.get(lease.attrs.public_ip)
    own = (states.get(owner) or {}).get("lease") if owner else None
    spec: LeaseSpec = {
        "subnet": str(lease.subnet.ipv4),
        "publicIP": str(lease.attrs.public_ip),
        "backendType": lease.attrs.backend_type or lab.state.overlay.backend,
        "node": owner,
    }
    if lease.subnet.ipv6:
        spec["ipv6Subnet"] = str(lease.subnet.ipv6)
    if lease.attrs.public_ipv6:
        spec["publicIPv6"] = str(lease.attrs.public_ipv6)
    return {
        "apiVersion": kinds.LEASE.api_version,
        "kind": kinds.LEASE.name,
        "metadata": {"name": lease.subnet.key, "resourceVersion": str(lease.mod_revision)},
        "spec": spec,
        "status": {
            "reservation": lease.etcd_lease_id == 0,
            "etcdLease": f"{lease.etcd_lease_id:x}" if lease.etcd_lease_id else None,
            "secondsLeft": own.get("seconds_left") if own else _seconds_left(lease, lab),
        },
    }


def _seconds_left(lease: Lease, lab: Lab) -> int | None:
    """Return what etcd says of a lease whose agent does not."""
    if lease.etcd_lease_id == 0:
        return None
    try:
        return lab.state.registry.etcd.seconds_left(lease.etcd_lease_id)
    except EtcdFailed:
        return None


def routes(lab: Lab) -> list[RouteTableObject]:
    """Return each node's kernel routes and its agent's own forwarding table (`get routes`)."""
    return [_routes(node, node.state()) for node in lab.state.nodes.values()]


def _routes(node: LabNode, state: AgentState | None) -> RouteTableObject:
    kernel = sorted(node.kernel.routes(), key=lambda route: (route.destination, route.metric))
    if node.ipv6_address is not None:
        kernel += sorted(node.kernel.routes(6), key=lambda route: (route.destination, route.metric))
    return {
        "apiVersion": kinds.ROUTE_TABLE.api_version,
        "kind": kinds.ROUTE_TABLE.name,
        "metadata": {"name": node.name},
        "status": {
            "kernel": [
                {
                    "destination": str(route.destination),
                    "device": route.device,
                    "gateway": str(route.gateway) if route.gateway else None,
                    "scope": route.scope,
                    "type": route.kind,
                    "source": str(route.source) if route.source else None,
                    "metric": route.metric,
                }
                for route in kernel
            ],
            "forwarding": state["forwarding"] if state else None,
        },
    }


def names(lab: Lab) -> list[NameObject]:
    """Return every record of the cluster's DNS, by name (`get names`); none in a lab without DNS."""
    return [
        {
            "apiVersion": kinds.NAME.api_version,
            "kind": kinds.NAME.name,
            "metadata": {"name": one.name},
            "spec": {"type": one.type, "data": one.data},
        }
        for one in lab.names.records()
    ]
