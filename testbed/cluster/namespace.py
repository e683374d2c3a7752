"""Kubernetes' v1 Namespace, and the namespaces that objects of a file may use. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from testbed.cluster.manifest_model import Annotations, LabelKey, LabelName, LabelValue, Model
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source

NAME_LABEL = "kubernetes.io/metadata.name"
"""Label of every namespace, with its name: lets a policy select one namespace."""
BUILT_IN = (DEFAULT_NAMESPACE, "kube-system")
"""In every lab; they cannot be deleted."""


class NamespaceMetadata(Model):
    """Name and labels of a namespace, which itself is not namespaced."""

    name: LabelName
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class Namespace(Model):
    """A v1 Namespace."""

    api_version: Literal["v1"]
    kind: Literal["Namespace"]
    metadata: NamespaceMetadata

    @property
    def name(self) -> str:
        """Return `metadata.name`."""
        return self.metadata.name

    @property
    def key(self) -> ObjectKey:
        """Return its key, like that of all objects without a namespace."""
        return ObjectKey(DEFAULT_NAMESPACE, self.metadata.name)

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels, with the one that every namespace has."""
        return {**self.metadata.labels, NAME_LABEL: self.name}

    def to_manifest(self) -> dict[str, Any]:
        """Return the namespace as a manifest, with the label that every namespace has."""
        metadata = self.metadata.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {**metadata, "labels": dict(self.labels)},
        }


def built_in(name: str) -> Namespace:
    """Return a namespace that every lab has."""
    return Namespace.model_validate({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def check_namespace(source: Source, namespace: object) -> Iterator[Problem]:
    """Check the label that every namespace has."""
    assert isinstance(namespace, Namespace)
    given = namespace.metadata.labels.get(NAME_LABEL, namespace.name)
    if given != namespace.name:
        what = f"always the name of the namespace (got {given}; want {namespace.name}, or leave it out)"
        yield source.problem(("metadata", "labels", NAME_LABEL), what)


def check_exists(
    source: Source, namespace: str, existing: Collection[str], ending: Collection[str] = ()
) -> Iterator[Problem]:
    """Check that an object's namespace accepts objects; `existing` are those of the lab and of the same files.

    `ending` are those that are being deleted.
    """
    if namespace in ending:
        what = f"this namespace is being deleted (got {namespace}; want another, or this one once that is done)"
        yield source.problem(("metadata", "namespace"), what)
    elif namespace not in existing and not source.is_doubtful(("metadata", "namespace")):
        want = f"{', '.join(existing)}; or a document of kind Namespace"
        yield source.problem(("metadata", "namespace"), f"no such namespace (got {namespace}; want {want})")
