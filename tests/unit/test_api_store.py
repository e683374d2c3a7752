"""Objects with versions, made of a lab that has none."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from testbed.api import store
from testbed.api.failure import Failure
from testbed.api.lab import RepeatedAnswer, named
from testbed.api.resources import Resource
from testbed.api.store import Collection, ObjectChange, Versions
from testbed.cluster.kinds import DEPLOYMENT, POD
from testbed.errors import TestbedError

PODS, DEPLOYMENTS = Resource(POD), Resource(DEPLOYMENT)


class _Lab:
    def __init__(self, ask: Callable[[], Sequence[dict[str, Any]]] | None = None) -> None:
        self.answer: Sequence[dict[str, Any]] = []
        self._ask = ask

    def objects(self, _resource: Resource) -> Sequence[dict[str, Any]]:
        return self.answer if self._ask is None else self._ask()

    def find(self, resource: Resource, name: str, namespace: str | None) -> Any:  # noqa: ANN401 - as in AsyncLab
        return named(self.objects(resource), name, namespace)


def _object(name: str, uid: str = "1", **rest: object) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": uid}, "spec": {}, "status": {}, **rest}


def _word(change: ObjectChange) -> str:
    return "DELETED" if change.is_end else "ADDED" if change.before is None else "MODIFIED"


async def _next(changes: Any, count: int) -> list[ObjectChange]:  # noqa: ANN401 - an asynchronous generator
    async with asyncio.timeout(5):
        return [await anext(changes) for _ in range(count)]


def test_a_watch_yields_what_was_added_modified_and_deleted_in_this_order() -> None:
    async def scenario() -> list[tuple[str, str]]:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        _, version = await pods.look()
        changes = pods.watch(version)
        lab.answer = [_object("a")]
        seen = await _next(changes, 1)
        lab.answer = [_object("a", status={"phase": "Running"}), _object("b")]
        seen += await _next(changes, 2)
        lab.answer = [_object("b")]
        seen += await _next(changes, 1)
        versions = [int(one.object["metadata"]["resourceVersion"]) for one in seen[:3]]
        assert versions == sorted(set(versions))
        await changes.aclose()
        return [(_word(one), one.object["metadata"]["name"]) for one in seen]

    found = asyncio.run(scenario())
    assert found == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]


def test_an_object_of_the_same_name_that_came_later_is_another_one() -> None:
    async def scenario() -> list[str]:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        lab.answer = [_object("a", uid="1")]
        _, version = await pods.look()
        lab.answer = [_object("a", uid="2")]
        return [_word(one) for one in await _next(pods.watch(version), 2)]

    assert asyncio.run(scenario()) == ["DELETED", "ADDED"]


def test_who_looks_at_one_object_tells_those_who_watch_every_one() -> None:
    async def scenario() -> list[tuple[str, str]]:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        lab.answer = [_object("a"), _object("b")]
        _, version = await pods.look()
        lab.answer = [_object("a", status={"phase": "Running"}), _object("c")]
        found = [await pods.look_at(name, "default") for name in ("c", "a", "b", "b")]
        assert [one and one["metadata"]["name"] for one in found] == ["c", "a", None, None]
        changes = pods.watch(version)
        seen = await _next(changes, 3)
        await changes.aclose()
        listed, _ = await pods.look()
        assert [one["metadata"]["name"] for one in listed] == ["a", "c"]
        assert listed[1] == found[0]
        return [(_word(one), one.object["metadata"]["name"]) for one in seen]

    assert asyncio.run(scenario()) == [("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]


def test_an_answer_that_comes_again_after_a_look_at_one_object_is_compared_again() -> None:
    async def scenario() -> list[str]:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        lab.answer = before = [_object("a", status={"phase": "Pending"})]
        _, version = await pods.look()
        lab.answer = [_object("a", status={"phase": "Running"})]
        await pods.look_at("a", "default")
        lab.answer = before
        await pods.look()
        changes = pods.watch(version)
        seen = await _next(changes, 2)
        await changes.aclose()
        return [one.object["status"]["phase"] for one in seen]

    assert asyncio.run(scenario()) == ["Running", "Pending"]


def test_an_unchanged_object_keeps_its_version_and_a_list_has_the_newest() -> None:
    async def scenario() -> None:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        lab.answer = [_object("a")]
        first, version = await pods.look()
        lab.answer = [_object("a")]
        again, same = await pods.look()
        assert first[0]["metadata"]["resourceVersion"] == again[0]["metadata"]["resourceVersion"]
        assert version == same

    asyncio.run(scenario())


def test_the_generation_counts_changes_of_the_desired_state_only() -> None:
    async def scenario() -> list[tuple[int, int]]:
        lab = _Lab()
        deployments = Collection(DEPLOYMENTS, lab, Versions())
        found = []
        for spec, status in (({"replicas": 1}, {}), ({"replicas": 1}, {"replicas": 1}), ({"replicas": 2}, {})):
            lab.answer = [_object("web", spec=spec, status=dict(status))]
            (one,), _ = await deployments.look()
            found.append((one["metadata"]["generation"], one["status"]["observedGeneration"]))
        return found

    assert asyncio.run(scenario()) == [(1, 1), (1, 1), (2, 2)]


def test_a_watch_from_a_version_that_is_not_remembered_has_to_list_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HISTORY", 2)

    async def scenario() -> None:
        lab = _Lab()
        pods = Collection(PODS, lab, Versions())
        _, version = await pods.look()
        for number in range(4):
            lab.answer = [_object(f"pod{number}")]
            await pods.look()
        with pytest.raises(Failure) as caught:
            await _next(pods.watch(version), 1)
        assert (caught.value.code, caught.value.reason) == (410, "Expired")

    asyncio.run(scenario())


def test_clients_that_ask_together_share_an_answer_that_was_asked_for_after_they_came() -> None:
    async def scenario() -> tuple[int, list[str]]:
        began, may_end, asked = threading.Event(), threading.Event(), list[int]()

        def ask() -> Sequence[dict[str, Any]]:
            asked.append(len(asked))
            found = [_object(f"pod{len(asked)}")]
            began.set()
            may_end.wait(5)
            return found

        pods = Collection(PODS, _Lab(ask), Versions())
        first = asyncio.create_task(pods.look())
        await asyncio.to_thread(began.wait, 5)
        others = [asyncio.create_task(pods.look()) for _ in range(9)]
        left = asyncio.create_task(pods.look())
        await asyncio.sleep(0)
        left.cancel()
        may_end.set()
        answers = await asyncio.gather(first, *others)
        return len(asked), [found[0]["metadata"]["name"] for found, _ in answers]

    assert asyncio.run(scenario()) == (2, ["pod1", *["pod2"] * 9])


def test_a_look_that_failed_is_not_shared_with_clients_that_come_later() -> None:
    async def scenario() -> None:
        answers: list[Sequence[dict[str, Any]] | None] = [None, [_object("a")]]

        def ask() -> Sequence[dict[str, Any]]:
            found = answers.pop(0)
            if found is None:
                raise TestbedError("busy")
            return found

        pods = Collection(PODS, _Lab(ask), Versions())
        with pytest.raises(TestbedError):
            await pods.look()
        found, _ = await pods.look()
        assert [one["metadata"]["name"] for one in found] == ["a"]

    asyncio.run(scenario())


@pytest.mark.parametrize("failure", [TestbedError("busy"), RuntimeError("can't start new thread")])
def test_a_watch_goes_on_after_a_look_that_failed(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    monkeypatch.setattr(store, "RETRY_S", 0.0)

    async def scenario() -> list[str]:
        answers: list[Sequence[dict[str, Any]] | Exception] = [[], failure, [_object("a")]]

        def ask() -> Sequence[dict[str, Any]]:
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(found, Exception):
                raise found
            return found

        pods = Collection(PODS, _Lab(ask), Versions())
        _, version = await pods.look()
        changes = pods.watch(version)
        seen = await _next(changes, 1)
        await changes.aclose()
        return [_word(one) for one in seen]

    assert asyncio.run(scenario()) == ["ADDED"]


def test_an_answer_that_was_there_before_is_not_parsed_again() -> None:
    answer = RepeatedAnswer()
    first = answer(b'{"result":[{"a":1}]}\n')
    assert answer(b'{"result":[{"a":1}]}\n') is first
    assert answer(b'{"result":[{"a":2}]}\n') == {"result": [{"a": 2}]}
    assert answer(b'{"result":[{"a":1}]}\n') == first
