"""While no thread can be started, a call to etcd fails as if etcd did not answer, and the client works again after."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from etcd3 import etcdrpc

from agent.errors import RegistryUnavailable
from agent.etcd.client import EtcdClient
from tests.waiting import wait_until

SERVER_THREADS = "server"
LIMIT_S = 20.0
Call = Callable[[EtcdClient], object]


class Etcd(etcdrpc.LeaseServicer, etcdrpc.KVServicer, etcdrpc.WatchServicer):  # type: ignore[misc]  # no types
    """Answers each read with nothing, renews every lease, and confirms every watch."""

    def Range(self, request: object, context: object) -> object:
        """Return the RPC."""
        return etcdrpc.RangeResponse()

    def LeaseKeepAlive(self, request_iterator: Iterator[Any], context: object) -> Iterator[object]:
        """Yield the RPC."""
        for _ in request_iterator:
            yield etcdrpc.LeaseKeepAliveResponse(TTL=7)

    def Watch(self, request_iterator: Iterator[Any], context: object) -> Iterator[object]:
        """Yield the RPC."""
        for _ in request_iterator:
            yield etcdrpc.WatchResponse(created=True)


@pytest.fixture
def client() -> Iterator[EtcdClient]:
    """Yield a client that is connected to a server on loopback."""
    threads, service = ThreadPoolExecutor(8, SERVER_THREADS), Etcd()
    server = grpc.server(threads)
    etcdrpc.add_LeaseServicer_to_server(service, server)
    etcdrpc.add_KVServicer_to_server(service, server)
    etcdrpc.add_WatchServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = EtcdClient([f"http://127.0.0.1:{port}"], deadline_s=LIMIT_S)
    client.range(b"key")
    yield client
    client.close()
    server.stop(0).wait()
    threads.shutdown()


@contextmanager
def threads_refused_after(count: int) -> Iterator[None]:
    """Let the client start that many threads and no more."""
    start, left = threading.Thread.start, [count]

    def start_or_refuse(thread: threading.Thread) -> None:
        if not thread.name.startswith(SERVER_THREADS):
            if left[0] == 0:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_or_refuse)
        yield


def failure_of(call: Call, client: EtcdClient) -> str:
    """Return why etcd is unavailable to this call, which ends in time."""
    reasons = []

    def run() -> None:
        with pytest.raises(RegistryUnavailable) as caught:
            call(client)
        reasons.append(str(caught.value))

    thread = threading.Thread(target=run, name=f"{SERVER_THREADS}, not counted", daemon=True)
    thread.start()
    thread.join(LIMIT_S / 2)
    assert not thread.is_alive(), "the call hangs"
    return "".join(reasons)


def keep_alive(client: EtcdClient) -> int:
    return client.keep_alive(1)


def keep_alive_and_get(client: EtcdClient) -> object:
    return client.keep_alive_and_get(1, b"key")


def watch(client: EtcdClient) -> None:
    client.watch(b"a", b"b", 1).cancel()


@pytest.mark.parametrize(
    ("call", "started"),
    [
        (keep_alive, 0),
        (keep_alive, 1),
        (keep_alive_and_get, 0),
        (keep_alive_and_get, 1),
        (watch, 0),
        (watch, 1),
        (watch, 2),
    ],
)
def test_a_call_for_which_no_thread_can_be_started_fails_and_works_later(
    client: EtcdClient, call: Call, started: int
) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with threads_refused_after(started):
            assert "can't start new thread" in failure_of(call, client)
    call(client)
    client.reconnect()
    wait_until(lambda: left_over(before) == [], timeout_s=LIMIT_S, what="grpc's threads end")


def left_over(before: set[threading.Thread]) -> list[str]:
    """Return the client's threads other than those that existed before."""
    new = set(threading.enumerate()) - before
    return [thread.name for thread in new if not thread.name.startswith(SERVER_THREADS)]
