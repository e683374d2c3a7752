"""Requests over HTTP to the API server's routes, in front of a lab whose objects a test gives."""

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from testbed.api import server, streams
from testbed.api.failure import Failure
from testbed.api.lab import AsyncLab, named
from testbed.api.resources import ApiPlace, Resource
from testbed.api.server import ApiServer
from testbed.api.streams import start_exec
from testbed.cluster.object_key import ObjectKey
from testbed.control.client import LabRecord, start_ticks
from testbed.control.programs import run_for_client
from testbed.control.questions import DELETE, EXEC, GET
from testbed.control.server import ControlServer, Request, Verb
from testbed.control.wire import CONTROL_SOCKET
from testbed.errors import TestbedError
from tests.waiting import wait_until

TOKEN = "secret"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}
WEB_UID = "1"
WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop", "uid": WEB_UID, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}},
    "status": {"replicas": 1},
}
SCALE = "/apis/apps/v1/namespaces/shop/deployments/web/scale"


class _Lab(AsyncLab):
    """Has a Deployment in the namespace shop."""

    def __init__(self) -> None:
        super().__init__(LabRecord("none", 0, 0, Path("/nonexistent"), 0))
        self.replicas = list[int]()

    def objects(self, resource: Resource) -> Sequence[Any]:
        return [WEB] if resource.kind.name == "Deployment" else []

    def find(self, resource: Resource, name: str, namespace: str | None) -> Any:  # noqa: ANN401 - as in AsyncLab
        return named(self.objects(resource), name, namespace)

    async def scale(self, place: object, replicas: int) -> None:
        self.replicas.append(replicas)


def _answer(
    method: str, path: str, body: object = None, headers: Mapping[str, str] = KNOWN, lab: AsyncLab | None = None
) -> tuple[int, Any]:
    async def scenario() -> tuple[int, Any]:
        application = ApiServer(lab or _Lab(), TOKEN).application()
        async with TestClient(TestServer(application)) as client:
            answer = await client.request(method, path, json=body, headers=headers)
            return answer.status, await answer.json(content_type=None)

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/apis/apps/v1/deployments", ["web"]),
        ("/apis/apps/v1/namespaces/shop/deployments", ["web"]),
        ("/apis/apps/v1/namespaces/other/deployments", []),
        ("/api/v1/nodes", []),
        ("/api/v1/namespaces", []),
    ],
)
def test_a_path_lists_what_is_below_it(path: str, names: Sequence[str]) -> None:
    code, body = _answer("GET", path)
    assert (code, [item["metadata"]["name"] for item in body["items"]]) == (200, names)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/apis/apps/v1/namespaces/shop/deployments/other", 'deployments.apps "other" not found'),
        ("/api/v1/namespaces/shop", 'namespaces "shop" not found'),
        ("/api/v1/nodes/node1", 'nodes "node1" not found'),
        ("/", "could not find the requested resource"),
        ("/api/v2/pods", "could not find the requested resource"),
        ("/api/v1/jobs", "could not find the requested resource"),
        ("/api/v1/pods/web", "could not find the requested resource"),
        ("/api/v1/namespaces/a/nodes/b", "could not find the requested resource"),
        ("/api/v1/namespaces/a/pods/b/attach", "attach is not served"),
        ("/api/v1/namespaces/a/pods/b/log/c", "could not find the requested resource"),
        ("/apis/testbed/v1/leases", "could not find the requested resource"),
    ],
)
def test_a_path_of_nothing_is_not_found(path: str, says: str) -> None:
    code, body = _answer("GET", path)
    assert (code, body["kind"], body["reason"]) == (404, "Status", "NotFound")
    assert says in body["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/pods"),
        ("PUT", "/api/v1/namespaces/shop/pods"),
        ("POST", "/api/v1/namespaces/shop/pods/web"),
        ("DELETE", SCALE),
        ("GET", "/api/v1/namespaces/shop/pods/web/eviction"),
        ("OPTIONS", "/api/v1/pods"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_refused(method: str, path: str) -> None:
    code, body = _answer(method, path)
    assert (code, body["reason"], method in body["message"]) == (405, "MethodNotAllowed", True)


@pytest.mark.parametrize("path", ["/version", "/nothing", "/api/v1/pods", SCALE])
@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer secre", "secret"])
def test_without_the_token_every_path_answers_the_same(path: str, given: str) -> None:
    code, body = _answer("GET", path, headers={"Authorization": given})
    assert (code, body["reason"], body["message"]) == (401, "Unauthorized", "Unauthorized")


@pytest.mark.parametrize(
    ("method", "kind", "body", "wanted"),
    [
        ("PUT", "application/json", {"spec": {"replicas": 3}}, 3),
        ("PUT", "application/json", {"metadata": {"name": "web"}, "spec": {}}, 0),
        ("PATCH", "application/merge-patch+json", {"spec": {"replicas": 2}}, 2),
        ("PATCH", "application/json-patch+json", [{"op": "replace", "path": "/spec/replicas", "value": 4}], 4),
    ],
)
def test_a_scale_is_replaced_and_patched(method: str, kind: str, body: object, wanted: int) -> None:
    lab = _Lab()
    code, answer = _answer(method, SCALE, body, {**KNOWN, "Content-Type": kind}, lab)
    assert (code, answer["kind"], lab.replicas) == (200, "Scale", [wanted])


@pytest.mark.parametrize(("method", "body"), [("PUT", {"spec": {"replicas": 3}}), ("PATCH", {"spec": {"replicas": 3}})])
def test_a_scale_that_is_only_tried_shows_its_outcome_and_changes_nothing(method: str, body: object) -> None:
    lab, kind = _Lab(), "application/json" if method == "PUT" else MERGE
    code, answer = _answer(method, f"{SCALE}?dryRun=All", body, {**KNOWN, "Content-Type": kind}, lab)
    assert (code, answer["kind"], answer["spec"], answer["status"]["replicas"]) == (200, "Scale", {"replicas": 3}, 1)
    assert lab.replicas == []


def test_a_scale_that_is_only_tried_is_checked_all_the_same() -> None:
    assert _answer("PUT", f"{SCALE}?dryRun=All", {"spec": {"replicas": -1}})[0] == 422


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], 400),
        ({"spec": "two"}, 400),
        ({"metadata": [1], "spec": {"replicas": 2}}, 400),
        ({"spec": {"replicas": -1}}, 422),
        ({"spec": {"replicas": 1001}}, 422),
        ({"spec": {"replicas": "two"}}, 422),
        ({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 2}}, 409),
    ],
)
def test_a_scale_that_cannot_be_is_refused(body: object, code: int) -> None:
    lab = _Lab()
    assert (_answer("PUT", SCALE, body, lab=lab)[0], lab.replicas) == (code, [])


class _LabThatRefuses(_Lab):
    """Refuses each object, as a lab does if its form is wrong."""

    async def apply(self, item: object, place: object, *, dry_run: bool) -> Any:  # noqa: ANN401 - as in AsyncLab
        raise Failure(400, f"refused: {item} at {place} ({dry_run})")

    async def delete(self, place: object, grace_s: int | None) -> None:
        """Delete nothing."""


class _LabThatDeletes(_Lab):
    def __init__(self) -> None:
        super().__init__()
        self.deleted = list[str | None]()

    async def delete(self, place: ApiPlace, grace_s: int | None) -> None:
        self.deleted.append(place.name)


WEB_PATH = "/apis/apps/v1/namespaces/shop/deployments/web"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
ODD: Sequence[object] = (None, [], {}, 5, "x", True, [1], {"a": None}, {"$patch": 1})


@pytest.mark.parametrize("odd", ODD, ids=json.dumps)
def test_json_of_another_form_than_an_object_has_is_refused_and_is_no_fault_of_ours(odd: object) -> None:
    lists = {"$deleteFromPrimitiveList/finalizers": odd, "$setElementOrder/containers": odd, "containers": odd}
    template = {"template": {"spec": {"containers": [{"name": odd, "ports": odd}]}}}
    requests: Sequence[tuple[str, str, str, object]] = (
        ("POST", WEB_PATH.rpartition("/")[0], "application/json", {**WEB, "metadata": odd}),
        ("PUT", WEB_PATH, "application/json", {**WEB, "metadata": odd}),
        ("PUT", WEB_PATH, "application/json", odd),
        ("PUT", SCALE, "application/json", {"metadata": odd, "spec": odd}),
        ("PUT", SCALE, "application/json", {"spec": {"replicas": odd}}),
        ("DELETE", WEB_PATH, "application/json", odd),
        ("DELETE", WEB_PATH, "application/json", {"dryRun": odd, "gracePeriodSeconds": odd}),
        *(("PATCH", WEB_PATH, kind, {"metadata": odd}) for kind in (MERGE, STRATEGIC)),
        *(("PATCH", WEB_PATH, kind, odd) for kind in (MERGE, STRATEGIC, "application/json-patch+json")),
        *(("PATCH", WEB_PATH, STRATEGIC, {"spec": spec}) for spec in (lists, template)),
        ("PATCH", WEB_PATH, "application/json-patch+json", [{"op": "add", "path": odd, "value": odd}]),
    )

    async def scenario() -> None:
        application = ApiServer(_LabThatRefuses(), TOKEN).application()
        async with TestClient(TestServer(application), headers=KNOWN) as client:
            for method, path, kind, body in requests:
                headers = {"Content-Type": kind}
                answer = await client.request(method, path, data=json.dumps(body), headers=headers)
                assert answer.status < 500, (method, path, kind, body, await answer.text())

    asyncio.run(scenario())


def test_a_deletion_whose_options_cannot_be_read_deletes_nothing() -> None:
    for options in ([1], {"dryRun": 5}, {"dryRun": "All"}, {"preconditions": ["uid"]}):
        assert _answer("DELETE", WEB_PATH, options, lab=_LabThatRefuses())[0] == 400, options


def test_a_deletion_holds_only_for_the_object_that_it_means() -> None:
    for name, other in {"uid": "2", "resourceVersion": "0"}.items():
        code, body = _answer("DELETE", WEB_PATH, {"preconditions": {name: other}}, lab=_LabThatRefuses())
        assert (code, body["reason"], f"precondition failed: {name} (got " in body["message"]) == (
            409,
            "Conflict",
            True,
        )
    code, body = _answer("DELETE", WEB_PATH, {"preconditions": {"uid": WEB_UID}}, lab=_LabThatRefuses())
    assert (code, body["status"]) == (200, "Success")


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({"propagationPolicy": "Orphan"}, ""),
        ({"orphanDependents": True}, ""),
        ({}, "?propagationPolicy=Orphan"),
        ({}, "?orphanDependents=true"),
        ({"propagationPolicy": "Background"}, "?propagationPolicy=Orphan"),
    ],
)
def test_a_deletion_that_should_leave_the_pods_is_refused_and_deletes_nothing(options: object, query: str) -> None:
    lab, collection = _LabThatDeletes(), WEB_PATH.rpartition("/")[0]
    for path in (WEB_PATH, collection):
        code, body = _answer("DELETE", f"{path}{query}", options, lab=lab)
        assert (code, body["message"].startswith("orphaning is not served: ")) == (400, True)
    pod = WEB_PATH.replace("apis/apps", "api").replace("deployments", "pods")
    assert _answer("POST", f"{pod}/eviction{query}", {"deleteOptions": options}, lab=lab)[0] == 400
    assert lab.deleted == []


@pytest.mark.parametrize(
    "options", [{"propagationPolicy": "Background"}, {"propagationPolicy": "Foreground"}, {"orphanDependents": False}]
)
def test_a_deletion_that_takes_the_pods_along_is_done(options: object) -> None:
    lab = _LabThatDeletes()
    assert (_answer("DELETE", WEB_PATH, options, lab=lab)[0], lab.deleted) == (200, ["web"])


class _LabThatWarns(_Lab):
    async def apply(self, item: object, place: object, *, dry_run: bool) -> Any:  # noqa: ANN401 - as in AsyncLab
        return {"objects": [], "warnings": ["spec.a\rb: ignored\nhere"]}


def test_a_warning_is_one_header_whatever_a_name_in_it_has() -> None:
    async def scenario() -> tuple[int, str]:
        application = ApiServer(_LabThatWarns(), TOKEN).application()
        async with TestClient(TestServer(application), headers=KNOWN) as client:
            new = {**WEB, "metadata": {"name": "new", "namespace": "shop"}}
            answer = await client.post(f"{WEB_PATH.rpartition('/')[0]}?dryRun=All", json=new)
            return answer.status, answer.headers["Warning"]

    assert asyncio.run(scenario()) == (201, '299 - "spec.a\\\\rb: ignored here"')


class _LabWhereOneEnds(_LabThatDeletes):
    """Lists a Deployment that is gone when it is asked for."""

    def objects(self, resource: Resource) -> Sequence[Any]:
        gone: Any = json.loads(json.dumps(WEB))
        gone["metadata"] |= {"name": "gone", "uid": "2"}
        return [gone, WEB] if resource.kind.name == "Deployment" else []

    def find(self, resource: Resource, name: str, namespace: str | None) -> Any:  # noqa: ANN401 - as in AsyncLab
        return None if name == "gone" else super().find(resource, name, namespace)


def test_a_deletion_of_all_leaves_out_what_has_ended_meanwhile() -> None:
    lab = _LabWhereOneEnds()
    code, body = _answer("DELETE", WEB_PATH.rpartition("/")[0], lab=lab)
    assert (code, len(body["items"]), lab.deleted) == (200, 2, ["web"])


def test_a_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_LIMIT_S", 0.01)
    aborted = list[bool]()
    request: Any = SimpleNamespace(transport=SimpleNamespace(abort=lambda: aborted.append(True)))
    with pytest.raises(ConnectionError, match="reads nothing"):
        asyncio.run(server.written_in_time(request, asyncio.sleep(60)))
    assert aborted == [True]


def test_documents_and_reviews_are_served() -> None:
    for path in (
        "/version",
        "/api",
        "/apis",
        "/apis/apps",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v3/apis/apps/v1",
        "/apis/",
    ):
        assert _answer("GET", path)[0] == 200, path
    code, body = _answer("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {})
    assert (code, body["status"]) == (201, {"allowed": True})


DELETIONS = 40


def test_deletions_that_take_their_grace_period_keep_no_other_request_waiting(tmp_path: Path) -> None:
    may_end, all_begun, begun = threading.Event(), threading.Event(), list[bool]()

    def delete(_: Request) -> Any:  # noqa: ANN401 - the answer is not looked at
        begun.append(True)
        if len(begun) == DELETIONS:
            all_begun.set()
        may_end.wait(30)
        return {}

    ControlServer(
        tmp_path / CONTROL_SOCKET,
        [
            Verb(GET, lambda request: [WEB] if request.argument("kind", str) == "deployments" else []),
            Verb(DELETE, delete),
        ],
        os.getuid(),
    ).start()
    lab = AsyncLab(LabRecord("one", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, os.getuid()))
    path = "/apis/apps/v1/namespaces/shop/deployments"

    async def scenario() -> int:
        async with TestClient(TestServer(ApiServer(lab, TOKEN).application()), headers=KNOWN) as client:
            await asyncio.gather(*(client.delete(f"{path}/web") for _ in range(DELETIONS)))
            async with asyncio.timeout(25):
                await asyncio.to_thread(all_begun.wait)
                answer = await client.get(path)
            return len((await answer.json())["items"])

    with contextlib.ExitStack() as undo:
        undo.callback(may_end.set)
        assert asyncio.run(scenario()) == 1


BAD_HANDSHAKES = {
    "no key": {"Sec-WebSocket-Version": "13"},
    "another version": {"Sec-WebSocket-Version": "1", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
}


@pytest.mark.parametrize("headers", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
@pytest.mark.parametrize("query", ["command=sleep&command=60", "command=sleep&command=60&stdin=true&tty=true"])
def test_a_websocket_that_does_not_open_leaves_no_program_running(
    query: str, headers: Mapping[str, str], tmp_path: Path
) -> None:
    programs = [Verb(EXEC, lambda request: run_for_client(request, ["sleep", "60"]))]
    ControlServer(tmp_path / CONTROL_SOCKET, programs, os.getuid()).start()
    lab = AsyncLab(LabRecord("one", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, os.getuid()))
    path = f"/api/v1/namespaces/shop/pods/web/exec?{query}"
    descriptors = len(os.listdir("/proc/self/fd"))

    def is_over() -> bool:
        return all(thread.name != "program" for thread in threading.enumerate())

    async def scenario() -> int:
        async with TestClient(TestServer(ApiServer(lab, TOKEN).application()), headers=KNOWN) as client:
            answer = await client.get(path, headers={"Connection": "Upgrade", "Upgrade": "websocket", **headers})
            await asyncio.to_thread(wait_until, is_over, timeout_s=30, what="the program has ended")
            return answer.status

    assert asyncio.run(scenario()) == 400
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, timeout_s=30, what="its streams are closed")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_program_without_a_thread_for_it_leaves_nothing_open(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    ControlServer(tmp_path / CONTROL_SOCKET, [], os.getuid()).start()
    record = LabRecord("one", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, os.getuid())
    monkeypatch.setattr(streams, "threading", SimpleNamespace(Thread=lambda **_: SimpleNamespace(start=refuse)))
    descriptors = len(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        with pytest.raises(TestbedError, match="can start no thread"):
            start_exec(record, ObjectKey("shop", "web"), None, ["true"], terminal=terminal)

    asyncio.run(scenario())
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, timeout_s=30, what="its streams are closed")
