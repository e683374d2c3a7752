"""DaemonSets: applied, changed and removed by name."""

from collections.abc import Mapping

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.object_key import ObjectKey
from testbed.workloads.controller import DELETED
from testbed.workloads.owner_controller import OwnerController
from testbed.workloads.progress import daemon_numbers


class DaemonSetController(OwnerController[DaemonSet]):
    """The controller of kind DaemonSet."""

    kind = "DaemonSet"

    def wanted(self) -> Mapping[ObjectKey, DaemonSet]:
        """Return them as applied."""
        return dict(self._workloads.daemon_sets)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what is missing until every node that takes it has one available pod, of the present template."""
        wanted = self._workloads.daemon_sets.get(key)
        if wanted is None:
            return DELETED
        seen = self._workloads.seen()
        numbers = daemon_numbers(wanted, seen.pods.get(wanted.owner, ()), seen.nodes)
        old = numbers.current - numbers.updated
        if old and wanted.spec.update_strategy.type == "RollingUpdate":
            return f"{old} pods are not replaced yet"
        if numbers.misscheduled or not numbers.desired == numbers.current == numbers.available:
            there = f"{numbers.current} have one{self._reasons(key)}"
            return f"{numbers.available} of {numbers.desired} nodes have a ready pod, {there}"
        return ""
