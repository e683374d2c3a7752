"""Kubernetes manifests of one YAML stream: reads and checks every kind that can be applied, all problems at once."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from testbed.cluster.config_objects import ConfigMap, Secret
from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.free_values import free_name
from testbed.cluster.image_names import ImageRule
from testbed.cluster.kinds import MANIFESTS
from testbed.cluster.kubernetes_words import INSTEAD_OF_KIND
from testbed.cluster.manifest import PodManifest, PodSpec
from testbed.cluster.namespace import BUILT_IN, Namespace, check_exists
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.replica_set import ReplicaSet
from testbed.cluster.service import Service
from testbed.cluster.stand_ins import simplify
from testbed.cluster.validation import Source, read_model, shown
from testbed.cluster.without_meaning import KINDS_WITHOUT_MEANING, leave_out

Object = PodManifest | Deployment | ReplicaSet | DaemonSet | Service | Namespace | NetworkPolicy | ConfigMap | Secret
ObjectT = TypeVar("ObjectT", bound=Object)

LISTS = ("List", *(f"{kind}List" for _, kind in MANIFESTS))
"""The kinds that `kubectl get -o yaml` wraps several objects in."""


class Manifest(NamedTuple):
    """One object, and its position in the file."""

    source: Source
    object: Object


def objects_in(sources: Iterable[Source]) -> tuple[list[Source], list[Problem]]:
    """Return every object of the documents, with a List replaced by its items; and each invalid List."""
    found: list[Source] = []
    problems: list[Problem] = []
    for source in sources:
        version, kind = kind_of(source)
        if version not in {known for known, _ in MANIFESTS} or kind not in LISTS:
            found.append(source)
            continue
        items = source.document.value.get("items")
        if isinstance(items, list):
            inner, wrong = objects_in(Source(item, source.name) for item in source.document.items("items"))
            found += inner
            problems += wrong
        elif items is not None:
            problems.append(source.problem(("items",), f"wrong type (got {shown(items)}; want a list)"))
    return found, problems


def read_manifests(
    sources: Iterable[Source], rules: Sequence[ImageRule] = (), namespace: str | None = None
) -> tuple[list[Manifest], list[Problem], list[Problem]]:
    """Return every readable manifest, in order, the problems of each of them alone, and warnings.

    `rules` map images to recipes; `namespace` is that of all namespaced objects, None: each one's own. Warnings are
    accepted differences, and objects left out because they mean nothing in a lab.
    """
    found: list[Manifest] = []
    objects, problems = objects_in(sources)
    for source in objects:
        if (why := KINDS_WITHOUT_MEANING.get(kind_of(source))) is not None:
            source.warn(("kind",), f"a {kind_of(source)[1]} is ignored: {why}")
            continue
        kind = MANIFESTS.get(kind_of(source))
        if kind is None or kind.manifest is None:
            problems.append(_refuse(source))
            continue
        problems += put_into(source, namespace)
        model, check = kind.manifest()
        simplify(source, rules)
        leave_out(source, model)
        read, wrong = read_model(source, model, rules)
        problems += wrong
        if isinstance(read, Object):
            problems += check(source, read)
            found.append(Manifest(source, read))
    return found, problems, [warning for source in objects for warning in source.warnings]


def put_into(source: Source, namespace: str | None) -> Iterator[Problem]:
    """Give an object without a namespace this one, before it is read; as kubectl does, refuse one with another.

    Do nothing for None, or a kind without namespaces.
    """
    kind, document = MANIFESTS.get(kind_of(source)), source.document.value
    metadata = document.get("metadata") if isinstance(document, dict) else None
    if namespace is None or kind is None or not kind.namespaced or not isinstance(metadata, dict):
        return
    own = metadata.get("namespace") or namespace
    if own == namespace:
        source.replace_value({**document, "metadata": {**metadata, "namespace": namespace}})
    elif isinstance(own, str):
        got = f"got {shorten(own)}; want {namespace}, or -n {shorten(own)}"
        what = f"the object's namespace is not the one of the command line ({got})"
        yield source.problem(("metadata", "namespace"), what)


def of_kind(manifests: Iterable[Manifest], kind: type[ObjectT]) -> list[tuple[Source, ObjectT]]:
    """Return the objects of one kind, in order."""
    return [(source, read) for source, read in manifests if isinstance(read, kind)]


def check_namespaces(
    manifests: Sequence[Manifest], existing: Iterable[str] = BUILT_IN, ending: Collection[str] = ()
) -> Iterator[Problem]:
    """Check for objects in a namespace that neither the lab nor the same files have, in any order.

    `ending` are namespaces of the lab that are being deleted.
    """
    known = dict.fromkeys([*existing, *(read.name for _, read in manifests if isinstance(read, Namespace))])
    for source, read in manifests:
        yield from check_exists(source, read.key.namespace, known, ending)


def pod_spec_of(read: Object) -> PodSpec | None:
    """Return what runs in the pods of an object; None where it has none."""
    if isinstance(read, PodManifest):
        return read.spec
    return read.spec.template.spec if isinstance(read, Deployment | ReplicaSet | DaemonSet) else None


def check_twice(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """Check for two objects of a kind with one name, in one stream; for pods `check_names` checks more."""
    first: dict[tuple[str, ObjectKey], Source] = {}
    for source, read in manifests:
        if isinstance(read, PodManifest):
            continue
        key, path = (read.kind, read.key), ("metadata", "name")
        if key in first:
            line = first[key].line(path)
            other = free_name(read.name, {one.object.name for one in manifests})
            got = f"{read.name}, line {line} has it too"
            what = f"a {read.kind} of this name twice (got {got}; want another, such as {other})"
            yield source.problem(path, what)
        first.setdefault(key, source)


def kind_of(source: Source) -> tuple[str, str]:
    """Return apiVersion and kind as text, even if they are not."""
    value = source.document.value if isinstance(source.document.value, dict) else {}
    return (shorten(value.get("apiVersion", "none")), shorten(value.get("kind", "none")))


def read_kind_and_key(source: Source) -> tuple[tuple[str, ObjectKey] | None, Problem | None]:
    """Return kind and key of an object to delete, whatever else it contains; or its problem.

    Neither for an object that `apply` ignores.
    """
    if kind_of(source) in KINDS_WITHOUT_MEANING:
        return None, None
    kind = MANIFESTS.get(kind_of(source))
    if kind is None:
        return None, _refuse(source)
    metadata = source.document.value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        return None, source.problem(("metadata", "name"), "an object without a name (got none; want metadata.name)")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) and kind.namespaced else None
    return (kind.name, ObjectKey(namespace if isinstance(namespace, str) else DEFAULT_NAMESPACE, name)), None


def is_known(kind: tuple[str, str]) -> bool:
    """Report whether objects of this kind of Kubernetes are accepted."""
    return kind in MANIFESTS or kind in KINDS_WITHOUT_MEANING


def _refuse(source: Source) -> Problem:
    kind = kind_of(source)
    want = f"want {', '.join(' '.join(known) for known in MANIFESTS)}"
    if not isinstance(source.document.value, dict):
        return source.problem((), f"not a manifest (got a list or a bare value; {want})")
    short = "apiVersion" not in source.document.value and "nodes" in source.document.value
    if short or kind == ("testbed/v1", "Cluster"):
        return source.problem(("kind",), f"a Cluster is the first document of a file for `up` only (got one; {want})")
    shown = " ".join(kind)
    if instead := INSTEAD_OF_KIND.get(kind[1]):
        return source.problem(("kind",), f"a lab does not have this kind (got {shown}; want {instead})")
    near = near_match(shown, map(" ".join, (*MANIFESTS, *KINDS_WITHOUT_MEANING)))
    return source.problem(("kind",), f"unknown apiVersion and kind (got {shown}; {want}){near}")
