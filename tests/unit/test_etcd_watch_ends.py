"""Every way in which etcd ends a watch, from a server of ours that does it on purpose: none is slept through.

etcd3's own watcher hangs at some of them and turns at full speed at others; this is what ours is for.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from etcd3 import etcdrpc

from agent.errors import Compacted, RegistryDenied, RegistryUnavailable
from agent.etcd.client import EtcdClient
from agent.etcd.streams import WatchStream
from agent.etcd.values import EventBatch

Answers = Callable[[], Iterator[object]]
DEADLINE_S, SHORT_DEADLINE_S = 20.0, 0.5


class Etcd(etcdrpc.WatchServicer):  # type: ignore[misc]  # etcd3 has no types
    """Answers each watch in the same way and then ends the stream."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.watches = 0

    def Watch(self, request_iterator: Iterator[Any], context: Any) -> Iterator[object]:  # noqa: ANN401 - etcd3's types
        """Yield the RPC."""
        request = next(request_iterator)
        assert request.create_request.progress_notify
        self.watches += 1
        yield from self._answers()


@contextmanager
def etcd_that(answers: Answers, deadline_s: float = DEADLINE_S) -> Iterator[tuple[EtcdClient, Etcd]]:
    """Yield a server on loopback and a client of it."""
    threads = ThreadPoolExecutor(max_workers=4)
    server, service = grpc.server(threads), Etcd(answers)
    etcdrpc.add_WatchServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = EtcdClient([f"http://127.0.0.1:{port}"], deadline_s=deadline_s)
    try:
        yield client, service
    finally:
        client.close()
        server.stop(0).wait()
        threads.shutdown()


def created(**more: object) -> object:
    return etcdrpc.WatchResponse(created=True, **more)


def first_of(stream: WatchStream) -> object:
    """Return what comes after the confirmation."""
    return stream.poll(DEADLINE_S)


def test_a_stream_that_ends_silently_is_reported_at_every_call() -> None:
    with etcd_that(lambda: iter([created()])) as (client, _):
        stream = client.watch(b"a", b"b", 1)
        for _ in range(2):
            with pytest.raises(RegistryUnavailable, match="watch ended"):
                first_of(stream)
        stream.cancel()


@pytest.mark.parametrize(
    ("reason", "error"),
    [("rpc error: code = PermissionDenied desc = etcdserver: permission denied", RegistryDenied), ("", Exception)],
)
def test_a_watch_that_is_created_and_cancelled_at_once_is_no_watch(reason: str, error: type[Exception]) -> None:
    answers = [created(canceled=True, cancel_reason=reason)]
    with etcd_that(lambda: iter(answers)) as (client, _), pytest.raises(error, match="watch cancelled"):
        client.watch(b"a", b"b", 1)


def test_a_watch_that_is_cancelled_later_without_a_revision_is_over() -> None:
    with etcd_that(lambda: iter([created(), etcdrpc.WatchResponse(canceled=True)])) as (client, _):
        stream = client.watch(b"a", b"b", 1)
        with pytest.raises(RegistryUnavailable, match="no reason given"):
            first_of(stream)
        stream.cancel()


def test_a_compaction_is_reported_as_such() -> None:
    answers = [created(), etcdrpc.WatchResponse(canceled=True, compact_revision=7)]
    with etcd_that(lambda: iter(answers)) as (client, _):
        stream = client.watch(b"a", b"b", 1)
        with pytest.raises(Compacted, match="before revision 7"):
            first_of(stream)
        stream.cancel()


def test_a_silent_stream_is_given_up_after_the_deadline() -> None:
    silent = threading.Event()

    def nothing() -> Iterator[object]:
        silent.wait(30)
        return iter(())

    with etcd_that(nothing, SHORT_DEADLINE_S) as (client, _):
        try:
            with pytest.raises(RegistryUnavailable, match=r"no watch within 0\.5 s"):
                client.watch(b"a", b"b", 1)
        finally:
            silent.set()


def test_the_client_opens_no_stream_by_itself() -> None:
    """etcd3's watcher opens the next one at once, as fast as the processor can, while nobody is told."""
    with etcd_that(lambda: iter([created()])) as (client, etcd):
        stream = client.watch(b"a", b"b", 1)
        with pytest.raises(RegistryUnavailable):
            first_of(stream)
        with pytest.raises(RegistryUnavailable):
            stream.poll(0.3)
        assert etcd.watches == 1


def test_events_of_one_revision_come_together_with_its_number() -> None:
    response = etcdrpc.WatchResponse()
    response.header.revision = 9
    for key in (b"a1", b"a2"):
        event = response.events.add()
        event.kv.key, event.kv.mod_revision = key, 9
    with etcd_that(lambda: iter([created(), response])) as (client, _):
        stream = client.watch(b"a", b"b", 1)
        batch = first_of(stream)
        assert isinstance(batch, EventBatch)
        assert ([event.kv.key for event in batch.events], batch.revision) == ([b"a1", b"a2"], 9)
        stream.cancel()
