"""The lab from the API server's view: the requests of our own verbs, each in its own thread."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from testbed.api.derived import ENDPOINT_SLICE, endpoint_slices
from testbed.api.failure import from_lab, is_not_there
from testbed.api.resources import ApiPlace, Resource
from testbed.cluster.kinds import ENDPOINTS, Kind
from testbed.cluster.name_rules import MAX_OBJECT_NAME
from testbed.control.answers.lab import ApplyAnswer
from testbed.control.client import LabConnection, LabRecord, Message, ask, ask_with_contents
from testbed.control.questions import APPLY, DELETE, GET, NODE, SCALE, AnswerT, Question
from testbed.control.server import MAX_ANSWERED
from testbed.errors import TestbedError

ANSWER_LIMIT_S = 60.0
REQUEST_BODY = "the request's body"
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
"""What JSON may have literally and YAML may not. YAML knows no pair of escapes for one character, as an emoji."""


def yaml_of(item: Mapping[str, Any]) -> bytes:
    """Return an object as JSON that is YAML as well."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(item, ensure_ascii=False)).encode()


class RepeatedAnswer:
    """Parses the lab's answer, unless it is the same as before: that takes longer than to make it."""

    def __init__(self) -> None:
        self._last: tuple[bytes, Message] = (b"", {})

    def __call__(self, line: bytes) -> Message:
        if line != self._last[0]:
            self._last = (line, json.loads(line))
        return self._last[1]


def named(objects: Sequence[Any], name: str, namespace: str | None) -> Any:  # noqa: ANN401 - parsed JSON
    """Return the object of a name, or None."""
    meant = (name, namespace)
    found = (one for one in objects if (one["metadata"]["name"], one["metadata"].get("namespace")) == meant)
    return next(found, None)


class AsyncLab:
    """One running lab."""

    def __init__(self, record: LabRecord) -> None:
        self.record = record
        self._changes = ThreadPoolExecutor(MAX_ANSWERED, "change")
        """Of their own: a deletion takes its grace period, and must not keep a list waiting."""
        self._answers = defaultdict[str, RepeatedAnswer](RepeatedAnswer)

    def objects(self, resource: Resource) -> Sequence[Any]:
        """Return every object of a kind, the same list as before if nothing has changed; blocks.

        Raises TestbedError.
        """
        if not resource.is_stored:
            return ()
        if resource.kind is ENDPOINT_SLICE:
            return endpoint_slices(self._get(ENDPOINTS))
        return self._get(resource.kind)

    def find(self, resource: Resource, name: str, namespace: str | None) -> Any:  # noqa: ANN401 - parsed JSON
        """Return one object, or None if it is not there; blocks. Raises TestbedError."""
        if "/" in name or len(name) > MAX_OBJECT_NAME:
            # No object has such a name; the lab would read the first as NAMESPACE/NAME.
            return None
        if not resource.is_stored or resource.kind is ENDPOINT_SLICE:
            return named(self.objects(resource), name, namespace)
        kind = resource.kind.plural
        try:
            # Equal events of one second share a name.
            one, *_ = ask(self.record, GET, (), ANSWER_LIMIT_S, kind=kind, name=name, namespace=namespace)
        except TestbedError as error:
            if is_not_there(error):
                return None
            raise
        return one

    def _get(self, kind: Kind) -> Sequence[Any]:
        with LabConnection(self.record, ANSWER_LIMIT_S, self._answers[kind.plural]) as connection:
            return connection.result(GET, kind=kind.plural)

    async def apply(self, item: Mapping[str, Any], place: ApiPlace, *, dry_run: bool) -> ApplyAnswer:
        """Create or change an object. Raises Failure."""
        contents = {REQUEST_BODY: yaml_of(item)}
        return await self._wait_for(partial(ask_with_contents, self.record, APPLY, contents, dry_run=dry_run), place)

    async def delete(self, place: ApiPlace, grace_s: int | None) -> None:
        """Delete an object; return when it is gone. Raises Failure."""
        where = {} if place.namespace is None else {"namespace": place.namespace}
        names = {"kind": place.resource.kind.name, "names": [place.name]}
        await self.ask(DELETE, place, **names, **where, grace_s=None if grace_s is None else float(grace_s))

    async def scale(self, place: ApiPlace, replicas: int) -> None:
        """Set the number of pods. Raises Failure."""
        kind = place.resource.kind.name
        await self.ask(SCALE, place, kind=kind, name=place.name, namespace=place.namespace, replicas=replicas)

    async def node(self, place: ApiPlace, action: str) -> None:
        """Cordon or uncordon a node. Raises Failure."""
        await self.ask(NODE, place, action=action, name=place.name)

    async def ask(self, question: Question[AnswerT], place: ApiPlace, **arguments: object) -> AnswerT:
        """Send any request. Raises Failure."""
        return await self._wait_for(lambda: ask(self.record, question, (), None, **arguments), place)

    async def _wait_for(self, request: Callable[[], AnswerT], place: ApiPlace) -> AnswerT:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._changes, request)
        except TestbedError as error:
            raise from_lab(error, place) from error
