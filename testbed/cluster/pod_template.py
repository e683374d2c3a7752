"""The common parts of apps/v1 objects that create pods: a template, and labels that select its pods."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from testbed.cluster.manifest import Metadata, NamespacedObject, PodManifest, PodSpec
from testbed.cluster.manifest_model import Annotations, LabelKey, LabelName, LabelValue, Model
from testbed.cluster.name_rules import MAX_LABEL, check_count_or_percent, within
from testbed.cluster.object_key import ObjectKey, Owner

MAX_REPLICAS = 1000  # several times a machine's capacity
HASH_LENGTH = 8
LONGEST_WAIT_S = 3600

CountOrPercent = Annotated[int | str, PlainValidator(check_count_or_percent)]
NO_PODS = (0, "0%")
Replicas = Annotated[int, within(0, MAX_REPLICAS)]


class LabelSelector(Model):
    """Selects the pods that have all these labels."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1)]


class TemplateMetadata(Model):
    """Labels of every pod of the template; their names are generated."""

    name: LabelName | None = None
    """Kubernetes allows it and ignores it."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class PodTemplate(Model):
    """The description of each pod."""

    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: PodSpec

    @cached_property
    def hash(self) -> str:
        """Return a hash that is equal for equal templates; a part of names and labels."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        # The recipe is a part of the template, even if the cluster file sets it and not the manifest.
        text += "".join(container.image for container in self.spec.containers if container.stand_in)
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]

    def with_labels(self, more: Mapping[str, str]) -> "PodTemplate":
        """Return the same with more labels."""
        metadata = self.metadata.model_copy(update={"labels": {**self.metadata.labels, **more}})
        # Not a copy: that would keep the hash.
        return PodTemplate.model_construct(metadata=metadata, spec=self.spec)


class TemplateSpec(Model):
    """The selected pods, and their template."""

    selector: LabelSelector
    template: PodTemplate
    min_ready_seconds: Annotated[int, within(0, LONGEST_WAIT_S)] = 0
    """How long a pod must be ready before it counts as available."""


class PodOwner(NamespacedObject):
    """An object that creates pods: a Deployment through ReplicaSets, a ReplicaSet, a DaemonSet."""

    api_version: Literal["apps/v1"]
    kind: str
    metadata: Metadata
    spec: TemplateSpec

    @property
    def owner(self) -> Owner:
        """Return it as the owner of its pods."""
        return Owner(self.kind, self.key)


def generated_name(owner: str, suffix: str) -> str:
    """Return the name of an object that an owner makes; a long owner's name is cut, as in Kubernetes."""
    return f"{owner}-"[: MAX_LABEL - len(suffix)] + suffix


def pod_of(template: PodTemplate, key: ObjectKey, node: str) -> PodManifest:
    """Return a pod of the template."""
    # Parts already checked need no second check.
    metadata = Metadata.model_construct(
        name=key.name,
        namespace=key.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
    )
    pod = PodManifest.model_construct(api_version="v1", kind="Pod", metadata=metadata, spec=template.spec)
    return pod.on_node(node)


def with_rolling_update(given: object) -> object:
    """Return a strategy with the part that its default type has, so that two ways to write it are equal."""
    if not isinstance(given, dict) or given.get("type") not in (None, "", "RollingUpdate"):
        return given
    return given if given.get("rollingUpdate") is not None else {**given, "rollingUpdate": {}}


def share(value: int | str, of: int, rounded: Callable[[float], int]) -> int:
    """Return a number of pods, given as one or as a percentage of `of`."""
    return value if isinstance(value, int) else rounded(of * int(value.removesuffix("%")) / 100)
