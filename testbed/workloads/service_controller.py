"""Services: applied, changed and removed by name."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.service import Service
from testbed.cluster.service_checks import check_dual_stack, check_range, check_together, selects_nothing
from testbed.cluster.validation import Source
from testbed.lab.pods import Pods
from testbed.services.services import Services
from testbed.workloads.controller import Outcome, outcome_of
from testbed.workloads.workloads import Workloads

BRIDGE_SETTINGS = Path("/proc/sys/net/bridge")


def check_bridge_filter(applied: Sequence[tuple[Source, object]]) -> Iterator[Problem]:
    """Check that the packet filter sees packets between pods of one bridge, which these objects need."""
    if applied and not BRIDGE_SETTINGS.is_dir():
        what = f"this kernel has no br_netfilter (got no {BRIDGE_SETTINGS}; want modprobe br_netfilter on the host)"
        yield applied[0][0].problem(("kind",), what)


class ServiceController:
    """The controller of kind Service."""

    def __init__(self, services: Services, pods: Pods, workloads: Workloads) -> None:
        self._services = services
        self._pods = pods
        self._workloads = workloads

    def wanted(self) -> Mapping[ObjectKey, Service]:
        """Return the objects as applied."""
        return dict(self._services.applied)

    def check(self, applied: Sequence[tuple[Source, Service]]) -> Iterator[Problem]:
        """Check that cluster IPs and node ports are free, and that this kernel and network support Services."""
        yield from check_together(applied, self._services.numbered.values())
        yield from check_range(applied, self._services.pod_network)
        yield from check_dual_stack(applied, self._services.dual_stack)
        yield from check_bridge_filter(applied)

    def warnings(self, applied: Sequence[tuple[Source, Service]]) -> Iterator[Problem]:
        """Return warnings about selectors that match no pod, including those from templates."""
        there = [(pod.key.namespace, pod.manifest.metadata.labels) for pod in self._pods]
        made = [(one.key.namespace, one.spec.template.metadata.labels) for one in self._workloads.owners()]
        return selects_nothing(applied, [*there, *made])

    def outcome(self, wanted: Service) -> Outcome:
        """Return what `put` would do."""
        return outcome_of(self._services.applied.get(wanted.key), wanted)

    def put(self, wanted: Service) -> Outcome:
        """Store this Service; one that names no numbers keeps its numbers."""
        with self._services.deciding:
            outcome = self.outcome(wanted)
            if outcome != "unchanged":
                self._services.put(wanted)
        return outcome

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Remove it from all nodes; soon, so that many are removed together. Raises KeyError."""
        self._services.remove(key)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return whether some node does not answer for it yet; one without endpoints is ready, as in Kubernetes."""
        if key not in self._services.numbered:
            return "does not exist yet"
        return "; ".join(self._services.why_not_programmed())
