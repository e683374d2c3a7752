"""NetworkPolicies: applied, changed and removed by name."""

from collections.abc import Iterator, Mapping, Sequence

from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.policies.policies import Policies
from testbed.workloads.controller import Outcome, outcome_of
from testbed.workloads.service_controller import check_bridge_filter


class PolicyController:
    """The controller of kind NetworkPolicy."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    def wanted(self) -> Mapping[ObjectKey, NetworkPolicy]:
        """Return the objects as applied."""
        return self._policies.applied

    def check(self, applied: Sequence[tuple[Source, NetworkPolicy]]) -> Iterator[Problem]:
        """Check that this kernel can isolate pods of one bridge from each other."""
        return check_bridge_filter(applied)

    def warnings(self, applied: Sequence[tuple[Source, NetworkPolicy]]) -> Iterator[Problem]:
        """Return none: a policy may precede its pods."""
        return iter(())

    def outcome(self, wanted: NetworkPolicy) -> Outcome:
        """Return what `put` would do."""
        return outcome_of(self._policies.applied.get(wanted.key), wanted)

    def put(self, wanted: NetworkPolicy) -> Outcome:
        """Store this policy."""
        with self._policies.deciding:
            outcome = self.outcome(wanted)
            if outcome != "unchanged":
                self._policies.put(wanted)
        return outcome

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Stop enforcing it on all nodes, soon. Raises KeyError."""
        with self._policies.deciding:
            self._policies.remove(key)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return whether some node does not enforce the policies yet."""
        if key not in self._policies.applied:
            return "does not exist yet"
        return "; ".join(self._policies.why_not_enforced())
