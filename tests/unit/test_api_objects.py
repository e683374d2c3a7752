"""What a client of the API sees of objects that change."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.api.lab import AsyncLab
from testbed.api.objects import Objects, Query
from testbed.api.resources import ApiPlace, Resource, place_of


class _Lab(AsyncLab):
    """Has the objects that a test gives it."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def objects(self, resource: Resource) -> Sequence[Any]:
        return [dict(one) for one in self.found]


def _config_map(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _place() -> ApiPlace:
    place = place_of("/api/v1/namespaces/default/configmaps")
    assert place is not None
    return place


async def _watched(begins_with_list: bool) -> list[tuple[str, str]]:
    """Return the events about `tier=web` while objects come into the selection, change in it, leave it and end."""
    lab = _Lab()
    lab.found = [_config_map("there", tier="web"), _config_map("other", tier="db")]
    objects = Objects(lab)
    listed = await objects.listed(_place(), Query())
    version = 0 if begins_with_list else int(listed["metadata"]["resourceVersion"])
    events = objects.watch(_place(), Query(labels="tier=web", version=version))
    seen: list[Mapping[str, Any]] = []
    steps: tuple[list[dict[str, Any]], ...] = (
        [_config_map("there", tier="web", more="x"), _config_map("other", tier="db")],
        [_config_map("there", tier="db"), _config_map("other", tier="web")],
        [_config_map("other", tier="web", more="y")],
        [],
    )
    async with asyncio.timeout(10):
        if begins_with_list:
            seen.append(await anext(events))
        for expected, found in zip((1, 2, 1, 1), steps, strict=True):
            lab.found = found
            seen += [await anext(events) for _ in range(expected)]
    await events.aclose()
    return [(event["type"], event["object"]["metadata"]["name"]) for event in seen]


WANT = [("MODIFIED", "there"), ("DELETED", "there"), ("ADDED", "other"), ("MODIFIED", "other"), ("DELETED", "other")]


def test_an_object_that_leaves_the_selection_of_a_watch_is_deleted_and_one_that_enters_it_is_added() -> None:
    assert asyncio.run(_watched(begins_with_list=False)) == WANT


def test_a_watch_that_begins_with_a_list_sees_the_same_changes() -> None:
    assert asyncio.run(_watched(begins_with_list=True)) == [("ADDED", "there"), *WANT]
