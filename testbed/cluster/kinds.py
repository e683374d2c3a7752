"""Every kind of object in a lab: its names, its model and checks, its columns.

Light: every verb loads this. A running lab's functions for a kind (`get`, `describe`) are registered in
`testbed.supervisor.kinds`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbed.cluster import columns
from testbed.cluster.columns import Column
from testbed.spelling import meant

if TYPE_CHECKING:
    from testbed.cluster.manifest_model import Model
    from testbed.cluster.problems import Problem
    from testbed.cluster.validation import Source

    Check = Callable[[Source, Any], Iterator[Problem]]

ALL = "all"
"""Accepted by `get` besides kinds: the most used ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of object."""

    name: str
    """As in `kind:`."""
    api_version: str
    """As in `apiVersion:`; `testbed/v1` for kinds that Kubernetes does not have."""
    singular: str
    plural: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    """Whether its objects are in a namespace."""
    columns: tuple[Column, ...] = ()
    """Columns of `get`; without any it has its own format."""
    manifest: "Callable[[], tuple[type[Model], Check]] | None" = None
    """Imports the manifest's model, which is heavy, and its checks; None: it cannot be applied or deleted."""
    described: bool = False
    """Whether `describe` shows it."""
    in_all: bool = False
    """Whether `get all` shows it."""

    @property
    def words(self) -> tuple[str, ...]:
        """Return all its names on a command line."""
        return (self.plural, self.singular, *self.short_names)


def _pod() -> "tuple[type[Model], Check]":
    from testbed.cluster.manifest import PodManifest
    from testbed.cluster.pod_checks import check_pod

    return PodManifest, check_pod


def _deployment() -> "tuple[type[Model], Check]":
    from testbed.cluster.deployment import Deployment
    from testbed.cluster.pod_checks import check_deployment

    return Deployment, check_deployment


def _replica_set() -> "tuple[type[Model], Check]":
    from testbed.cluster.pod_checks import check_replica_set
    from testbed.cluster.replica_set import ReplicaSet

    return ReplicaSet, check_replica_set


def _daemon_set() -> "tuple[type[Model], Check]":
    from testbed.cluster.daemon_set import DaemonSet
    from testbed.cluster.pod_checks import check_daemon_set

    return DaemonSet, check_daemon_set


def _namespace() -> "tuple[type[Model], Check]":
    from testbed.cluster.namespace import Namespace, check_namespace

    return Namespace, check_namespace


def _service() -> "tuple[type[Model], Check]":
    from testbed.cluster.service import Service
    from testbed.cluster.service_checks import check_service

    return Service, check_service


def _network_policy() -> "tuple[type[Model], Check]":
    from testbed.cluster.network_policy import NetworkPolicy, check_network_policy

    return NetworkPolicy, check_network_policy


def _config_map() -> "tuple[type[Model], Check]":
    from testbed.cluster.config_objects import ConfigMap, check_config_map

    return ConfigMap, check_config_map


def _secret() -> "tuple[type[Model], Check]":
    from testbed.cluster.config_objects import Secret, check_secret

    return Secret, check_secret


NODE = Kind(
    name="Node",
    api_version="v1",
    singular="node",
    plural="nodes",
    short_names=("no",),
    namespaced=False,
    columns=columns.NODE_COLUMNS,
    described=True,
    in_all=True,
)
POD = Kind(
    name="Pod",
    api_version="v1",
    singular="pod",
    plural="pods",
    short_names=("po",),
    columns=columns.POD_COLUMNS,
    manifest=_pod,
    described=True,
    in_all=True,
)
DEPLOYMENT = Kind(
    name="Deployment",
    api_version="apps/v1",
    singular="deployment",
    plural="deployments",
    short_names=("deploy",),
    columns=columns.DEPLOYMENT_COLUMNS,
    manifest=_deployment,
    described=True,
    in_all=True,
)
REPLICA_SET = Kind(
    name="ReplicaSet",
    api_version="apps/v1",
    singular="replicaset",
    plural="replicasets",
    short_names=("rs",),
    columns=columns.REPLICA_SET_COLUMNS,
    manifest=_replica_set,
    described=True,
    in_all=True,
)
DAEMON_SET = Kind(
    name="DaemonSet",
    api_version="apps/v1",
    singular="daemonset",
    plural="daemonsets",
    short_names=("ds",),
    columns=columns.DAEMON_SET_COLUMNS,
    manifest=_daemon_set,
    described=True,
    in_all=True,
)
SERVICE = Kind(
    name="Service",
    api_version="v1",
    singular="service",
    plural="services",
    short_names=("svc",),
    columns=columns.SERVICE_COLUMNS,
    manifest=_service,
    described=True,
    in_all=True,
)
CONFIG_MAP = Kind(
    name="ConfigMap",
    api_version="v1",
    singular="configmap",
    plural="configmaps",
    short_names=("cm",),
    columns=columns.CONFIG_MAP_COLUMNS,
    manifest=_config_map,
    described=True,
)
SECRET = Kind(
    name="Secret",
    api_version="v1",
    singular="secret",
    plural="secrets",
    columns=columns.SECRET_COLUMNS,
    manifest=_secret,
    described=True,
)
NAMESPACE = Kind(
    name="Namespace",
    api_version="v1",
    singular="namespace",
    plural="namespaces",
    short_names=("ns",),
    namespaced=False,
    columns=columns.NAMESPACE_COLUMNS,
    manifest=_namespace,
    described=True,
)
NETWORK_POLICY = Kind(
    name="NetworkPolicy",
    api_version="networking.k8s.io/v1",
    singular="networkpolicy",
    plural="networkpolicies",
    short_names=("netpol",),
    columns=columns.NETWORK_POLICY_COLUMNS,
    manifest=_network_policy,
    described=True,
)
ENDPOINTS = Kind(
    name="Endpoints",
    api_version="v1",
    singular="endpoint",
    plural="endpoints",
    short_names=("ep",),
    columns=columns.ENDPOINTS_COLUMNS,
    described=True,
)
EVENT = Kind(
    name="Event",
    api_version="v1",
    singular="event",
    plural="events",
    short_names=("ev",),
    columns=columns.EVENT_COLUMNS,
)
NAME = Kind(
    name="Name",
    api_version="testbed/v1",
    singular="name",
    plural="names",
    short_names=("dns",),
    namespaced=False,
    columns=columns.NAME_COLUMNS,
)
LEASE = Kind(
    name="Lease",
    api_version="testbed/v1",
    singular="lease",
    plural="leases",
    namespaced=False,
    columns=columns.LEASE_COLUMNS,
)
ROUTE_TABLE = Kind(name="RouteTable", api_version="testbed/v1", singular="route", plural="routes", namespaced=False)

KINDS = (
    NODE,
    POD,
    REPLICA_SET,
    DEPLOYMENT,
    DAEMON_SET,
    SERVICE,
    CONFIG_MAP,
    SECRET,
    NAMESPACE,
    NETWORK_POLICY,
    ENDPOINTS,
    EVENT,
    NAME,
    LEASE,
    ROUTE_TABLE,
)
"""In the order of the help."""
POD_OWNERS = (DEPLOYMENT, REPLICA_SET, DAEMON_SET)
"""Kinds that create pods: `exec deploy/web` and `logs ds/log` mean one of them."""
MANIFESTS = {(kind.api_version, kind.name): kind for kind in KINDS if kind.manifest is not None}
"""Kinds that can be applied, by apiVersion and kind."""
BY_WORD = {word: kind for kind in KINDS for word in kind.words}
BY_PLURAL = {kind.plural: kind for kind in KINDS}


def no_such_kind(word: str, *wanted: str) -> str:
    """Return the error for a word that is not a kind; `wanted` are the valid words."""
    near = meant(word, [*BY_WORD, ALL])
    hint = f" - did you mean {near[0]}?" if near and word not in BY_WORD else ""
    want = f"{', '.join(wanted[:-1])} or {wanted[-1]}" if wanted[1:] else wanted[0]
    return f"no such kind: {word} (want {want}){hint}"
