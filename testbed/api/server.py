"""HTTPS: authentication, routing of requests, and the form of answers."""

import asyncio
import contextlib
import hmac
import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from aiohttp import web

from testbed.api import documents, patches, protobuf, remote, subresources
from testbed.api.failure import Failure, from_lab, success
from testbed.api.lab import AsyncLab
from testbed.api.objects import Answer, Objects, Query
from testbed.api.resources import RESOURCES, ApiPlace, Resource, why_not
from testbed.api.reviews import REVIEWS
from testbed.api.selection import is_true, number
from testbed.control.wire import WrittenOnce
from testbed.errors import TestbedError
from testbed.places import PROJECT
from testbed.plain_files import MAX_BYTES
from testbed.spelling import printable

log = logging.getLogger(__name__)
JSON = "application/json"
MOST_WATCHES = 256
"""Limit of concurrent watches."""
WRITE_LIMIT_S = 60.0
"""A watcher that reads nothing for this time is disconnected; it lists again."""
TOKEN_PREFIX = "Bearer "
METHODS = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}
"""Of HTTP, by the verb of a subresource."""
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
        # A client that leaves ends what it follows, also while that says nothing.
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await runner.setup()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        tls.load_cert_chain(certificate, key)
        await web.SockSite(runner, listener, ssl_context=tls).start()
        ready()
        await asyncio.Event().wait()

    def application(self) -> web.Application:
        """Return the routes of everything that is served."""
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_BYTES)
        add = application.router.add_route
        for path in ("/healthz", "/livez", "/readyz"):
            add("GET", path, _healthy)
        for path, document in {"/version": lambda: self._version, **documents.DOCUMENTS}.items():
            add("GET", f"{path}{{end:/?}}", partial(_document, document))
        for path, review in REVIEWS.items():
            add("POST", path, partial(_review, review))
        for resource in RESOURCES:
            for path, handlers in self._handlers(resource).items():
                for method, handler in handlers.items():
                    add(method, path, partial(_at_place, resource, handler))
        return application

    def _handlers(self, resource: Resource) -> Mapping[str, Mapping[str, Handler]]:
        """Return the handlers of a kind's paths, by method."""
        one, record = f"{resource.collection}/{{name}}", self._lab.record
        below: Mapping[str, Handler] = {
            "log": partial(subresources.serve_log, record=record),
            "exec": partial(remote.serve_exec, record=record),
            "portforward": partial(remote.serve_port_forward, record=record),
            "eviction": self._evict,
            "scale": self._scale,
        }
        return {
            resource.everywhere: {"GET": self._get},
            resource.collection: {"GET": self._get, "POST": self._create, "DELETE": self._delete_all},
            one: {"GET": self._get, "PUT": self._replace, "PATCH": self._patch, "DELETE": self._delete},
            **{
                f"{one}/{word}": {METHODS[verb]: below[word] for verb in verbs}
                for word, (_, verbs) in resource.subresources.items()
            },
        }

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
            why = {404: why_not(request.path), 405: f"the server does not allow this method here ({request.method})"}
            return _written(Failure(error.status, why.get(error.status, error.reason)).status(), error.status)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return _written(Failure(500, "internal error (see logs/api.log of the lab)").status(), 500)

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
                    await self._write_events(request, response, events)
        finally:
            self._watches -= 1
        with contextlib.suppress(ConnectionError):
            await written_in_time(request, response.write_eof())
        return response

    @staticmethod
    async def _write_events(
        request: web.Request, response: web.StreamResponse, events: AsyncGenerator[Mapping[str, Any], None]
    ) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    await written_in_time(request, response.write(_text(event) + b"\n"))
        except Failure as failure:
            last = _text({"type": "ERROR", "object": failure.status()}) + b"\n"
            await written_in_time(request, response.write(last))

    async def _create(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        return _changed(await self._objects.create(place, await _body(request), _query(request)))

    async def _replace(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        return _changed(await self._objects.put(place, await _body(request), _query(request)))

    async def _patch(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        if request.content_type == "application/apply-patch+yaml":
            what = "server-side apply is not served (want kubectl apply without --server-side)"
            raise Failure(415, what, place)
        patch = await _json(request)
        return _changed(await self._objects.patch(place, request.content_type, patch, _query(request)))

    async def _delete(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        return _written(await self._objects.delete(place, await _deletion(request)))

    async def _delete_all(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        return _written(await self._objects.delete_all(place, await _deletion(request)))

    async def _evict(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        options = (await _body(request)).get("deleteOptions")
        await self._objects.delete(place, _query(request, options))
        return _written(success(), 201)

    async def _scale(self, request: web.Request, place: ApiPlace) -> web.StreamResponse:
        now = await self._objects.get(place)
        if request.method == "GET":
            return _written(subresources.scale_of(now))
        wanted = await _json(request)
        if request.method == "PATCH":
            wanted = patches.patched(subresources.scale_of(now), request.content_type, wanted)
        replicas = subresources.replicas_of(wanted, now, place)
        if _query(request).dry_run:
            return _written({**subresources.scale_of(now), "spec": {"replicas": replicas}})
        await self._lab.scale(place, replicas)
        return _written(subresources.scale_of(await self._objects.get(place)))


async def written_in_time(request: web.Request, writing: Awaitable[None]) -> None:
    """Wait until a client has taken what is written; disconnect one that reads nothing for WRITE_LIMIT_S.

    Raises ConnectionError.
    """
    try:
        async with asyncio.timeout(WRITE_LIMIT_S):
            await writing
    except TimeoutError as late:
        # Without this, the end of the response would wait for the client too.
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError(f"the client reads nothing for {WRITE_LIMIT_S:g} s") from late


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _document(document: Callable[[], documents.Document], _: web.Request) -> web.Response:
    return _written(document())


async def _review(answer: Mapping[str, Any], _: web.Request) -> web.Response:
    return _written(answer, 201)


async def _at_place(resource: Resource, handler: Handler, request: web.Request) -> web.StreamResponse:
    """Answer a request whose path names a place."""
    named = request.match_info
    return await handler(request, ApiPlace(resource, named.get("namespace"), named.get("name")))


async def _deletion(request: web.Request) -> Query:
    return _query(request, await _json(request) if request.can_read_body else None)


def _query(request: web.Request, options: object = None) -> Query:
    """Return what a request asks for; `options` are those of a deletion. Raises Failure (400)."""
    given, own = request.query, options or {}
    if not isinstance(own, dict):
        raise Failure(400, "the options of a deletion are not an object")
    dry_run, preconditions = own.get("dryRun") or [], own.get("preconditions") or {}
    if not isinstance(dry_run, list) or not isinstance(preconditions, dict):
        raise Failure(400, "the options of a deletion: dryRun is not a list, or preconditions are not an object")
    policies = (given.get("propagationPolicy"), own.get("propagationPolicy"))
    if "Orphan" in policies or is_true(given.get("orphanDependents")) or own.get("orphanDependents"):
        raise Failure(
            400, "orphaning is not served: what an object owns is deleted with it (want --cascade=background)"
        )
    grace = "gracePeriodSeconds"
    return Query(
        labels=given.get("labelSelector", ""),
        fields=given.get("fieldSelector", ""),
        version=number(given.get("resourceVersion"), "resourceVersion") or 0,
        sends_list=is_true(given.get("sendInitialEvents")),
        limit=number(given.get("limit"), "limit") or 0,
        after=given.get("continue", ""),
        dry_run="All" in given.getall("dryRun", dry_run),
        grace_s=number(given.get(grace, own.get(grace)), grace),
        preconditions=preconditions,
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
        # A name in it may have characters that no header has.
        text = printable(warning.replace("\n", " ")).replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    return response


def _written(body: Mapping[str, Any], code: int = 200) -> web.Response:
    return web.Response(body=_text(body), status=code, content_type=JSON)


def _text(body: Mapping[str, Any]) -> bytes:
    """Return JSON in its wire form."""
    return WrittenOnce(body).text.encode()
