"""The key of an object in a cluster: its namespace and its name."""

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

DEFAULT_NAMESPACE = "default"


class ObjectKey(NamedTuple):
    """Of one object; unique within a kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Return `nginx`, or `shop/nginx` outside the default namespace: as shown and typed."""
        return self.name if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{self.name}"

    @property
    def option(self) -> str:
        """Return ` -n shop`, for a verb that searches its namespace; empty for the default one."""
        return "" if self.namespace == DEFAULT_NAMESPACE else f" -n {self.namespace}"

    @property
    def file_name(self) -> str:
        """Return `nginx`, or `shop_nginx`: for files, devices and chains; Kubernetes' names contain no `_`."""
        return str(self).replace("/", "_")


def key_of_object(item: Mapping[str, Any]) -> ObjectKey:
    """Return the key of an object as `get -o json` shows it; without a namespace, it has the default one."""
    metadata = item["metadata"]
    return ObjectKey(metadata.get("namespace") or DEFAULT_NAMESPACE, metadata["name"])


def key_of(text: str, namespace: str = DEFAULT_NAMESPACE) -> ObjectKey:
    """Return the key that a person means by `nginx`, in `namespace`, or by `shop/nginx`."""
    named, slash, name = text.rpartition("/")
    return ObjectKey(named if slash else namespace, name)


def object_uid(lab: str, since: str, kind: str, key: ObjectKey, created_at: str) -> str:
    """Return an id that is the same for one object of one lab while it exists, and different for a later one."""
    text = "/".join((lab, since, kind, *key, created_at))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"testbed://{text}"))


class Owner(NamedTuple):
    """The owner of a pod: its kind, as in `kind:`, and its key."""

    kind: str
    key: ObjectKey

    def __str__(self) -> str:
        """Return `replicaset/web-1742b811`: as events and messages name it."""
        return f"{self.kind.lower()}/{self.key}"
