"""The namespaces of a lab, with their labels; subscribers of `pods.changed` are notified of each change."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.cluster.namespace import BUILT_IN, NAME_LABEL, Namespace, built_in
from testbed.lab.changes import Changes
from testbed.lab.clock import now


@dataclass(frozen=True, slots=True)
class KnownNamespace:
    """A namespace of the lab."""

    wanted: Namespace
    created_at: str
    ends: bool = False
    """Whether it is being deleted, and accepts no more objects."""


class Namespaces:
    """Every namespace of the lab, by name; replaced as a whole on every change."""

    def __init__(self, wanted: Sequence[Namespace], changed: Changes) -> None:
        """`wanted` are those of the cluster file; the built-in ones always exist."""
        self._changed = changed
        self._changing = threading.Lock()
        all_of_them = {one.name: one for one in (*map(built_in, BUILT_IN), *wanted)}
        self._known: Mapping[str, KnownNamespace] = {
            name: KnownNamespace(one, now()) for name, one in all_of_them.items()
        }

    def __iter__(self) -> Iterator[KnownNamespace]:
        return iter(self._known.values())

    def get(self, name: str) -> KnownNamespace | None:
        """Return the namespace; None where there is none."""
        return self._known.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all."""
        return tuple(self._known)

    @property
    def open(self) -> tuple[str, ...]:
        """Return the names of those that accept objects."""
        return tuple(name for name, one in self._known.items() if not one.ends)

    @property
    def ending(self) -> tuple[str, ...]:
        """Return the names of those that are being deleted."""
        return tuple(name for name, one in self._known.items() if one.ends)

    def labels_of(self, name: str) -> Mapping[str, str]:
        """Return a namespace's labels; for one that is gone, the label with its name."""
        known = self._known.get(name)
        return {NAME_LABEL: name} if known is None else known.wanted.labels

    def put(self, wanted: Namespace) -> Namespace | None:
        """Store this namespace, with these labels; return its previous state."""
        with self._changing:
            before = self._known.get(wanted.name)
            after = KnownNamespace(wanted, now()) if before is None else replace(before, wanted=wanted)
            self._known = {**self._known, wanted.name: after}
        if before != after:
            self._changed.notify()
        return None if before is None else before.wanted

    def begin_end(self, name: str) -> None:
        """Accept no more objects in it, if it exists."""
        with self._changing:
            self._known = {other: replace(one, ends=one.ends or other == name) for other, one in self._known.items()}

    def forget(self, name: str) -> None:
        """Forget it, once everything in it is gone. Twice is harmless."""
        with self._changing:
            self._known = {other: one for other, one in self._known.items() if other != name}
        self._changed.notify()
