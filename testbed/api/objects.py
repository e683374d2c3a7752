"""Clients' operations on objects: get, list, watch, create, replace, patch and delete."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from testbed.api import patches, tables
from testbed.api.failure import Failure, already_there, conflict, from_lab, not_found, success
from testbed.api.lab import REQUEST_BODY, AsyncLab
from testbed.api.resources import RESOURCES, ApiPlace
from testbed.api.selection import selection
from testbed.api.store import Collection, ObjectChange, Versions
from testbed.cluster.kinds import NODE
from testbed.errors import TestbedError

Object = dict[str, Any]
SERVERS_OWN = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
)
"""Metadata that the server sets, not the client."""
NODE_CHANGES = ("metadata.labels", "spec.unschedulable")
"""Fields of a node whose changes have a check, or an effect, of their own."""
DELETE_LIMIT_S = 0.3
"""How long to wait for a deletion before answering that it has begun."""
DELETIONS = 64
"""Objects of one collection that are deleted at the same time: a quarter of the requests that a lab answers at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An object, and what kubectl prints with it."""

    body: Mapping[str, Any]
    code: int = 200
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A request's parameters besides the path."""

    labels: str = ""
    fields: str = ""
    version: int = 0
    """The newest that the client has seen; 0: none."""
    sends_list: bool = False
    """Whether a watch begins with every object, and says where these end."""
    limit: int = 0
    """Most objects in an answer; 0: all."""
    after: str = ""
    """Where the answer before ended, as in its `continue`."""
    dry_run: bool = False
    grace_s: int | None = None
    preconditions: Mapping[str, object] = field(default_factory=dict)
    """Metadata that an object must have for its deletion: `uid`, `resourceVersion`."""
    table: bool = False
    """As columns, for printing."""
    whole_rows: bool = False


class Objects:
    """Every object of the lab."""

    def __init__(self, lab: AsyncLab) -> None:
        self._lab = lab
        versions = Versions()
        self._collections = {one: Collection(one, lab, versions) for one in RESOURCES}
        self._changing = asyncio.Lock()
        """A compared version must still be the newest when the change is made."""
        self._deletions: set[asyncio.Task[None]] = set()

    async def get(self, place: ApiPlace) -> Object:
        """Return one object. Raises Failure."""
        found = await self._find(place)
        if found is None:
            raise not_found(place)
        return found

    async def _find(self, place: ApiPlace) -> Object | None:
        try:
            return await self._collections[place.resource].look_at(place.name or "", place.namespace)
        except TestbedError as error:
            raise from_lab(error, place) from error

    async def shown(self, place: ApiPlace, query: Query) -> Mapping[str, Any]:
        """Return one object, or columns of it. Raises Failure."""
        item = await self.get(place)
        kind = place.resource.kind.name
        return tables.table(kind, [item], {}, whole=query.whole_rows) if query.table else item

    async def listed(self, place: ApiPlace, query: Query) -> Mapping[str, Any]:
        """Return the objects selected by a query. Raises Failure."""
        found, version = await self._look(place)
        is_meant = self._meant(place, query)
        items = [item for item in found if is_meant(item)]
        kind = place.resource.kind
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if query.after or 0 < query.limit < len(items):
            items, rest = _page(items, query)
            metadata |= {"continue": _mark(items[-1]), "remainingItemCount": rest} if rest else {}
        if query.table:
            return tables.table(kind.name, items, metadata, whole=query.whole_rows)
        return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}

    def watch(self, place: ApiPlace, query: Query) -> AsyncGenerator[Mapping[str, Any], None]:
        """Return events about the objects selected by a query. Raises Failure.

        What it yields raises Failure too (410 for a version that is too old).
        """
        return self._events(place, query, self._meant(place, query))

    async def _events(
        self, place: ApiPlace, query: Query, is_meant: Callable[[Object], bool]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        since, with_heading = query.version, True
        if not since or query.sends_list:
            found, since = await self._look(place)
            for item in filter(is_meant, found):
                yield _event(place, query, "ADDED", item, heading=with_heading)
                with_heading = False
        if query.sends_list:
            yield _end_of_list(place, since)
        async for change in self._collections[place.resource].watch(since):
            what = _seen_as(change, is_meant)
            if what is not None:
                yield _event(place, query, what, change.object, heading=with_heading)
                with_heading = False

    async def create(self, place: ApiPlace, item: Object, query: Query) -> Answer:
        """Create an object. Raises Failure."""
        place = self._place_of(place, item)
        async with self._changing:
            if await self._find(place) is not None:
                raise already_there(place)
            return replace(await self._apply(place, item, query), code=201)

    async def put(self, place: ApiPlace, item: Object, query: Query) -> Answer:
        """Replace an existing object. Raises Failure (409: it has changed since)."""
        async with self._changing:
            before = await self.get(place)
            return await self._change(place, before, item, query)

    async def patch(self, place: ApiPlace, kind: str, patch: object, query: Query) -> Answer:
        """Change part of an object. Raises Failure."""
        async with self._changing:
            before = await self.get(place)
            return await self._change(place, before, patches.patched(before, kind, patch), query)

    async def delete(self, place: ApiPlace, query: Query, turns: asyncio.Semaphore | None = None) -> Object:
        """Delete an object; return when it is gone, or has begun to end. Raises Failure.

        With `turns`, begin when there is one, and give it back when the object is gone.
        """
        if not place.resource.is_stored:
            return success(name=place.name, kind=place.resource.kind.plural)
        item = await self.get(place)
        if not place.resource.changes:
            raise _unchangeable(place, "delete")
        for name, wanted in query.preconditions.items():
            got = item["metadata"].get(name)
            if wanted not in (None, got):
                raise Failure(409, f"precondition failed: {name} (got {got}; want {wanted})", place)
        if query.dry_run:
            return item
        if turns is not None:
            await turns.acquire()
        task = asyncio.create_task(self._lab.delete(place, query.grace_s))
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)
        if turns is not None:
            task.add_done_callback(lambda _: turns.release())
        done, _ = await asyncio.wait({task}, timeout=DELETE_LIMIT_S)
        if done:
            task.result()
            return success(name=place.name, kind=place.resource.kind.plural, uid=item["metadata"]["uid"])
        return item

    async def delete_all(self, place: ApiPlace, query: Query) -> Mapping[str, Any]:
        """Delete the objects selected by a query. Raises Failure."""
        found = await self.listed(place, replace(query, table=False))
        turns = asyncio.Semaphore(DELETIONS)

        async def delete(metadata: Mapping[str, Any]) -> None:
            one = replace(place, namespace=metadata.get("namespace"), name=metadata["name"])
            try:
                await self.delete(one, query, turns)
            except Failure as failure:
                # It has ended meanwhile.
                if failure.code != HTTPStatus.NOT_FOUND:
                    raise

        await asyncio.gather(*(delete(item["metadata"]) for item in found["items"]))
        return found

    async def _change(self, place: ApiPlace, before: Object, item: Object, query: Query) -> Answer:
        named = self._place_of(place, item)
        version = item["metadata"].get("resourceVersion")
        if version and version != before["metadata"]["resourceVersion"]:
            raise conflict(place)
        if named.name != place.name:
            raise Failure(400, f"the name may not change (got {named.name}; want {place.name})", place)
        if place.resource.kind is NODE:
            return await self._change_node(place, before, item, query)
        if _wanted(item) == _wanted(before):
            return Answer(before)
        return await self._apply(place, item, query)

    async def _change_node(self, place: ApiPlace, before: Object, item: Object, query: Query) -> Answer:
        """Cordon or uncordon a node; the rest of it is in the cluster file."""
        spec = item.get("spec") or {}
        if not isinstance(spec, dict):
            raise Failure(422, "spec: not an object", place)
        closed = bool(spec.get("unschedulable"))
        if item["metadata"].get("labels") != before["metadata"].get("labels"):
            raise Failure(403, "a node's labels are in the cluster file (nodes.NAME.labels), then up again", place)
        if changed := _differences(_fixed_of_node(before), _fixed_of_node(item)):
            raise Failure(
                400, f"{', '.join(changed)}: cannot be changed on a node (want spec.unschedulable: cordon)", place
            )
        if closed != bool(before["spec"].get("unschedulable")) and not query.dry_run:
            await self._lab.node(place, "cordon" if closed else "uncordon")
        return Answer(await self.get(place))

    async def _apply(self, place: ApiPlace, item: Object, query: Query) -> Answer:
        if not place.resource.changes:
            raise _unchangeable(place, "create")
        answer = await self._lab.apply(_wanted(item), place, dry_run=query.dry_run)
        # Without a position in the request, which the client's user has not written.
        warnings = tuple(re.sub(rf"^error: {REQUEST_BODY}:\d+:\d+: ", "", one) for one in answer["warnings"])
        is_there = place.resource.is_stored and not query.dry_run
        return Answer(await self.get(place) if is_there else item, 200, warnings)

    async def _look(self, place: ApiPlace) -> tuple[list[Object], int]:
        try:
            return await self._collections[place.resource].look()
        except TestbedError as error:
            raise from_lab(error, place) from error

    @staticmethod
    def _meant(place: ApiPlace, query: Query) -> Callable[[Object], bool]:
        chosen = selection(query.labels, query.fields)

        def is_meant(item: Object) -> bool:
            metadata = item["metadata"]
            here = place.namespace in (None, metadata.get("namespace"))
            return here and place.name in (None, metadata["name"]) and chosen(item)

        return is_meant

    @staticmethod
    def _place_of(place: ApiPlace, item: Object) -> ApiPlace:
        """Return an object's own place. Raises Failure if that differs from the request's."""
        kind, metadata = place.resource.kind, item.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise Failure(422, "metadata.name: is missing (generateName is not served)", place)
        if (item.get("apiVersion"), item.get("kind")) != (kind.api_version, kind.name):
            got = f"{item.get('apiVersion')} {item.get('kind')}"
            raise Failure(400, f"the path and the object do not agree (got {got}; want {kind.api_version} {kind.name})")
        if kind.namespaced and metadata.setdefault("namespace", place.namespace) != place.namespace:
            where = f"got {metadata['namespace']}; want {place.namespace}"
            raise Failure(400, f"the namespace of the object is not that of the request ({where})", place)
        return replace(place, name=metadata["name"])


def _seen_as(change: ObjectChange, is_meant: Callable[[Object], bool]) -> str | None:
    """Return what a change is to one who sees a selection, which an object may enter and leave; None: nothing."""
    was_meant = change.before is not None and is_meant(change.before)
    if change.is_end or not is_meant(change.object):
        return "DELETED" if was_meant else None
    return "MODIFIED" if was_meant else "ADDED"


def _wanted(item: Object) -> Object:
    """Return the client's part of the object, without what the server sets."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in SERVERS_OWN}
    metadata.pop("ownerReferences", None)
    rest = {key: value for key, value in item.items() if key not in ("status", "testbed", "metadata")}
    return {**rest, "metadata": metadata}


def _fixed_of_node(item: Object) -> Object:
    """Return the client's fields of a node that cannot be changed here, by path; without empty ones."""
    rest = _wanted(item)
    parts = {part: rest.pop(part, None) or {} for part in ("metadata", "spec")}
    fields = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    return {path: value for path, value in {**fields, **rest}.items() if value and path not in NODE_CHANGES}


def _differences(one: Object, other: Object) -> list[str]:
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def _event(place: ApiPlace, query: Query, what: str, item: Object, *, heading: bool) -> Mapping[str, Any]:
    if not query.table:
        return {"type": what, "object": item}
    metadata = {"resourceVersion": item["metadata"]["resourceVersion"]}
    kind = place.resource.kind.name
    return {
        "type": what,
        "object": tables.table(kind, [item], metadata, whole=query.whole_rows, heading=heading),
    }


def _end_of_list(place: ApiPlace, version: int) -> Mapping[str, Any]:
    kind = place.resource.kind
    metadata = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
    return {
        "type": "BOOKMARK",
        "object": {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata},
    }


def _mark(item: Object) -> str:
    """Return an object's place in the order of pages."""
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def _page(items: list[Object], query: Query) -> tuple[list[Object], int]:
    """Return the objects of one page, and how many come after it; in an order that no change affects."""
    rest = sorted((item for item in items if _mark(item) > query.after), key=_mark)
    size = query.limit or len(rest)
    return rest[:size], len(rest[size:])


def _unchangeable(place: ApiPlace, verb: str) -> Failure:
    kind = place.resource.kind
    return Failure(405, f"{kind.plural} cannot be changed here ({verb} {place.name or kind.singular})", place)
