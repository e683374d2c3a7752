"""Deployments, ReplicaSets and DaemonSets in `describe`."""

from collections.abc import Iterable, Sequence

from testbed.cluster.object_key import key_of
from testbed.cluster.pod_template import PodOwner
from testbed.control.answers.lab import Description
from testbed.lab.events import Events
from testbed.pods.pod_state import rfc3339
from testbed.workloads.progress import Condition, daemon_numbers, replica_failure, set_numbers
from testbed.workloads.seen import KeptSet
from testbed.workloads.workloads import Workloads


def describe_deployment(name: str, workloads: Workloads, events: Events) -> Description:
    """Return everything about one Deployment, as headings and values. Raises KeyError."""
    wanted = workloads.deployments[key_of(name)]
    progress, spec = workloads.progress(wanted, workloads.seen()), wanted.spec
    numbers, strategy = progress.numbers, wanted.spec.strategy.type
    moves = f", at most {wanted.max_surge} more and {wanted.max_unavailable} fewer than desired"
    return {
        **_head(wanted),
        "Replicas": f"{spec.replicas} desired, {numbers.replicas} current, {numbers.updated} updated, "
        f"{numbers.ready} ready, {numbers.available} available",
        "Strategy": strategy + (moves if strategy == "RollingUpdate" else ""),
        "Paused": True if spec.paused else None,
        "Conditions": _conditions(progress.conditions),
        "ReplicaSets": {one.key.name: _set(one) for one in workloads.sets_of(wanted.key)},
        **_rest(wanted, workloads, events),
    }


def describe_replica_set(name: str, workloads: Workloads, events: Events) -> Description:
    """Return everything about one ReplicaSet, as headings and values. Raises KeyError."""
    one = workloads.sets[key_of(name)]
    numbers, unplaced = set_numbers(one, workloads.seen().pods), workloads.unplaced.get(one.wanted.owner)
    return {
        **_head(one.wanted),
        "Controlled by": f"{one.owner}, revision {one.revision}" if one.owner else None,
        "Replicas": f"{one.replicas} desired, {numbers.replicas} current, {numbers.ready} ready",
        "Conditions": _conditions([replica_failure(unplaced)] if unplaced else []),
        **_rest(one.wanted, workloads, events),
    }


def describe_daemon_set(name: str, workloads: Workloads, events: Events) -> Description:
    """Return everything about one DaemonSet, as headings and values. Raises KeyError."""
    wanted, seen = workloads.daemon_sets[key_of(name)], workloads.seen()
    numbers = daemon_numbers(wanted, seen.pods.get(wanted.owner, ()), seen.nodes)
    unplaced = workloads.unplaced.get(wanted.owner)
    return {
        **_head(wanted),
        "Node selector": wanted.spec.template.spec.node_selector or None,
        "Nodes": f"{numbers.desired} desired, {numbers.current} current, {numbers.updated} updated, "
        f"{numbers.ready} ready, {numbers.available} available, {numbers.misscheduled} misscheduled",
        "Update strategy": wanted.spec.update_strategy.type,
        "Not placed": unplaced.why if unplaced else None,
        **_rest(wanted, workloads, events),
    }


def names_of(workloads: Workloads, kind: str) -> Sequence[str]:
    """Return the names of all objects of a kind."""
    return [str(one.key) for one in workloads.owners() if one.kind == kind]


def _head(wanted: PodOwner) -> Description:
    return {
        "Name": str(wanted.key),
        "Labels": wanted.metadata.labels or None,
        "Selector": wanted.spec.selector.match_labels,
    }


def _rest(wanted: PodOwner, workloads: Workloads, events: Events) -> Description:
    template = wanted.spec.template
    key, value = next(iter(wanted.spec.selector.match_labels.items()))
    return {
        "Template": {
            "labels": template.metadata.labels,
            "containers": {container.name: container.image for container in template.spec.containers},
        },
        "Pods": {
            str(pod.key): f"{pod.status().node}, {pod.status().address or 'no address yet'}, {pod.status().state}"
            for pod in workloads.pods_of(wanted.owner)
        },
        "Look inside": [f"get pods -l {key}={value}{wanted.key.option}"],
        "Events": events.about(f"{wanted.owner}"),
    }


def _set(one: KeptSet) -> str:
    return f"revision {one.revision}, {one.replicas} desired"


def _conditions(conditions: Iterable[Condition]) -> dict[str, str]:
    return {
        one.type: f"{one.status} since {rfc3339(one.changed_at)}, {one.reason}: {one.message}" for one in conditions
    }
