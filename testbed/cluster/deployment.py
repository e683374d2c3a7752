"""The subset of Kubernetes' apps/v1 Deployment that the testbed honours."""

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from testbed.cluster.manifest import Metadata, PodManifest, PodSpec
from testbed.cluster.manifest_model import Annotations, LabelKey, LabelName, LabelValue, Model
from testbed.cluster.name_rules import check_count_or_percent, within, wrong
from testbed.cluster.object_key import ObjectKey

MAX_REPLICAS = 1000  # several times what a machine holds
TEMPLATE_HASH = "pod-template-hash"
"""The label by which Kubernetes tells the pods of one template from those of another."""
HASH_LENGTH = 8
DEFAULT_SHARE = "25%"
LONGEST_NAME = 63 - len("-") - HASH_LENGTH - len("-xxxxx")

CountOrPercent = Annotated[int | str, PlainValidator(check_count_or_percent)]


class LabelSelector(Model):
    """Which pods belong to it: those that have all these labels."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1)]


class RollingUpdate(Model):
    """How far a change may go above and below the wanted number of pods on its way."""

    max_surge: CountOrPercent = DEFAULT_SHARE
    """More than wanted; percents are rounded up."""
    max_unavailable: CountOrPercent = DEFAULT_SHARE
    """Fewer ready ones than wanted; percents are rounded down."""

    @model_validator(mode="after")
    def _one_must_move(self) -> "RollingUpdate":
        if self.max_surge in (0, "0%") and self.max_unavailable in (0, "0%"):
            raise wrong("nothing could ever change", "maxSurge and maxUnavailable 0", "one of them above 0")
        return self


class Strategy(Model):
    """How pods of an old template are replaced."""

    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate | None = None

    @model_validator(mode="after")
    def _update_belongs_to_rolling(self) -> "Strategy":
        if self.type == "Recreate" and self.rolling_update is not None:
            raise wrong("rollingUpdate belongs to type RollingUpdate", "type: Recreate", "one of them")
        return self


class TemplateMetadata(Model):
    """Labels of every pod of the template; names are given to them."""

    name: LabelName | None = None
    """Kubernetes allows it and does nothing with it."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class PodTemplate(Model):
    """What each pod is."""

    metadata: TemplateMetadata = Field(default_factory=TemplateMetadata)
    spec: PodSpec


class DeploymentSpec(Model):
    """How many pods of which kind."""

    selector: LabelSelector
    template: PodTemplate
    replicas: Annotated[int, within(0, MAX_REPLICAS)] = 1
    strategy: Strategy = Field(default_factory=Strategy)


class Deployment(Model):
    """An apps/v1 Deployment."""

    api_version: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def key(self) -> ObjectKey:
        """`metadata.namespace` and `metadata.name`."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def template_hash(self) -> str:
        """The same for equal templates, another one for others; a part of the pods' names."""
        text = json.dumps(self.spec.template.model_dump(mode="json"), sort_keys=True)
        # What runs is a part of the template, also where the cluster file says it and not the manifest.
        text += "".join(container.image for container in self.spec.template.spec.containers if container.stand_in)
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]

    @property
    def max_surge(self) -> int:
        """How many pods more than wanted there may be while pods are replaced."""
        return self._share("max_surge", math.ceil)

    @property
    def max_unavailable(self) -> int:
        """How many fewer ready pods than wanted there may be while pods are replaced.

        As in Kubernetes it is 1 where rounding has made both numbers 0.
        """
        share = self._share("max_unavailable", math.floor)
        return share if share or self.max_surge else 1

    def _share(self, field: str, rounded: Any) -> int:  # noqa: ANN401 - math.ceil or math.floor
        if self.spec.strategy.type == "Recreate":
            return 0 if field == "max_surge" else self.spec.replicas
        update = self.spec.strategy.rolling_update or RollingUpdate()
        value: int | str = getattr(update, field)
        if isinstance(value, int):
            return value
        return int(rounded(self.spec.replicas * int(value.removesuffix("%")) / 100))

    def pod(self, name: str, node: str) -> PodManifest:
        """A pod of the template."""
        template = self.spec.template
        labels = {**template.metadata.labels, TEMPLATE_HASH: self.template_hash}
        # Parts that were checked once need no second check.
        metadata = Metadata.model_construct(
            name=name,
            namespace=self.metadata.namespace,
            labels=labels,
            annotations=template.metadata.annotations,
        )
        pod = PodManifest.model_construct(api_version="v1", kind="Pod", metadata=metadata, spec=template.spec)
        return pod.on_node(node)

    def scaled(self, replicas: int) -> "Deployment":
        """The same with another number of pods."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"replicas": replicas})})

    def to_manifest(self) -> dict[str, Any]:
        """The deployment as a manifest again, without fields that have their default value."""
        manifest = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        manifest["spec"]["replicas"] = self.spec.replicas
        return {"apiVersion": self.api_version, "kind": self.kind, **manifest}
