"""HTTPS: authentication, routing of requests, and the form of answers."""

import asyncio
import contextlib
import hmac
import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from aiohttp import web

from testbed.api import documents, protobuf, remote, subresources
from testbed.api.failure import Failure, from_lab
from testbed.api.lab import AsyncLab
from testbed.api.objects import Answer, Objects, Query, compact
from testbed.api.resources import ApiPlace, place_of, why_not
from testbed.api.reviews import REVIEWS
from testbed.api.selection import is_true, number
from testbed.errors import TestbedError
from testbed.places import PROJECT
from testbed.plain_files import MAX_BYTES

log = logging.getLogger(__name__)
JSON = "application/json"
MOST_WATCHES = 256
"""Limit of concurrent watches."""
WRITE_LIMIT_S = 60.0
"""A watcher that reads nothing for this time is disconnected; it lists again."""
TOKEN_PREFIX = "Bearer "
Handler = Callable[[web.Request, ApiPlace], Awaitable[web.StreamResponse]]


class ApiServer:
    """Serves one lab."""

    def __init__(self, lab: AsyncLab, token: str) -> None:
        """Must be created in the event loop."""
        self._lab = lab
        self._token = token
        self._objects = Objects(lab)
        self._watches = 0
        self._version = documents.version(metadata.version(PROJECT))

    async def run(self, listener: socket.socket, certificate: Path, key: Path, ready: Callable[[], None]) -> None:
        """Serve until the process ends; `ready` is called once it does."""
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_BYTES)
        application.router.add_route("*", "/{path:.*}", self._answer)
        # A client that leaves ends what it follows, also while that says nothing.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(certificate, key)
        await web.SockSite(runner, listener, ssl_context=tls).start()
        ready()
        await asyncio.Event().wait()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Admit clients with the token; write each failure as a Status."""
        try:
            given = request.headers.get("Authorization", "")
            known = f"{TOKEN_PREFIX}{self._token}"
            if not hmac.compare_digest(given.encode(errors="replace"), known.encode()):
                raise Failure(401, "Unauthorized")
            return await handler(request)
        except Failure as failure:
            return _written(failure.status(), failure.code)
        except TestbedError as error:
            refused = from_lab(error)
            return _written(refused.status(), refused.code)
        except web.HTTPException as error:
            return _written(Failure(error.status, error.reason).status(), error.status)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return _written(Failure(500, "internal error (see logs/api.log of the lab)").status(), 500)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.method == "GET":
            if path == "/version":
                return _written(self._version)
            if path in ("/healthz", "/livez", "/readyz"):
                return web.Response(text="ok")
            document = documents.discovery(path) or documents.open_api(path)
            if document is not None:
                return _written(document)
        if request.method == "POST" and path in REVIEWS:
            return _written(REVIEWS[path], 201)
        place = place_of(path)
        if place is None:
            raise Failure(404, why_not(path))
        if place.subresource is not None:
            return await self._below(request, place)
        handlers: dict[str, Handler] = {
            "GET": self._get,
            "POST": self._create,
            "PUT": self._replace,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }
        handler = handlers.get(request.method)
        if handler is None:
            raise Failure(405, f"the server does not allow this method on the requested resource ({request.method})")
        return await handler(request, place)

    async def _below(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        match place.subresource:
            case "exec":
                return await remote.serve_exec(request, place, self._lab.record)
            case "portforward":
                return await remote.serve_port_forward(request, place, self._lab.record)
            case "log":
                return await subresources.serve_log(request, place, self._lab.record)
            case "eviction":
                options = (await _body(request)).get("deleteOptions")
                await self._objects.delete(place, _query(request, options))
                return _written({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)
            case _:
                body = await _body(request) if request.method != "GET" else None
                kind = request.content_type
                return _written(await subresources.scale(self._objects, self._lab, place, request.method, kind, body))

    async def _get(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        query = _query(request)
        if is_true(request.query.get("watch")):
            return await self._watch(request, place, query)
        if place.name is not None:
            return _written(await self._objects.shown(place, query))
        return _written(await self._objects.listed(place, query))

    async def _watch(self, request: web.Request, place: ApiPlace, query: Query) -> web.StreamResponse:
        if self._watches >= MOST_WATCHES:
            raise Failure(429, f"{MOST_WATCHES} watches run already", place)
        limit_s = number(request.query.get("timeoutSeconds"), "timeoutSeconds")
        events = self._objects.watch(place, query)
        response = web.StreamResponse(headers={"Content-Type": JSON})
        self._watches += 1
        try:
            await response.prepare(request)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(limit_s or None):
                    await self._write_events(response, events)
        finally:
            self._watches -= 1
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    @staticmethod
    async def _write_events(response: web.StreamResponse, events: AsyncGenerator[Mapping[str, Any], None]) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    async with asyncio.timeout(WRITE_LIMIT_S):
                        await response.write(compact(event) + b"\n")
        except Failure as failure:
            await response.write(compact({"type": "ERROR", "object": failure.status()}) + b"\n")

    async def _create(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        if place.name is not None:
            raise Failure(405, "an object is created in its collection", place)
        return _changed(await self._objects.create(place, await _body(request), _query(request)))

    async def _replace(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        return _changed(await self._objects.put(_one(place), await _body(request), _query(request)))

    async def _patch(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        if request.content_type == "application/apply-patch+yaml":
            what = "server-side apply is not served (want kubectl apply without --server-side)"
            raise Failure(415, what, place)
        patch = await _json(request)
        return _changed(await self._objects.patch(_one(place), request.content_type, patch, _query(request)))

    async def _delete(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        query = _query(request, await _json(request) if request.can_read_body else None)
        if place.name is None:
            return _written(await self._objects.delete_all(place, query))
        return _written(await self._objects.delete(place, query))


def _one(place: ApiPlace) -> ApiPlace:
    if place.name is None:
        raise Failure(405, "this needs one object", place)
    return place


def _query(request: web.Request, options: object = None) -> Query:
    """Return what a request asks for; `options` are those of a deletion. Raises Failure (400)."""
    given = request.query
    own = options if isinstance(options, dict) else {}
    grace = "gracePeriodSeconds"
    return Query(
        labels=given.get("labelSelector", ""),
        fields=given.get("fieldSelector", ""),
        version=number(given.get("resourceVersion"), "resourceVersion") or 0,
        sends_list=is_true(given.get("sendInitialEvents")),
        limit=number(given.get("limit"), "limit") or 0,
        after=given.get("continue", ""),
        dry_run="All" in given.getall("dryRun", own.get("dryRun") or []),
        grace_s=number(given.get(grace, own.get(grace)), grace),
        table="as=Table" in request.headers.get("Accept", "").replace(" ", ""),
        whole_rows=given.get("includeObject") == "Object",
    )


async def _body(request: web.Request) -> dict[str, Any]:
    body = await _json(request)
    if not isinstance(body, dict):
        raise Failure(400, "the request's body is not an object")
    return body


async def _json(request: web.Request) -> Any:  # noqa: ANN401 - JSON
    data = await request.read()
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.decoded(data)
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise Failure(400, f"the request's body is not JSON: {error}") from error


def _changed(answer: Answer) -> web.Response:
    response = _written(answer.body, answer.code)
    for warning in answer.warnings:
        text = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def _written(body: Mapping[str, Any], code: int = 200) -> web.Response:
    return web.Response(body=compact(body), status=code, content_type=JSON)
