"""The subset of Kubernetes' apps/v1 DaemonSet that the testbed supports: one pod per node."""

import math
from functools import partial
from typing import Literal

from pydantic import Field, model_validator

from testbed.cluster.manifest_model import Model
from testbed.cluster.name_rules import wrong
from testbed.cluster.pod_template import NO_PODS, CountOrPercent, PodOwner, TemplateSpec, share, with_rolling_update


class RollingNodes(Model):
    """On how many nodes at a time pods are replaced."""

    max_unavailable: CountOrPercent = 1
    """Nodes without an available pod, deleting the old one first; percentages of nodes are rounded up."""
    max_surge: CountOrPercent = 0
    """Nodes with an old and a new pod, creating the new one first; requires maxUnavailable 0."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "RollingNodes":
        surges, ends = self.max_surge not in NO_PODS, self.max_unavailable not in NO_PODS
        if not surges and not ends:
            raise wrong("nothing could ever change", "maxSurge and maxUnavailable 0", "one of them above 0")
        if surges and ends:
            got = f"maxSurge {self.max_surge} and maxUnavailable {self.max_unavailable}"
            raise wrong("one of both is 0", got, "maxUnavailable: 0 beside maxSurge")
        return self


class UpdateStrategy(Model):
    """When pods of an old template are replaced."""

    type: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    """OnDelete: when you delete them."""
    rolling_update: RollingNodes | None = None

    @model_validator(mode="before")
    @classmethod
    def _rolls_by_default(cls, given: object) -> object:
        return with_rolling_update(given)

    @model_validator(mode="after")
    def _update_belongs_to_rolling(self) -> "UpdateStrategy":
        if self.type == "OnDelete" and self.rolling_update is not None:
            raise wrong("rollingUpdate belongs to type RollingUpdate", "type: OnDelete", "one of them")
        return self


class DaemonSetSpec(TemplateSpec):
    """What runs on every node that matches the nodeSelector."""

    update_strategy: UpdateStrategy = Field(default_factory=partial(UpdateStrategy.model_validate, {}))


class DaemonSet(PodOwner):
    """An apps/v1 DaemonSet: its pods follow added and removed nodes, and stay on drained ones."""

    kind: Literal["DaemonSet"]
    spec: DaemonSetSpec

    def max_surge(self, nodes: int) -> int:
        """Return on how many of these nodes a new pod may run beside the old one."""
        return share(self._update.max_surge, nodes, math.ceil)

    def max_unavailable(self, nodes: int) -> int:
        """Return how many of these nodes may be without an available pod while pods are replaced."""
        return share(self._update.max_unavailable, nodes, math.ceil)

    @property
    def _update(self) -> RollingNodes:
        return self.spec.update_strategy.rolling_update or RollingNodes()
