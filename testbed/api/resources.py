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
    def everywhere(self) -> str:
        """Return the path of all its objects."""
        return f"{root_of(self.group)}/{self.kind.plural}"

    @property
    def collection(self) -> str:
        """Return the path of its objects in a namespace; if the kind has none, of all."""
        within = "/namespaces/{namespace}" if self.kind.namespaced else ""
        return f"{root_of(self.group)}{within}/{self.kind.plural}"

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
GROUPS: Mapping[str, str] = {one.group: one.version for one in RESOURCES}
"""The version of each group."""
WHY_NOT: Mapping[str, str] = {
    "attach": "attach is not served: a container's input is empty (want exec, or logs -f for the output)",
    "controllerrevisions": "a DaemonSet's former templates are not kept, so it has no rollout history",
}
"""Resources and subresources that clients look for → why they are not served."""


def root_of(group: str) -> str:
    """Return the path above a group's resources."""
    return f"/apis/{group}/{GROUPS[group]}" if group else f"/api/{GROUPS[group]}"


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

    @property
    def key(self) -> ObjectKey:
        """Return the key of the one object that it names."""
        assert self.name is not None, "a place of several objects"
        return ObjectKey(self.namespace or DEFAULT_NAMESPACE, self.name)
