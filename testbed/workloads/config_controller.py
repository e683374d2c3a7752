"""ConfigMaps and Secrets: applied, changed and removed by name."""

from collections.abc import Iterator, Mapping, Sequence

from testbed.cluster.config_objects import ConfigObject
from testbed.cluster.environment import ConfigKind
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.lab.configs import Configs
from testbed.workloads.controller import Outcome, outcome_of


class ConfigController:
    """The controller of one of the two kinds."""

    def __init__(self, kind: ConfigKind, configs: Configs) -> None:
        self._kind: ConfigKind = kind
        self._configs = configs

    def wanted(self) -> Mapping[ObjectKey, ConfigObject]:
        """Return the objects as applied."""
        return self._configs.of_kind(self._kind)

    def check(self, applied: Sequence[tuple[Source, ConfigObject]]) -> Iterator[Problem]:
        """Check that immutable objects stay unchanged."""
        for source, wanted in applied:
            before = self._configs.find(self._kind, wanted.key)
            if before is not None and before.immutable and not _same_content(before, wanted):
                what = "immutable (got other data, or immutable: false; want the same, or delete it first)"
                yield source.problem(("metadata", "name"), what)

    def warnings(self, applied: Sequence[tuple[Source, ConfigObject]]) -> Iterator[Problem]:
        """Return none: a pod that waits for a key reports it."""
        return iter(())

    def outcome(self, wanted: ConfigObject) -> Outcome:
        """Return what `put` would do."""
        before = self._configs.find(self._kind, wanted.key)
        return outcome_of(None if before is None else before.to_manifest(), wanted.to_manifest())

    def put(self, wanted: ConfigObject) -> Outcome:
        """Store this object; volumes change with it, variables at the next start of their container."""
        outcome = self.outcome(wanted)
        if outcome != "unchanged":
            self._configs.put([wanted])
        return outcome

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Remove it. Raises KeyError."""
        self._configs.remove(self._kind, key)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return "": it exists at once."""
        return ""


def _same_content(before: ConfigObject, wanted: ConfigObject) -> bool:
    return wanted.immutable and before.content == wanted.content and before.variables == wanted.variables
