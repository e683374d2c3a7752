"""The subset of Kubernetes' apps/v1 DaemonSet that the testbed honours: one pod a node."""

import math
from typing import Literal

from pydantic import Field, model_validator

from testbed.cluster.manifest_model import Model
from testbed.cluster.name_rules import wrong
from testbed.cluster.pod_template import CountOrPercent, PodOwner, TemplateSpec, share

NONE = (0, "0%")


class RollingNodes(Model):
    """On how many nodes at a time a pod is replaced."""

    max_unavailable: CountOrPercent = 1
    """Nodes without an available pod, old before new; percents of the nodes are rounded up."""
    max_surge: CountOrPercent = 0
    """Nodes with an old and a new pod, new before old; then maxUnavailable is 0."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "RollingNodes":
        surges, ends = self.max_surge not in NONE, self.max_unavailable not in NONE
        if not surges and not ends:
            raise wrong("nothing could ever change", "maxSurge and maxUnavailable 0", "one of them above 0")
        if surges and ends:
            got = f"maxSurge {self.max_surge} and maxUnavailable {self.max_unavailable}"
            raise wrong("one of both is 0", got, "maxUnavailable: 0 beside maxSurge")
        return self


class UpdateStrategy(Model):
    """When a pod of an old template is replaced."""

    type: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    """OnDelete: when you delete it."""
    rolling_update: RollingNodes | None = None

    @model_validator(mode="after")
    def _update_belongs_to_rolling(self) -> "UpdateStrategy":
        if self.type == "OnDelete" and self.rolling_update is not None:
            raise wrong("rollingUpdate belongs to type RollingUpdate", "type: OnDelete", "one of them")
        return self


class DaemonSetSpec(TemplateSpec):
    """What runs on every node that its nodeSelector takes."""

    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)


class DaemonSet(PodOwner):
    """An apps/v1 DaemonSet: its pods follow nodes that come and go, and stay on drained ones."""

    kind: Literal["DaemonSet"]
    spec: DaemonSetSpec

    def max_surge(self, nodes: int) -> int:
        """On how many of these nodes a new pod may be beside the old one."""
        return share(self._update.max_surge, nodes, math.ceil)

    def max_unavailable(self, nodes: int) -> int:
        """How many of these nodes may be without an available pod while pods are replaced."""
        return share(self._update.max_unavailable, nodes, math.ceil)

    @property
    def _update(self) -> RollingNodes:
        return self.spec.update_strategy.rolling_update or RollingNodes()
