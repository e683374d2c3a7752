"""Subresources: the number of replicas of a workload, and the log of a pod."""

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from testbed.api.failure import Failure, conflict, from_lab
from testbed.api.resources import ApiPlace
from testbed.api.selection import is_true, number
from testbed.api.streams import read_some, start_logs
from testbed.cluster.columns import selector_text
from testbed.cluster.pod_template import MAX_REPLICAS
from testbed.cluster.problems import shorten
from testbed.control.client import LabRecord
from testbed.errors import TestbedError


def scale_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Scale of a workload."""
    metadata = item["metadata"]
    shown = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": item["spec"].get("replicas", 1)},
        "status": {
            "replicas": item["status"].get("replicas", 0),
            "selector": selector_text(item["spec"]["selector"]).replace(", ", ","),
        },
    }


def replicas_of(scale: object, item: Mapping[str, Any], place: ApiPlace) -> int:
    """Return the number that a client's Scale asks for; `item` is the present workload. Raises Failure."""
    metadata, spec = ((scale.get(part) or {}) if isinstance(scale, dict) else None for part in ("metadata", "spec"))
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise Failure(400, "the request's body is not a Scale", place)
    version = metadata.get("resourceVersion")
    if version and version != item["metadata"]["resourceVersion"]:
        raise conflict(place)
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas <= MAX_REPLICAS:
        what = f"spec.replicas: not a number of pods (got {shorten(replicas)}; want 0 to {MAX_REPLICAS})"
        raise Failure(422, what, place)
    return replicas


def _since(query: Mapping[str, str]) -> float | None:
    """Return the time from which on lines are shown. Raises Failure (400)."""
    seconds, moment = number(query.get("sinceSeconds"), "sinceSeconds"), query.get("sinceTime")
    if seconds is not None:
        return time.time() - seconds
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else None
    except ValueError as error:
        raise Failure(400, f"sinceTime: not a time in RFC 3339 (got {shorten(moment)})") from error


async def serve_log(request: web.Request, place: ApiPlace, record: LabRecord) -> web.StreamResponse:
    """Send a container's log, and follow it if asked to. Raises Failure."""
    query = request.query
    tail, limit = (number(query.get(name), name) for name in ("tailLines", "limitBytes"))
    flags = {name: is_true(query.get(name)) for name in ("follow", "previous", "timestamps")}
    options = {"container": query.get("container"), "tail": tail, "since": _since(query), **flags}
    try:
        program = start_logs(record, place.key, options)
    except TestbedError as error:
        raise from_lab(error, place) from error
    program.close_stdin()
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    try:
        while data := await read_some(program.stdout):
            data = data if limit is None else data[:limit]
            limit = None if limit is None else limit - len(data)
            if not response.prepared:
                await response.prepare(request)
            await response.write(data)
            if limit == 0:
                break
        if not response.prepared:
            # A log that cannot be shown is recognised by its missing output.
            how = await program.ended
            if how.error is not None:
                raise from_lab(how.error, place)
            await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
    finally:
        program.hang_up()
        program.close()
    return response
