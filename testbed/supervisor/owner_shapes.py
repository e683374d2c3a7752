"""Deployments, ReplicaSets and DaemonSets in Kubernetes' own shapes. Pure: values in, JSON out."""

from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from testbed.cluster import kinds
from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import REVISION, Deployment
from testbed.control.answers.objects import DeploymentFacts
from testbed.pods.pod_state import rfc3339
from testbed.supervisor.shapes import LabIdentity, OwnerReference, Shape, without_nothing
from testbed.workloads.progress import Condition, DaemonNumbers, PodNumbers, Progress
from testbed.workloads.seen import KeptSet


def deployment_shape(
    lab: LabIdentity, wanted: Deployment, created_at: str, progress: Progress, sets: Sequence[KeptSet]
) -> Shape:
    """Return an apps/v1 Deployment; `sets` are its ReplicaSets."""
    shape = lab.of_manifest(kinds.DEPLOYMENT, wanted.key, created_at, wanted.to_manifest())
    current = next((one for one in sets if one.key.name == progress.current), None)
    if current is not None:
        _annotate(shape, current)
    numbers, replicas = progress.numbers, wanted.spec.replicas
    # With its defaults, as clients expect of an API server.
    shape["spec"] |= {
        "strategy": _plain(wanted.spec.strategy),
        "revisionHistoryLimit": wanted.spec.revision_history_limit,
        "progressDeadlineSeconds": wanted.spec.progress_deadline_seconds,
    }
    shape["status"] = {
        "replicas": numbers.replicas,
        "updatedReplicas": numbers.updated,
        "readyReplicas": numbers.ready,
        "availableReplicas": numbers.available,
        "unavailableReplicas": max(0, max(numbers.replicas, replicas) - numbers.available),
        "conditions": _conditions(progress.conditions, updates=True),
    }
    own: DeploymentFacts = {"outdatedReplicas": numbers.outdated}
    return {**shape, "testbed": own}


def replica_set_shape(
    lab: LabIdentity,
    one: KeptSet,
    numbers: PodNumbers,
    owner: OwnerReference | None,
    conditions: Iterable[Condition],
) -> Shape:
    """Return an apps/v1 ReplicaSet; `owner` is the Deployment that made it."""
    shape = lab.of_manifest(kinds.REPLICA_SET, one.key, one.created_at, one.wanted.to_manifest())
    if owner is not None:
        shape["metadata"]["ownerReferences"] = [owner.shape(lab)]
        _annotate(shape, one)
    shape["status"] = without_nothing(
        {
            "replicas": numbers.replicas,
            "fullyLabeledReplicas": numbers.replicas,
            "readyReplicas": numbers.ready,
            "availableReplicas": numbers.available,
            "conditions": _conditions(conditions, updates=False),
        }
    )
    return shape


def daemon_set_shape(lab: LabIdentity, wanted: DaemonSet, created_at: str, numbers: DaemonNumbers) -> Shape:
    """Return an apps/v1 DaemonSet."""
    shape = lab.of_manifest(kinds.DAEMON_SET, wanted.key, created_at, wanted.to_manifest())
    shape["spec"]["updateStrategy"] = _plain(wanted.spec.update_strategy)
    shape["status"] = {
        "desiredNumberScheduled": numbers.desired,
        "currentNumberScheduled": numbers.current,
        "updatedNumberScheduled": numbers.updated,
        "numberReady": numbers.ready,
        "numberAvailable": numbers.available,
        "numberUnavailable": numbers.desired - numbers.available,
        "numberMisscheduled": numbers.misscheduled,
    }
    return shape


def _plain(model: BaseModel) -> Shape:
    """Return a part of a manifest with its defaults."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _annotate(shape: Shape, one: KeptSet) -> None:
    annotations = {**shape["metadata"].get("annotations", {}), REVISION: str(one.revision)}
    shape["metadata"] = {**shape["metadata"], "annotations": annotations}


def _conditions(conditions: Iterable[Condition], *, updates: bool) -> list[Shape]:
    return [
        {
            "type": one.type,
            "status": one.status,
            "reason": one.reason,
            "message": one.message,
            "lastTransitionTime": rfc3339(one.changed_at),
            **({"lastUpdateTime": rfc3339(one.updated_at)} if updates else {}),
        }
        for one in conditions
    ]
