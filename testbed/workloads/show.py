"""Deployments and namespaces as `describe` shows them."""

from collections.abc import Mapping
from typing import Any

from testbed.cluster.object_key import key_of
from testbed.control.answers.lab import Description
from testbed.lab.events import Events
from testbed.lab.namespaces import Namespaces
from testbed.workloads.deployment_keeper import DeploymentKeeper
from testbed.workloads.keeper import Keeper
from testbed.workloads.workloads import Workloads

Object = dict[str, Any]


def describe_deployment(name: str, keeper: DeploymentKeeper, workloads: Workloads, events: Events) -> Description:
    """Everything about one Deployment, as headings and values. Raises KeyError."""
    wanted = workloads.deployments[key_of(name)]
    numbers = keeper.numbers(key_of(name))
    strategy = wanted.spec.strategy.type
    rolling = strategy == "RollingUpdate"
    return {
        "Name": name,
        "Labels": wanted.metadata.labels or None,
        "Selector": wanted.spec.selector.match_labels,
        "Replicas": f"{wanted.spec.replicas} wanted, {numbers['replicas']} there, {numbers['readyReplicas']} ready, "
        f"{numbers['updatedReplicas']} of the present template",
        "Strategy": f"{strategy}, at most {wanted.max_surge} more and {wanted.max_unavailable} fewer than wanted"
        if rolling
        else strategy,
        "Template": {
            "labels": wanted.spec.template.metadata.labels,
            "containers": {container.name: container.image for container in wanted.spec.template.spec.containers},
        },
        "Pods": {
            pod.name: f"{pod.status().node}, {pod.status().address or 'no address yet'}, {pod.status().state}"
            for pod in workloads.pods_of(key_of(name))
        },
        "Look inside": [f"get pods -l {key}={value}" for key, value in _first(wanted.spec)],
        "Events": events.about(f"deployment/{name}"),
    }


def describe_namespace(name: str, namespaces: Namespaces, keepers: Mapping[str, Keeper]) -> Description:
    """Return everything about one namespace, as headings and values. Raises KeyError."""
    known = namespaces.get(name)
    if known is None:
        raise KeyError(name)
    inside = {kind: sum(key.namespace == name for key in keeper.wanted()) for kind, keeper in keepers.items()}
    return {
        "Name": name,
        "Labels": known.wanted.labels,
        "Status": "Terminating" if known.ends else "Active",
        "Created": known.created_at,
        "Objects": {kind: number for kind, number in inside.items() if number} or "none",
        "Look inside": [f"get all -n {name}"],
    }


def _first(spec: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a DeploymentSpec
    return list(spec.selector.match_labels.items())[:1]
