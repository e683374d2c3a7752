"""A lease's renewal, from servers of ours: our half of the stream stays open, and the answer has a limit of time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from etcd3 import etcdrpc

from agent.errors import RegistryUnavailable
from agent.etcd.client import EtcdClient
from tests.waiting import wait_until

DEADLINE_S, SHORT_DEADLINE_S = 30.0, 0.5
SERVER_THREADS = "server"
Answers = Callable[[Iterator[Any], Any], Iterator[object]]


class Etcd(etcdrpc.LeaseServicer, etcdrpc.KVServicer):  # type: ignore[misc]  # etcd3 has no types
    """Answers each renewal in the same way, and each read with nothing."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def LeaseKeepAlive(self, request_iterator: Iterator[Any], context: Any) -> Iterator[object]:  # noqa: ANN401 - etcd3's types
        """Return the RPC."""
        return self._answers(request_iterator, context)

    def Range(self, request: object, context: object) -> object:
        """Return the RPC."""
        return etcdrpc.RangeResponse()


@contextmanager
def etcd_that(answers: Answers, deadline_s: float = DEADLINE_S) -> Iterator[EtcdClient]:
    """Yield a client of a server on loopback."""
    threads = ThreadPoolExecutor(8, SERVER_THREADS)
    server, service = grpc.server(threads), Etcd(answers)
    etcdrpc.add_LeaseServicer_to_server(service, server)
    etcdrpc.add_KVServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = EtcdClient([f"http://127.0.0.1:{port}"], deadline_s=deadline_s)
    try:
        yield client
    finally:
        client.close()
        server.stop(0).wait()
        threads.shutdown()


def answer(ttl_s: int) -> object:
    return etcdrpc.LeaseKeepAliveResponse(TTL=ttl_s)


@pytest.mark.parametrize("with_the_key", [False, True])
def test_our_half_of_the_stream_stays_open_until_the_answer(with_the_key: bool) -> None:
    ended = threading.Event()

    def like_the_proxy(requests: Iterator[Any], context: Any) -> Iterator[object]:  # noqa: ANN401 - grpc's types
        next(requests)

        def wait_for_the_end() -> None:
            with suppress(grpc.RpcError):
                next(requests, None)
            ended.set()

        threading.Thread(target=wait_for_the_end, daemon=True).start()
        if ended.wait(0.2):
            context.abort(grpc.StatusCode.UNKNOWN, "context canceled")
        yield answer(7)

    with etcd_that(like_the_proxy) as client:
        assert (client.keep_alive_and_get(1, b"key") if with_the_key else client.keep_alive(1)) in (7, (7, None))
        assert ended.wait(15), "it ends with the answer"


def test_a_lease_that_is_gone_is_no_error() -> None:
    with etcd_that(lambda *_: iter([answer(0)])) as client:
        assert client.keep_alive(1) == 0


def test_a_stream_that_ends_without_an_answer_is_one() -> None:
    with etcd_that(lambda *_: iter(())) as client, pytest.raises(RegistryUnavailable, match="no answer"):
        client.keep_alive(1)


def test_a_stalled_stream_costs_one_deadline_and_leaves_no_thread() -> None:
    hang = threading.Event()

    def nothing(*_: object) -> Iterator[object]:
        hang.wait(30)
        return iter(())

    with etcd_that(nothing, SHORT_DEADLINE_S) as client:
        wait_until(lambda: answers(client), timeout_s=30, what="the connection")
        before = set(threading.enumerate())
        took = []
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(RegistryUnavailable, match="no answer in time"):
                client.keep_alive(1)
            took.append(time.monotonic() - started)
        assert min(took) < 2 * SHORT_DEADLINE_S
        hang.set()
        wait_until(lambda: left_over(before) == [], timeout_s=30, what="grpc's threads end")


def test_renewals_leave_no_thread_behind() -> None:
    with etcd_that(lambda *_: iter([answer(7)])) as client:
        client.range(b"key")
        before = set(threading.enumerate())
        for _ in range(50):
            client.keep_alive(1)
            client.keep_alive_and_get(1, b"key")
        wait_until(lambda: left_over(before) == [], timeout_s=30, what="grpc's threads end")


def answers(client: EtcdClient) -> bool:
    try:
        client.range(b"key")
    except RegistryUnavailable:
        return False
    return True


def left_over(before: set[threading.Thread]) -> list[str]:
    """Return the client's threads other than those that existed before."""
    new = set(threading.enumerate()) - before
    return [thread.name for thread in new if not thread.name.startswith(SERVER_THREADS)]
