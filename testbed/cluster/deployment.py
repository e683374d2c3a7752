"""The subset of Kubernetes' apps/v1 Deployment that the testbed supports."""

import math
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from testbed.cluster.manifest import Metadata
from testbed.cluster.manifest_model import Model
from testbed.cluster.name_rules import within, wrong
from testbed.cluster.pod_template import (
    LONGEST_WAIT_S,
    MAX_REPLICAS,
    NO_PODS,
    CountOrPercent,
    PodOwner,
    Replicas,
    TemplateSpec,
    share,
    with_rolling_update,
)

DEFAULT_SHARE = "25%"
REVISION = "deployment.kubernetes.io/revision"
"""The annotation with the number of a Deployment's rollouts."""


class RollingUpdate(Model):
    """How far an update may go above and below the desired number of pods."""

    max_surge: CountOrPercent = DEFAULT_SHARE
    """More than desired; percentages are rounded up."""
    max_unavailable: CountOrPercent = DEFAULT_SHARE
    """Fewer available ones than desired; percentages are rounded down."""

    @model_validator(mode="after")
    def _one_must_move(self) -> "RollingUpdate":
        if self.max_surge in NO_PODS and self.max_unavailable in NO_PODS:
            raise wrong("nothing could ever change", "maxSurge and maxUnavailable 0", "one of them above 0")
        return self


class Strategy(Model):
    """How pods of an old template are replaced."""

    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate | None = None

    @model_validator(mode="before")
    @classmethod
    def _rolls_by_default(cls, given: object) -> object:
        return with_rolling_update(given)

    @model_validator(mode="after")
    def _update_belongs_to_rolling(self) -> "Strategy":
        if self.type == "Recreate" and self.rolling_update is not None:
            raise wrong("rollingUpdate belongs to type RollingUpdate", "type: Recreate", "one of them")
        return self


class DeploymentSpec(TemplateSpec):
    """The number of pods, and their template."""

    replicas: Replicas = 1
    strategy: Strategy = Field(default_factory=partial(Strategy.model_validate, {}))
    revision_history_limit: Annotated[int, within(0, MAX_REPLICAS)] = 10
    """How many ReplicaSets of former templates are kept, with no pods."""
    progress_deadline_seconds: Annotated[int, within(1, 10 * LONGEST_WAIT_S)] = 600
    """How long a rollout may stall before its condition Progressing reports it; it continues all the same."""
    paused: bool = False
    """A changed template waits; scaling works."""


class Deployment(PodOwner):
    """An apps/v1 Deployment."""

    kind: Literal["Deployment"]
    spec: DeploymentSpec

    @field_validator("metadata")
    @classmethod
    def _revision_is_the_controllers(cls, metadata: Metadata) -> Metadata:
        """Leave out the revision that `get` shows: its manifest, applied again, changes nothing."""
        annotations = {key: value for key, value in metadata.annotations.items() if key != REVISION}
        return metadata.model_copy(update={"annotations": annotations})

    @property
    def max_surge(self) -> int:
        """Return how many pods above the desired number may exist while pods are replaced."""
        if self.spec.strategy.type == "Recreate":
            return 0
        return share(self._update.max_surge, self.spec.replicas, math.ceil)

    @property
    def max_unavailable(self) -> int:
        """Return how many available pods may be missing while pods are replaced.

        As in Kubernetes it is 1 if rounding made both numbers 0.
        """
        if self.spec.strategy.type == "Recreate":
            return self.spec.replicas
        fewer = share(self._update.max_unavailable, self.spec.replicas, math.floor)
        return fewer if fewer or self.max_surge else 1

    @property
    def _update(self) -> RollingUpdate:
        return self.spec.strategy.rolling_update or RollingUpdate()

    def scaled(self, replicas: int) -> "Deployment":
        """Return the same with another number of pods."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"replicas": replicas})})

    def to_manifest(self) -> dict[str, Any]:
        """Return the deployment as a manifest, without fields that have their default value."""
        manifest = super().to_manifest()
        manifest["spec"]["replicas"] = self.spec.replicas
        return manifest
