"""A running lab's implementation of `apply`, `delete` and `scale`."""

import base64
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from testbed.cgroups.groups import Groups
from testbed.cluster.image_names import ImageRule, read_rules
from testbed.cluster.images import RECIPES
from testbed.cluster.kinds import DEPLOYMENT
from testbed.cluster.manifests import (
    Manifest,
    check_namespaces,
    check_twice,
    objects_in,
    pod_spec_of,
    put_into,
    read_kind_and_key,
    read_manifests,
)
from testbed.cluster.object_key import DEFAULT_NAMESPACE, ObjectKey, key_of
from testbed.cluster.pod_template import MAX_REPLICAS
from testbed.cluster.problems import Problem, SpecError, shorten
from testbed.cluster.validation import Source
from testbed.cluster.yaml_source import read_documents
from testbed.control.answers.lab import ApplyAnswer, ChangedObject, DeleteAnswer, ScaleAnswer
from testbed.control.questions import APPLY, DELETE, SCALE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.changes import Changes
from testbed.lab.namespaces import Namespaces
from testbed.lab.waiting import wait_for
from testbed.policies.policies import Policies
from testbed.policies.preview import after, reach_changes
from testbed.spelling import listed
from testbed.workloads.controller import Controller
from testbed.workloads.deployment_controller import ScaledController
from testbed.workloads.namespace_controller import NamespaceController

KindAndKey = tuple[str, ObjectKey]
NAMESPACE = "Namespace"
MAX_FILES_BYTES = 16_000_000
REMOVERS = 16
"""Objects removed at the same time."""
LOOK_S = 0.02
FORGET_LIMIT_S = 10.0
LEAST_TO_ACT_S = 1.0
"""Time for subscribers to act on pods that became ready at the very end of the limit."""


class ChangeVerbs:
    """Changes of desired objects from the command line."""

    def __init__(
        self,
        controllers: Mapping[str, Controller],
        namespaces: Namespaces,
        policies: Policies,
        pods_changed: Changes,
        images: Sequence[ImageRule],
        groups: Groups,
    ) -> None:
        """`controllers` by kind; `images` are the lab's rules; `groups` limit containers."""
        self._controllers = controllers
        self._policies = policies
        self._namespaces = namespaces
        self._images = images
        self._groups = groups
        self._pods_changed = pods_changed
        self._applying = threading.Lock()
        """State checked by one `apply` must still hold when it acts."""

    def verbs(self) -> Sequence[AnyVerb]:
        """Return the verbs, for the lab's server."""
        return (Verb(APPLY, self.apply), Verb(DELETE, self.delete), Verb(SCALE, self.scale))

    def apply(self, request: Request) -> ApplyAnswer:
        """Create or change every object of the files, or change nothing and report all problems."""
        with self._applying:
            sources, unreadable = self._sources(request)
            manifests, found = self._read(request, sources, unreadable)
            if request.argument("keep_images", bool, False):
                self._images = read_rules(request.argument("images", list, []), RECIPES)
            is_dry = request.argument("dry_run", bool, False)
            lines: list[ChangedObject] = []
            for one in manifests:
                controller = self._controller(one.object.kind)
                outcome = controller.outcome(one.object) if is_dry else controller.put(one.object)
                lines.append({"kind": one.object.kind, "name": str(one.object.key), "outcome": outcome})
        # They check what has been stored.
        for kind, group in _by_kind([] if is_dry else manifests).items():
            found += self._controller(kind).warnings(group)
        warnings = list(map(str, _in_order(found, sources)))
        specs = [spec for one in manifests if (spec := pod_spec_of(one.object)) is not None]
        if any(spec.has_limits for spec in specs) and (complaint := self._groups.complain_once()):
            warnings.append(complaint)
        wait_s = request.argument("wait_s", float)
        if wait_s is not None:
            self._wait_for_all(request, lines, wait_s)
        if is_dry:
            world = self._policies.world()
            changed = reach_changes(world, after(world, (one.object for one in manifests)))
            return {"objects": lines, "warnings": warnings, "reach": list(changed)}
        return {"objects": lines, "warnings": warnings}

    def delete(self, request: Request) -> DeleteAnswer:
        """Remove objects by name, or those of the files; return when they are gone."""
        namespace = request.argument("namespace", str)
        if request.streams:
            sources, problems = self._sources(request)
            objects, found_wrong = objects_in(sources)
            problems += found_wrong
            wanted: list[KindAndKey] = []
            for source in objects:
                problems += put_into(source, namespace)
                found, problem = read_kind_and_key(source)
                problems += [problem] if problem else []
                wanted += [found] if found else []
            if problems:
                raise InvalidInput(str(SpecError(problems)))
        else:
            kind = request.argument("kind", str)
            here = DEFAULT_NAMESPACE if kind == NAMESPACE else namespace or DEFAULT_NAMESPACE
            wanted = [(kind, key_of(name, here)) for name in request.argument("names", list, [])]
        grace_s = request.argument("grace_s", float)
        gone = self._remove_all(dict.fromkeys(wanted), grace_s)
        late = self._pods_changed.notify_and_wait(FORGET_LIMIT_S)
        if late:
            raise TestbedError(f"removed, but after {FORGET_LIMIT_S:g} s still in use by: {', '.join(late)}")
        lines, missing = list[ChangedObject](), list[str]()
        for (kind, key), was_there in gone.items():
            if was_there:
                lines.append({"kind": kind, "name": str(key), "outcome": "deleted"})
            else:
                missing.append(f"no {kind.lower()} named {key}")
        return {"objects": lines, "missing": missing}

    def scale(self, request: Request) -> ScaleAnswer:
        """Change the number of pods of a Deployment or ReplicaSet."""
        kind, replicas = request.argument("kind", str, DEPLOYMENT.name), request.argument("replicas", int)
        key = key_of(request.argument("name", str), request.argument("namespace", str) or DEFAULT_NAMESPACE)
        controller = self._controller(kind)
        if not isinstance(controller, ScaledController):
            raise InvalidInput(
                f"scale: objects of this kind have no replicas (got {kind}; want Deployment or ReplicaSet)"
            )
        if not 0 <= replicas <= MAX_REPLICAS:
            raise InvalidInput(f"scale: replicas: out of range (got {shorten(replicas)}; want 0 to {MAX_REPLICAS})")
        try:
            before = controller.scale(key, replicas)
        except KeyError as failure:
            there = listed(map(str, controller.scalable()), str(key))
            raise TestbedError(f"no {kind.lower()} named {key} (there are: {there})") from failure
        lines: list[ChangedObject] = [{"kind": kind, "name": str(key), "outcome": "scaled"}]
        wait_s = request.argument("wait_s", float)
        if wait_s is not None:
            self._wait_for_all(request, lines, wait_s)
        return {"objects": lines, "before": before, "replicas": replicas}

    def _read(
        self, request: Request, sources: Sequence[Source], unreadable: Sequence[Problem]
    ) -> tuple[list[Manifest], list[Problem]]:
        """Return every object of the files, checked against each other and the lab, and warnings.

        Raises InvalidInput with all problems, `unreadable` among them.
        """
        rules = (*read_rules(request.argument("images", list, []), RECIPES), *self._images)
        manifests, found, warnings = read_manifests(sources, rules, request.argument("namespace", str))
        problems = [
            *unreadable,
            *found,
            *check_namespaces(manifests, self._namespaces.open, self._namespaces.ending),
            *check_twice(manifests),
        ]
        for kind, group in _by_kind(manifests).items():
            problems += self._controller(kind).check(group)
        if request.argument("strict", bool, False):
            problems += warnings
        if problems:
            raise InvalidInput(str(SpecError(_in_order(problems, sources))))
        return manifests, warnings

    def _sources(self, request: Request) -> tuple[list[Source], list[Problem]]:
        if len(request.streams) != 1:
            raise InvalidInput("this verb needs the manifests as a file")
        # From its start, whatever the client's position: both share it.
        data = os.pread(request.streams[0], MAX_FILES_BYTES + 1, 0)
        if len(data) > MAX_FILES_BYTES:
            raise InvalidInput(f"the files are too big (want at most {MAX_FILES_BYTES} bytes together)")
        sources: list[Source] = []
        problems: list[Problem] = []
        for file in json.loads(data):
            documents, found = read_documents(base64.b64decode(file["data"]), file["name"], want="a manifest")
            # The first document of a cluster file is not an object.
            objects = documents[1:] if file.get("cluster") else documents
            sources += [Source(document, file["name"]) for document in objects]
            problems += found
        return sources, problems

    def _controller(self, kind: str) -> Controller:
        controller = self._controllers.get(kind)
        if controller is None:
            raise TestbedError(f"the lab is still starting and accepts no {kind} yet")
        return controller

    def _remove_all(self, wanted: Iterable[KindAndKey], grace_s: float | None) -> dict[KindAndKey, bool]:
        """Remove these and wait until they are gone; return each with whether it existed."""
        gone = dict.fromkeys(wanted, False)
        ending = [key for kind, key in gone if kind == NAMESPACE]
        if ending:
            controller = self._controller(NAMESPACE)
            assert isinstance(controller, NamespaceController)
            # An `apply` that found the namespace must store its objects before these are counted.
            with self._applying:
                controller.begin_removal(ending)
        # Namespaces last: other named objects are not missing because they were deleted with one.
        waves = ([one for one in gone if one[0] != NAMESPACE], [one for one in gone if one[0] == NAMESPACE])
        with ThreadPoolExecutor(REMOVERS, "remove") as removers:
            for wave in waves:
                gone |= zip(wave, removers.map(lambda one: self._remove(one[0], one[1], grace_s), wave), strict=True)
        return gone

    def _remove(self, kind: str, key: ObjectKey, grace_s: float | None) -> bool:
        try:
            self._controller(kind).remove(key, grace_s)
        except KeyError:
            return False
        return True

    def _wait_for_all(self, request: Request, lines: Sequence[ChangedObject], limit_s: float) -> None:
        """Wait until all objects are ready, and Services, names and policies follow the pods that became so."""
        deadline = time.monotonic() + limit_s

        def missing() -> str:
            if request.client_left(LOOK_S):
                return ""
            found = [
                f"{line['kind'].lower()}/{line['name']}: {why}"
                for line in lines
                if (why := self._controller(line["kind"]).why_not_ready(key_of(line["name"])))
            ]
            return "\n".join(found)

        left = wait_for(missing, limit_s)
        if left:
            raise TestbedError(f"not ready after {limit_s:g} s:\n{left}")
        if request.client_left(0):
            return
        # The pod watch reports a pod that became ready only a moment later.
        late = self._pods_changed.notify_and_wait(max(LEAST_TO_ACT_S, deadline - time.monotonic()))
        if late:
            raise TestbedError(f"ready, but after {limit_s:g} s not acted on by: {', '.join(late)}")


def _by_kind(manifests: Sequence[Manifest]) -> dict[str, list[tuple[Source, object]]]:
    groups: dict[str, list[tuple[Source, object]]] = {}
    for source, read in manifests:
        groups.setdefault(read.kind, []).append((source, read))
    return groups


def _in_order(problems: Iterable[Problem], sources: Sequence[Source]) -> list[Problem]:
    """Sort by file, line and column: in reading order."""
    order = {source.name: number for number, source in enumerate(sources)}

    def place(problem: Problem) -> tuple[int, int, int]:
        name, line, column = problem.where.rsplit(":", 2)
        return order.get(name, len(order)), int(line), int(column)

    return sorted(problems, key=place)
