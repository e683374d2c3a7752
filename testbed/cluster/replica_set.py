"""The subset of Kubernetes' apps/v1 ReplicaSet that the testbed supports; a Deployment makes one for each template."""

from typing import Any, Literal

from testbed.cluster.deployment import Deployment
from testbed.cluster.manifest import Metadata
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.pod_template import LabelSelector, PodOwner, Replicas, TemplateSpec

TEMPLATE_HASH = "pod-template-hash"
"""The label that distinguishes the pods of one template from those of another."""


class ReplicaSetSpec(TemplateSpec):
    """The number of pods, and their template."""

    replicas: Replicas = 1


class ReplicaSet(PodOwner):
    """An apps/v1 ReplicaSet: a changed template affects only new pods."""

    kind: Literal["ReplicaSet"]
    spec: ReplicaSetSpec

    @property
    def template_hash(self) -> str:
        """Return the hash of the template that a Deployment made it for; empty for one without a Deployment."""
        return self.spec.template.metadata.labels.get(TEMPLATE_HASH, "")

    def scaled(self, replicas: int) -> "ReplicaSet":
        """Return the same with another number of pods."""
        return self._with("replicas", replicas)

    def available_after(self, seconds: int) -> "ReplicaSet":
        """Return the same with another `minReadySeconds`."""
        return self if self.spec.min_ready_seconds == seconds else self._with("min_ready_seconds", seconds)

    def _with(self, field: str, value: int) -> "ReplicaSet":
        return self.model_copy(update={"spec": self.spec.model_copy(update={field: value})})

    def to_manifest(self) -> dict[str, Any]:
        """Return the ReplicaSet as a manifest, without fields that have their default value."""
        manifest = super().to_manifest()
        manifest["spec"]["replicas"] = self.spec.replicas
        return manifest


def replica_set_of(deployment: Deployment, key: ObjectKey, template_hash: str, replicas: int) -> ReplicaSet:
    """Return the ReplicaSet of a Deployment's template."""
    label = {TEMPLATE_HASH: template_hash}
    template = deployment.spec.template.with_labels(label)
    # Parts already checked need no second check.
    metadata = Metadata.model_construct(
        name=key.name, namespace=key.namespace, labels=template.metadata.labels, annotations={}
    )
    selector = LabelSelector.model_construct(match_labels={**deployment.spec.selector.match_labels, **label})
    spec = ReplicaSetSpec.model_construct(
        selector=selector,
        template=template,
        min_ready_seconds=deployment.spec.min_ready_seconds,
        replicas=replicas,
    )
    return ReplicaSet.model_construct(api_version="apps/v1", kind="ReplicaSet", metadata=metadata, spec=spec)
