"""The resources of the API server: each kind's group, version, path and verbs. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.api.derived import ENDPOINT_SLICE, WITHOUT_MEANING
from testbed.cluster.kinds import DEPLOYMENT, KINDS, NODE, POD, REPLICA_SET, Kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey

OURS = "testbed/v1"
"""Kinds that Kubernetes does not have; its clients do not see them."""
LOOKING = ("get", "list", "watch")
CHANGING = ("create", "delete", "deletecollection", "patch", "update")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as clients see it."""

    kind: Kind

    @property
    def group(self) -> str:
        """Return the group; empty for Kubernetes' core."""
        return self.kind.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Return the version within the group."""
        return self.kind.api_version.rpartition("/")[2]

    @property
    def changes(self) -> bool:
        """Return whether clients may create, change and delete its objects."""
        return self.kind.manifest is not None or not self.is_stored

    @property
    def is_stored(self) -> bool:
        """Return whether the lab keeps its objects; others are accepted with a warning and have no effect."""
        return self.kind not in WITHOUT_MEANING

    @property
    def verbs(self) -> tuple[str, ...]:
        """Return the verbs that clients may use."""
        patch = ("patch", "update") if self.kind is NODE else ()
        return (*LOOKING, *(CHANGING if self.changes else patch))

    @property
    def subresources(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """Return kind and verbs of an object's subresources, by their last word."""
        if self.kind is POD:
            return {
                "log": ("Pod", ("get",)),
                "exec": ("PodExecOptions", ("create", "get")),
                "portforward": ("PodPortForwardOptions", ("create", "get")),
                "eviction": ("Eviction", ("create",)),
            }
        return {"scale": ("Scale", ("get", "patch", "update"))} if self.kind.name in SCALED else {}


SCALED = frozenset({DEPLOYMENT.name, REPLICA_SET.name})
RESOURCES = (
    *(Resource(kind) for kind in KINDS if kind.api_version != OURS),
    *map(Resource, (ENDPOINT_SLICE, *WITHOUT_MEANING)),
)
BY_PATH: Mapping[tuple[str, str, str], Resource] = {(one.group, one.version, one.kind.plural): one for one in RESOURCES}
GROUPS: Mapping[str, str] = {one.group: one.version for one in RESOURCES}
"""The version of each group."""
WHY_NOT: Mapping[str, str] = {
    "attach": "attach is not served: a container's input is empty (want exec, or logs -f for the output)",
    "controllerrevisions": "a DaemonSet's former templates are not kept, so it has no rollout history",
}
"""Resources and subresources that clients look for → why they are not served."""


def why_not(path: str) -> str:
    """Return why a path names no resource; in general Kubernetes' own text."""
    found = (reason for word, reason in WHY_NOT.items() if word in path.split("/"))
    return next(found, "the server could not find the requested resource")


@dataclass(frozen=True, slots=True)
class ApiPlace:
    """The place that the path of a request names."""

    resource: Resource
    namespace: str | None
    """None: every namespace, or a kind without namespaces."""
    name: str | None
    subresource: str | None = None

    @property
    def key(self) -> ObjectKey:
        """Return the key of the one object that it names."""
        assert self.name is not None, "a place of several objects"
        return ObjectKey(self.namespace or DEFAULT_NAMESPACE, self.name)


def place_of(path: str) -> ApiPlace | None:
    """Return what a path names; None for no such resource.

    /api/v1/pods                                            every pod
    /api/v1/namespaces/shop                                 the namespace
    /apis/apps/v1/namespaces/shop/deployments/web/scale     below an object
    """
    words = path.strip("/").split("/")
    if words[0] == "api":
        group, rest = "", words[1:]
    elif words[0] == "apis" and len(words) > 1:
        group, rest = words[1], words[2:]
    else:
        return None
    version, rest = (rest[0], rest[1:]) if rest else ("", [])
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((group, version, rest[0])) if rest else None
    if resource is None or len(rest) > 3 or (namespace is not None and not resource.kind.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else None
    subresource = rest[2] if len(rest) > 2 else None
    if subresource is not None and subresource not in resource.subresources:
        return None
    if resource.kind.namespaced and name is not None and namespace is None:
        return None
    return ApiPlace(resource, namespace, name, subresource)
