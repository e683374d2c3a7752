"""The lab's objects with resource versions, and what changed since one of them.

The lab itself has no versions: it is asked for all objects of a kind, and compared with the previous answer. So a
change that was not announced, such as the end of a container, is found like any other. While a kind is watched, the
lab is polled, seldom enough to take a tenth of a core at most. A request for one object asks the lab for that one
only, unless everything is about to be asked for: of a thousand objects it arrives sooner, and watchers see its change
at once.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from testbed.api.failure import Failure
from testbed.api.resources import Resource
from testbed.control.wire import WrittenOnce
from testbed.errors import TestbedError

log = logging.getLogger(__name__)

Object = dict[str, Any]
HISTORY = 4096
"""Changes remembered per kind; a client that asks for an older one has to list again (410)."""
PERIOD_S = 0.05
"""Between two polls of a watched kind."""
RETRY_S = 1.0
"""After a poll that failed."""
COST_FACTOR = 10
"""A poll is followed by a pause of at least this many times its duration."""


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object as it was at a version."""

    version: int
    before: Object | None
    """None: it was not there."""
    object: Object
    """As it is now, or was at its end."""
    is_end: bool = False


class Versions:
    """Numbers of changes, one row for all kinds; a server that starts later goes on above an earlier one's."""

    def __init__(self) -> None:
        self._last = time.time_ns() // 1_000_000

    @property
    def last(self) -> int:
        """Return the newest."""
        return self._last

    def next(self) -> int:
        """Return one more."""
        self._last += 1
        return self._last


class AskedLab(Protocol):
    """The lab behind a collection. Its methods block, so they run in a thread; each may raise TestbedError."""

    def objects(self, resource: Resource) -> Sequence[Object]:
        """Return every object of a kind."""

    def find(self, resource: Resource, name: str, namespace: str | None) -> Object | None:
        """Return one of them; None: it is not there."""


class Collection:
    """Every object of a kind."""

    def __init__(self, resource: Resource, lab: AskedLab, versions: Versions) -> None:
        self.resource = resource
        self._lab = lab
        self._versions = versions
        self._objects: dict[str, Object] = {}
        self._answer: Sequence[Object] | None = None
        """The lab's last list; None if something newer is known."""
        self._bare: dict[str, Object] = {}
        """Each object as the lab last sent it, by key."""
        self._changes: deque[ObjectChange] = deque(maxlen=HISTORY)
        self._forgotten = versions.last
        """The newest change that is no longer remembered."""
        self._looking = asyncio.Lock()
        self._next: asyncio.Task[tuple[list[Object], int]] | None = None
        """The next look, while it has not begun."""
        self._changed = asyncio.Condition()
        self._cost_s = 0.0
        """How long the last look took."""
        self._watchers = 0
        self._follower: asyncio.Task[None] | None = None

    async def look(self) -> tuple[list[Object], int]:
        """Ask the lab; return the objects and their version. Raises TestbedError.

        Clients that ask while the lab is being asked share the next answer.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        return await asyncio.shield(self._next)

    async def _look(self) -> tuple[list[Object], int]:
        async with self._looking:
            self._next = None
            began = time.monotonic()
            found = await asyncio.to_thread(self._lab.objects, self.resource)
            self._take(found)
            self._cost_s = time.monotonic() - began
            version = self._versions.last
            objects = list(self._objects.values())
        async with self._changed:
            self._changed.notify_all()
        return objects, version

    async def look_at(self, name: str, namespace: str | None) -> Object | None:
        """Ask the lab for one object; None: it is not there. Raises TestbedError."""
        key = f"{namespace or ''}/{name}"
        if self._next is not None:
            await self.look()
            return self._objects.get(key)
        async with self._looking:
            item = await asyncio.to_thread(self._lab.find, self.resource, name, namespace)
            # The last list is older than this: the next one is compared even if it is the same.
            self._answer = None
            self._take_one(key, item)
            found = self._objects.get(key)
        async with self._changed:
            self._changed.notify_all()
        return found

    async def watch(self, since: int) -> AsyncGenerator[ObjectChange, None]:
        """Yield each change after a version, without end.

        Raises Failure (410) when that version is no longer remembered.
        """
        self._watchers += 1
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow())
        try:
            while True:
                if since < self._forgotten:
                    raise Failure(410, f"too old resource version: {since} ({self._forgotten})")
                fresh = [one for one in self._changes if one.version > since]
                for one in fresh:
                    yield one
                    since = one.version
                if not fresh:
                    async with self._changed:
                        await self._changed.wait()
        finally:
            self._watchers -= 1

    async def _follow(self) -> None:
        while self._watchers:
            try:
                await self.look()
            except TestbedError:
                # It is busy, or ending.
                await asyncio.sleep(RETRY_S)
            except Exception:
                # Clients that watch would wait for ever.
                log.exception("watched %s", self.resource.kind.plural)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(max(PERIOD_S, COST_FACTOR * self._cost_s))

    def _take(self, found: Sequence[Object]) -> None:
        if found is self._answer:
            return
        self._answer = found
        bare = {_key(item): item for item in found}
        # Those that ended, then those that are there, which may have come in place of them.
        for key in [key for key in self._bare if key not in bare]:
            self._take_one(key, None)
        for key, item in bare.items():
            self._take_one(key, item)
        # In the lab's order.
        self._objects = {key: self._objects[key] for key in bare}

    def _take_one(self, key: str, item: Object | None) -> None:
        known = self._bare.get(key)
        if item == known:
            return
        if known is not None and (item is None or item["metadata"].get("uid") != known["metadata"].get("uid")):
            # Deleted, or replaced by another of the same name.
            last = self._objects.pop(key)
            self._note(last, last, is_end=True)
            del self._bare[key]
        if item is None:
            return
        generation = self._generation(key, item)
        fresh = {**item, "metadata": {**item["metadata"], "generation": generation}}
        if self.resource.group == "apps":
            fresh["status"] = {"observedGeneration": generation, **item["status"]}
        self._objects[key] = self._note(self._objects.get(key), fresh)
        self._bare[key] = item

    def _generation(self, key: str, item: Object) -> int:
        """Incremented by each change of the desired state."""
        known = self._objects.get(key)
        if known is None:
            return 1
        generation: int = known["metadata"]["generation"]
        return generation + (self._bare[key].get("spec") != item.get("spec"))

    def _note(self, before: Object | None, item: Object, *, is_end: bool = False) -> Object:
        version = self._versions.next()
        metadata = WrittenOnce({**item["metadata"], "resourceVersion": str(version)})
        item = WrittenOnce({**item, "metadata": metadata})
        if len(self._changes) == HISTORY:
            self._forgotten = self._changes[0].version
        self._changes.append(ObjectChange(version, before, item, is_end))
        return item


def _key(item: Mapping[str, Any]) -> str:
    metadata = item["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
