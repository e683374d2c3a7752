"""Deployments as `get` and `describe` show them, and whose a pod is."""

from typing import TYPE_CHECKING, Any

from testbed.workloads.deployment_keeper import DeploymentKeeper

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab

Object = dict[str, Any]


def deployments(lab: "Lab") -> list[Object]:
    """Every Deployment, in the order in which they were applied."""
    keeper = DeploymentKeeper(lab, lab.workloads)
    return [{**wanted.to_manifest(), "status": keeper.numbers(name)} for name, wanted in keeper.wanted().items()]


def owner_references(lab: "Lab", pod: str) -> Object:
    """What of a pod's metadata says whose it is; nothing for a pod of its own."""
    owner = lab.workloads.owner_of(pod)
    if owner is None:
        return {}
    return {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "controller": True}]}


def describe_deployment(lab: "Lab", name: str) -> Object:
    """Everything about one Deployment, as headings and values. Raises KeyError."""
    wanted = lab.workloads.deployments[name]
    numbers = DeploymentKeeper(lab, lab.workloads).numbers(name)
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
            for pod in lab.workloads.pods_of(name)
        },
        "Look inside": [f"get pods -l {key}={value}" for key, value in _first(wanted.spec)],
        "Events": events_of(lab, f"deployment/{name}"),
    }


def events_of(lab: "Lab", subject: str) -> list[str]:
    """The last things that happened to an object, a line each."""
    return [f"{e.at} {e.type} {e.reason}: {e.message}" for e in list(lab.events) if e.object == subject][-10:]


def _first(spec: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - a DeploymentSpec
    return list(spec.selector.match_labels.items())[:1]
