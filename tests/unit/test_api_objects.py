"""What a client of the API sees of objects that change."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from testbed.api.failure import Failure
from testbed.api.lab import AsyncLab, named
from testbed.api.objects import Objects, Query
from testbed.api.resources import ApiPlace, Resource
from testbed.cluster.kinds import CONFIG_MAP, NODE


class _Lab(AsyncLab):
    """Has the objects that a test gives it."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def objects(self, resource: Resource) -> Sequence[Any]:
        return [dict(one) for one in self.found]

    def find(self, resource: Resource, name: str, namespace: str | None) -> Any:  # noqa: ANN401 - as in AsyncLab
        return named(self.objects(resource), name, namespace)


def _config_map(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _place() -> ApiPlace:
    return ApiPlace(Resource(CONFIG_MAP), "default", None)


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


async def _begins_with(query: Query) -> list[tuple[str, str | None]]:
    """Return the type and name of a watch's first three events."""
    lab = _Lab()
    lab.found = [_config_map("b"), _config_map("a")]
    events = Objects(lab).watch(_place(), query)
    async with asyncio.timeout(10):
        seen = [await anext(events) for _ in range(3)]
    await events.aclose()
    assert seen[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(seen[2]["object"]["metadata"]["resourceVersion"]) > 0
    return [(event["type"], event["object"]["metadata"].get("name")) for event in seen]


def test_a_watch_that_asks_for_its_list_sees_where_that_ends() -> None:
    want = [("ADDED", "b"), ("ADDED", "a"), ("BOOKMARK", None)]
    assert asyncio.run(_begins_with(Query(sends_list=True))) == want


async def _pages(limit: int) -> list[list[str]]:
    lab = _Lab()
    lab.found = [_config_map(name) for name in "decab"]
    objects, pages, after = Objects(lab), list[list[str]](), ""
    while True:
        page = await objects.listed(_place(), Query(limit=limit, after=after))
        pages.append([item["metadata"]["name"] for item in page["items"]])
        after = page["metadata"].get("continue", "")
        if not after:
            return pages
        assert page["metadata"]["remainingItemCount"] == 5 - sum(map(len, pages))
        # The page's last object is deleted before the next page is requested.
        lab.found = [one for one in lab.found if one["metadata"]["name"] != pages[-1][-1]]


def test_a_list_with_a_limit_comes_in_pages_that_skip_nothing() -> None:
    assert asyncio.run(_pages(2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert asyncio.run(_pages(5)) == [["d", "e", "c", "a", "b"]]


UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
NODE_FIELDS = {"podCIDR": "10.0.46.0/24", "podCIDRs": ["10.0.46.0/24"]}
LABELS = {"kubernetes.io/hostname": "node1"}
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
TAINT = {"key": "gpu", "effect": "NoSchedule"}


class _LabOfNodes(_Lab):
    """Has one node, and notes how it is changed."""

    def __init__(self, *, cordoned: bool) -> None:
        super().__init__()
        self.changes = list[str]()
        closed = {"unschedulable": True, "taints": [UNSCHEDULABLE]} if cordoned else {}
        metadata = {"name": "node1", "uid": "1", "labels": LABELS}
        self.found = [{"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {**NODE_FIELDS, **closed}}]

    async def node(self, place: ApiPlace, action: str) -> None:
        self.changes.append(f"{action} {place.name}")


def _change(patch: object, kind: str, *, cordoned: bool = False) -> list[str]:
    """Return what a patch of a node changes. Raises Failure."""
    lab = _LabOfNodes(cordoned=cordoned)
    try:
        asyncio.run(Objects(lab).patch(ApiPlace(Resource(NODE), None, "node1"), kind, patch, Query()))
    except Failure:
        assert lab.changes == []
        raise
    return lab.changes


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"spec": {"taints": [TAINT]}}, "spec.taints"),
        ({"spec": {"taints": [TAINT], "unschedulable": True}}, "spec.taints"),
        ({"spec": {"podCIDR": None, "podCIDRs": None}}, "spec.podCIDR, spec.podCIDRs"),
        ({"metadata": {"annotations": {"owner": "anna"}}}, "metadata.annotations"),
        ({"more": 1}, "more"),
    ],
)
def test_a_field_of_a_node_that_cannot_be_changed_is_refused_by_its_name(patch: object, field: str, kind: str) -> None:
    with pytest.raises(Failure, match=f"^{field}: ") as refused:
        _change(patch, kind)
    assert refused.value.code == 400


def test_labels_of_a_node_are_refused_with_the_place_that_has_them() -> None:
    with pytest.raises(Failure, match="labels are in the cluster file"):
        _change({"metadata": {"labels": {"tier": "front"}, "annotations": {"a": "b"}}}, STRATEGIC)


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
@pytest.mark.parametrize(
    ("patch", "cordoned", "done"),
    [
        ({"spec": {"unschedulable": True}}, False, ["cordon node1"]),
        ({"spec": {"unschedulable": True}}, True, []),
        ({"spec": {"unschedulable": None}}, True, ["uncordon node1"]),
        ({"spec": {"unschedulable": False}}, True, ["uncordon node1"]),
        ({"spec": {"unschedulable": False}}, False, []),
        ({"spec": {"unschedulable": True, **NODE_FIELDS}, "metadata": {"labels": LABELS}}, False, ["cordon node1"]),
        ({"spec": {"taints": [UNSCHEDULABLE]}}, True, []),
        ({"metadata": {"annotations": {}, "resourceVersion": None}, "status": {"phase": "x"}}, False, []),
    ],
)
def test_a_node_is_cordoned_and_values_that_it_has_are_no_change(
    patch: object, cordoned: bool, done: Sequence[str], kind: str
) -> None:
    assert _change(patch, kind, cordoned=cordoned) == done


class _SlowLab(_Lab):
    """Takes some time to delete an object, and notes how many are deleted at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def delete(self, place: ApiPlace, grace_s: int | None) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.05)
        self.found = [one for one in self.found if one["metadata"]["name"] != place.name]
        self.now -= 1


def test_some_objects_of_a_collection_are_deleted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.api.objects.DELETIONS", 4)
    monkeypatch.setattr("testbed.api.objects.DELETE_LIMIT_S", 5.0)
    lab = _SlowLab()
    lab.found = [_config_map(f"one{number}") for number in range(10)]
    listed = asyncio.run(Objects(lab).delete_all(_place(), Query()))
    assert len(listed["items"]) == 10
    assert (lab.found, lab.most) == ([], 4)
