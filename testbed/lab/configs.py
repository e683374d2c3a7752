"""The ConfigMaps and Secrets of a lab: found by kind and key; subscribers are notified of each change."""

import threading
from collections.abc import Iterable, Mapping

from testbed.cluster.config_objects import ConfigObject
from testbed.cluster.environment import ConfigKind
from testbed.cluster.object_key import ObjectKey
from testbed.lab.changes import Changes
from testbed.lab.clock import now


class Configs:
    """Every ConfigMap and Secret, in order of creation. Usable from several threads."""

    def __init__(self) -> None:
        self.changed = Changes()
        self.created_at: dict[tuple[ConfigKind, ObjectKey], str] = {}
        """When each was first stored."""
        self._objects: Mapping[tuple[ConfigKind, ObjectKey], ConfigObject] = {}
        self._changing = threading.Lock()

    def find(self, kind: ConfigKind, key: ObjectKey) -> ConfigObject | None:
        """Return the object; None where there is none."""
        return self._objects.get((kind, key))

    def of_kind(self, kind: ConfigKind) -> Mapping[ObjectKey, ConfigObject]:
        """Return all objects of a kind."""
        return {key: found for (of, key), found in self._objects.items() if of == kind}

    def put(self, objects: Iterable[ConfigObject]) -> None:
        """Store these, replacing those with the same names."""
        with self._changing:
            wanted = {(one.kind, one.key): one for one in objects}
            self.created_at = {**dict.fromkeys(wanted, now()), **self.created_at}
            self._objects = {**self._objects, **wanted}
        self.changed.notify()

    def remove(self, kind: ConfigKind, key: ObjectKey) -> None:
        """Remove it; pods that have its values keep them. Raises KeyError."""
        with self._changing:
            gone = (kind, key)
            if gone not in self._objects:
                raise KeyError(key)
            self._objects = {one: found for one, found in self._objects.items() if one != gone}
            self.created_at = {one: at for one, at in self.created_at.items() if one != gone}
        self.changed.notify()
