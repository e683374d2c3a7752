"""Values of ours for the contents of etcd's answers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd holds it."""

    key: bytes
    value: bytes
    etcd_lease_id: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One change of a key. When it was deleted or expired, `kv` has only key and mod_revision."""

    kv: KeyValue
    deleted: bool


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of one watch response, perhaps none."""

    events: tuple[KeyEvent, ...]
    revision: int


def key_value(kv: Any) -> KeyValue:  # noqa: ANN401 - etcd3 has no types
    """Convert a key in an answer of etcd."""
    return KeyValue(kv.key, kv.value, kv.lease, kv.mod_revision)


def key_event(event: Any) -> KeyEvent:  # noqa: ANN401 - etcd3 has no types
    """Convert a change that a watch reported."""
    return KeyEvent(key_value(event.kv), event.type == event.DELETE)
