"""Namespaces: applied, relabelled, and removed with everything in them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from testbed.cluster.namespace import BUILT_IN, Namespace
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.errors import TestbedError
from testbed.lab.namespaces import Namespaces
from testbed.workloads.controller import Controller, Outcome, outcome_of

REMOVERS = 16
"""Objects of one namespace removed at the same time."""


class NamespaceController:
    """The controller of kind Namespace."""

    def __init__(self, namespaces: Namespaces, controllers: Mapping[str, Controller]) -> None:
        """Take the controllers of all kinds, whose objects are removed with their namespace."""
        self._namespaces = namespaces
        self._controllers = controllers

    def wanted(self) -> Mapping[ObjectKey, Namespace]:
        """Return the objects as applied, and those that every lab has."""
        return {one.wanted.key: one.wanted for one in self._namespaces}

    def check(self, applied: Sequence[tuple[Source, Namespace]]) -> Iterator[Problem]:
        """Check whether one of them is being deleted."""
        for source, namespace in applied:
            known = self._namespaces.get(namespace.name)
            if known is not None and known.ends:
                what = f"this namespace is being deleted (got {namespace.name}; want it once that is done)"
                yield source.problem(("metadata", "name"), what)

    def warnings(self, applied: Sequence[tuple[Source, Namespace]]) -> Iterator[Problem]:
        """Return none."""
        return iter(())

    def outcome(self, wanted: Namespace) -> Outcome:
        """Return what `put` would do."""
        known = self._namespaces.get(wanted.name)
        return outcome_of(None if known is None else known.wanted, wanted)

    def put(self, wanted: Namespace) -> Outcome:
        """Store this namespace."""
        return outcome_of(self._namespaces.put(wanted), wanted)

    def begin_removal(self, keys: Sequence[ObjectKey]) -> None:
        """Let the existing ones of these accept no more objects. Raises TestbedError, with none changed."""
        kept = [key.name for key in keys if key.name in BUILT_IN]
        if kept:
            raise TestbedError(f"namespace {kept[0]} cannot be deleted: every lab has it")
        for key in keys:
            self._namespaces.begin_end(key.name)

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """Remove everything in one that accepts no more objects, and wait until it is gone. Raises KeyError."""
        if self._namespaces.get(key.name) is None:
            raise KeyError(key)
        with ThreadPoolExecutor(REMOVERS, "remove") as removers:
            # Until nothing is left: this includes what a controller was just creating.
            while inside := self._inside(key.name):
                list(removers.map(lambda one: _remove(one[0], one[1], grace_s), inside))
        self._namespaces.forget(key.name)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return whether it is missing."""
        return "" if self._namespaces.get(key.name) else "does not exist yet"

    def _inside(self, namespace: str) -> list[tuple[Controller, ObjectKey]]:
        """Return the objects of all kinds in a namespace."""
        others = [controller for controller in self._controllers.values() if controller is not self]
        return [(controller, key) for controller in others for key in controller.wanted() if key.namespace == namespace]


def _remove(controller: Controller, key: ObjectKey, grace_s: float | None) -> None:
    with contextlib.suppress(KeyError):
        controller.remove(key, grace_s)
