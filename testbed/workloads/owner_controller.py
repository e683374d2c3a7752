"""The common part of the controllers of kinds that create pods from a template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from testbed.cluster.object_key import ObjectKey, Owner
from testbed.cluster.pod_checks import TEMPLATE, check_node
from testbed.cluster.pod_template import PodOwner
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.lab.nodes import Nodes
from testbed.workloads.controller import Outcome, outcome_of
from testbed.workloads.workloads import Workloads

OwnerT = TypeVar("OwnerT", bound=PodOwner)


class OwnerController(Generic[OwnerT]):
    """The controller of one such kind; each kind has its own `wanted` and `why_not_ready`."""

    kind: str

    def __init__(self, workloads: Workloads, nodes: Nodes) -> None:
        self._workloads = workloads
        self._nodes = nodes

    def wanted(self) -> Mapping[ObjectKey, OwnerT]:
        """Return them as applied and scaled."""
        raise NotImplementedError

    def check(self, applied: Sequence[tuple[Source, OwnerT]]) -> Iterator[Problem]:
        """Check that the node that a template names exists."""
        for source, one in applied:
            yield from check_node(source, (*TEMPLATE, "spec"), one.spec.template.spec, list(self._nodes))

    def warnings(self, applied: Sequence[tuple[Source, OwnerT]]) -> Iterator[Problem]:
        """Return no warnings: what cannot be placed now may be placed later, and is reported as an event."""
        return iter(())

    def outcome(self, wanted: OwnerT) -> Outcome:
        """Return what `put` would do."""
        before = self.wanted().get(wanted.key)
        return outcome_of(before, self._kept(wanted, before))

    def put(self, wanted: OwnerT) -> Outcome:
        """Store this object."""
        with self._workloads.deciding:
            outcome = self.outcome(wanted)
            if outcome == "unchanged":
                return outcome
            self._workloads.want(self._kept(wanted, self.wanted().get(wanted.key)))
        self._workloads.look()
        return outcome

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """End all its pods and wait until they are gone. Raises KeyError."""
        self._workloads.forget(Owner(self.kind, key), grace_s)

    def all_why_not_ready(self) -> list[str]:
        """Return a line for each object that is not ready."""
        return [f"{key}: {why}" for key in self.wanted() if (why := self.why_not_ready(key))]

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what is missing until exactly the desired pods are there and ready."""
        raise NotImplementedError

    def _kept(self, wanted: OwnerT, before: OwnerT | None) -> OwnerT:
        """Return the desired state, with what a change does not touch."""
        del before
        return wanted

    def _reasons(self, key: ObjectKey) -> str:
        """Return why its pods are not ready, in parentheses; empty if all are."""
        pods = self._workloads.pods_of(Owner(self.kind, key))
        reasons = {pod.status().why_not_ready for pod in pods} - {""}
        return f" ({'; '.join(sorted(reasons))})" if reasons else ""
