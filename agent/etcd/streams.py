"""etcd's streaming RPCs: a watch, and a lease's renewal."""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import grpc
from etcd3 import etcdrpc

from agent.errors import AgentError, Compacted, RegistryDenied, RegistryError, RegistryUnavailable
from agent.etcd.connection import Connection, NoAnswerInTime, is_refusal, translate
from agent.etcd.values import EventBatch, key_event


class KeepAlive:
    """One renewal of a lease, on its own stream.

    Our half stays open until the answer: `etcd grpc-proxy` cancels a stream whose caller has closed its half. No stream
    serves two renewals: the proxy answers the second one only at its own next renewal, after a third of the lease's
    life.
    """

    def __init__(self, connection: Connection, etcd_lease_id: int) -> None:
        """Send the renewal. Raises ValueError on a closed channel, RuntimeError if no thread can be started."""
        self._requests: queue.SimpleQueue[object | None] = queue.SimpleQueue()
        self._requests.put(etcdrpc.LeaseKeepAliveRequest(ID=etcd_lease_id))
        requests = iter(self._requests.get, None)
        self._call = connection.begin(lambda: connection.lease.LeaseKeepAlive(requests, **connection.limits))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Lets grpc's own thread, which waits for more requests, end.
        self._requests.put(None)
        self._call.cancel()

    def ttl_s(self) -> int:
        """Return the restarted TTL, 0 or less when there is no such lease. Raises grpc.RpcError and StopIteration."""
        ttl_s: int = next(self._call).TTL
        return ttl_s


class WatchStream:
    """One watch on its own stream; a thread reads it into a queue, so that `poll` can wait with a limit."""

    def __init__(self, connection: Connection, create: object, on_failure: Callable[[Connection], None]) -> None:
        """Request the watch. Raises ValueError on a closed channel, RuntimeError if no thread can be started."""
        self._connection = connection
        self._on_failure = on_failure
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[object | None] = queue.SimpleQueue()
        self._requests.put(create)
        self._rest_until = -math.inf
        """On the monotonic clock."""
        self._cancelled = threading.Event()
        stub, requests = etcdrpc.WatchStub(connection.channel), iter(self._requests.get, None)
        self._call = connection.begin(lambda: stub.Watch(requests, metadata=connection.metadata))
        self._reader = threading.Thread(target=self._read, name="etcd-watch", daemon=True)
        try:
            self._reader.start()
        except RuntimeError:
            # Lets grpc's own thread, which waits for more requests, end.
            self._requests.put(None)
            self._call.cancel()
            raise

    def await_created(self, timeout_s: float) -> None:
        """Wait for etcd's confirmation. Raises NoAnswerInTime."""
        if self.poll(timeout_s) is None:
            raise NoAnswerInTime(f"{self._connection.endpoint}: no watch within {timeout_s:g} s")

    def poll(self, timeout_s: float) -> EventBatch | None:
        """Return the next response, or None when none came in time.

        Raises Compacted, RegistryUnavailable or RegistryDenied when the watch has ended, at every further call too.
        """
        try:
            item = self._received.get(timeout=timeout_s)
        except queue.Empty:
            return None
        error = item if isinstance(item, AgentError) else _end_of_watch(item, self._connection.endpoint)
        if error is None:
            return EventBatch(tuple(key_event(event) for event in item.events), item.header.revision)
        self._received.put(error)
        if isinstance(error, RegistryUnavailable):
            self._on_failure(self._connection)
        raise error

    def rest(self, for_s: float) -> None:
        """Pause reading for so many seconds, except a read in progress; grpc buffers meanwhile."""
        self._rest_until = time.monotonic() + for_s

    def cancel(self) -> None:
        """End the watch; a waiting `poll` raises RegistryUnavailable. Safe from any thread and twice."""
        self._cancelled.set()
        self._requests.put(None)
        self._call.cancel()
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=1.0)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._received.put(response)
                # Each awaited message wakes four threads.
                self._cancelled.wait(max(0.0, self._rest_until - time.monotonic()))
            self._received.put(RegistryUnavailable(f"{self._connection.endpoint}: watch ended"))
        except (grpc.RpcError, ValueError) as error:
            self._received.put(translate(error, self._connection.endpoint))
        with contextlib.suppress(ValueError):
            # Lets grpc's own thread, which waits for more requests, end.
            self._requests.put(None)


def _end_of_watch(response: Any, endpoint: str) -> RegistryError | None:  # noqa: ANN401 - etcd3 has no types
    """Return why this response is the last, or None."""
    if response.compact_revision:
        return Compacted(f"etcd has compacted everything before revision {response.compact_revision}")
    if not response.canceled:
        return None
    reason = f"{endpoint}: watch cancelled: {response.cancel_reason or 'no reason given'}"
    return RegistryDenied(reason) if is_refusal(reason) else RegistryUnavailable(reason)
