"""Fields and kinds of Kubernetes' API that have no effect in a lab: accepted with a warning that explains why. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from testbed.cluster.config_objects import ConfigMap, ConfigMetadata, Secret
from testbed.cluster.daemon_set import DaemonSet, DaemonSetSpec
from testbed.cluster.deployment import Deployment
from testbed.cluster.manifest import (
    Container,
    Metadata,
    PodManifest,
    PodSecurityContext,
    PodSpec,
    SecurityContext,
    VolumeMount,
)
from testbed.cluster.manifest_model import holds_no_value
from testbed.cluster.namespace import Namespace, NamespaceMetadata
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.pod_template import TemplateMetadata
from testbed.cluster.probe import Probe
from testbed.cluster.replica_set import ReplicaSet
from testbed.cluster.resources import ResourceList
from testbed.cluster.service import Service, ServicePort, ServiceSpec
from testbed.cluster.validation import Source, model_in
from testbed.cluster.yaml_source import Path

Reason = str | Callable[[object], str | None]
"""Why it has no effect; or a function that decides by the value, and returns None if it does have one."""

_SERVER = "written by an API server"
_NO_ACCOUNTS = "a lab has no accounts"
_ALL_EQUAL = "all nodes are alike and accept every pod"
_NO_PRIORITY = "no pod is evicted for another"
_SANDBOX = "every container has the same sandbox"


def _preference(value: object) -> str | None:
    if isinstance(value, dict) and all(
        set(rules) <= {"preferredDuringSchedulingIgnoredDuringExecution"}
        for rules in value.values()
        if isinstance(rules, dict)
    ):
        return "a preference; pods go to the node with the fewest"
    return None


def _only(value: object, reason: str) -> Reason:
    return lambda given: reason if given == value else None


_OF_METADATA: Mapping[str, Reason] = dict.fromkeys(
    (
        *("clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
        *("generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid"),
    ),
    _SERVER,
)
_STATUS: Mapping[str, Reason] = {"status": "the lab has its own", "testbed": "the lab writes it"}

WITHOUT_MEANING: Mapping[type[BaseModel], Mapping[str, Reason]] = {
    Metadata: _OF_METADATA,
    ConfigMetadata: _OF_METADATA,
    ConfigMap: _STATUS,
    Secret: _STATUS,
    TemplateMetadata: {**_OF_METADATA, "namespace": "the namespace is that of the object"},
    NamespaceMetadata: _OF_METADATA,
    Namespace: {**_STATUS, "spec": _SERVER},
    PodManifest: _STATUS,
    Deployment: _STATUS,
    ReplicaSet: _STATUS,
    DaemonSet: _STATUS,
    Service: _STATUS,
    NetworkPolicy: _STATUS,
    PodSpec: {
        **dict.fromkeys(("automountServiceAccountToken", "serviceAccount", "serviceAccountName"), _NO_ACCOUNTS),
        **dict.fromkeys(("preemptionPolicy", "priority", "priorityClassName"), _NO_PRIORITY),
        **dict.fromkeys(("overhead", "runtimeClassName", "hostUsers"), _SANDBOX),
        "affinity": _preference,
        "enableServiceLinks": "Services are found by name",
        "hostIPC": _only(False, "it is the default"),
        "hostPID": _only(False, "it is the default"),
        "imagePullSecrets": "nothing is pulled",
        "os": _only({"name": "linux"}, "every node is Linux"),
        "schedulerName": "there is one scheduler",
        "tolerations": _ALL_EQUAL,
        "topologySpreadConstraints": "pods of a Deployment are spread over the nodes anyway",
    },
    Container: {
        "imagePullPolicy": "nothing is pulled",
        "resizePolicy": "resources are not changed",
        "stdin": "a container's input is empty",
        "stdinOnce": "a container's input is empty",
        "terminationMessagePath": "the log shows how a container ended",
        "terminationMessagePolicy": "the log shows how a container ended",
        "tty": "a container has no terminal; exec -it brings one",
    },
    ResourceList: {"ephemeral-storage": "a container's files have a size of their own"},
    SecurityContext: {
        **dict.fromkeys(("appArmorProfile", "procMount", "seLinuxOptions", "seccompProfile"), _SANDBOX),
        "windowsOptions": "every node is Linux",
    },
    PodSecurityContext: {
        **dict.fromkeys(("appArmorProfile", "seLinuxOptions", "seccompProfile"), _SANDBOX),
        "fsGroupChangePolicy": "volumes are empty at first",
        "supplementalGroupsPolicy": "images have no groups",
        "windowsOptions": "every node is Linux",
    },
    VolumeMount: {
        "mountPropagation": _only("None", "it is the default"),
        "recursiveReadOnly": "read-only mounts are always recursive",
    },
    Probe: {"terminationGracePeriodSeconds": "the pod's own is used"},
    DaemonSetSpec: {"revisionHistoryLimit": "a DaemonSet's former templates are not kept"},
    ServiceSpec: {
        "allocateLoadBalancerNodePorts": "a node port is chosen anyway",
        "healthCheckNodePort": "there is no load balancer outside",
        "internalTrafficPolicy": _only("Cluster", "it is the default"),
        "loadBalancerClass": "there is only one kind of load balancer",
        "trafficDistribution": "a preference; endpoints are chosen at random",
    },
    ServicePort: {"appProtocol": "packets are forwarded, not inspected"},
}
"""Model → key → why it has no effect."""
KINDS_WITHOUT_MEANING: Mapping[tuple[str, str], str] = {("v1", "ServiceAccount"): _NO_ACCOUNTS}
"""apiVersion and kind → why such objects have no effect."""


def leave_out(source: Source, model: type[BaseModel]) -> None:
    """Remove such fields from the document, with a warning for each that has a value."""
    source.replace_value(_left(source, model, source.document.value, ()))


def _left(source: Source, model: type[BaseModel], value: Any, path: Path) -> Any:  # noqa: ANN401 - plain data
    if isinstance(value, list):
        return [_left(source, model, item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    without = WITHOUT_MEANING.get(model, {})
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    kept = {}
    for key, inner in value.items():
        why = _reason(without[key], inner) if key in without else None
        if why is not None:
            if not holds_no_value(inner):
                source.warn((*path, key), f"ignored: {why}", at_key=True)
            continue
        inside = model_in(fields[key].annotation) if key in fields else None
        kept[key] = _left(source, inside, inner, (*path, key)) if inside is not None else inner
    return kept


def _reason(reason: Reason, value: object) -> str | None:
    return reason if isinstance(reason, str) else reason(value)
