"""The v3 RPCs of etcd that we need, over etcd3's client and stubs; with `connection` the only user of etcd3.

One connection at a time, to one of the endpoints; a failure closes it, and the next call uses the next endpoint.
Closing also ends its watches; their owner gets RegistryUnavailable and restarts them. A late answer closes the
connection only while another endpoint may be faster: if all are slow, a new connection costs more slow round trips, and
a lease may expire meanwhile. TCP and grpc's keep-alive detect a dead member. We avoid the weak parts of etcd3 0.12: its
watcher reopens streams in a tight loop while etcd is down, and its transactions do not return the revision.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from etcd3 import etcdrpc

from agent.errors import AgentError, RegistryError, RegistryUnavailable
from agent.etcd.connection import (
    Connection,
    Credentials,
    connect,
    is_late,
    is_stale_token,
    is_wrong_endpoint,
    status_of,
    translate,
)
from agent.etcd.streams import KeepAlive, WatchStream
from agent.etcd.values import KeyValue, key_value

T = TypeVar("T")

OWN_WORDS = "etcdserver: "
"""Prefixes of errors that come from etcd itself."""
DEADLINE_S = 3.0
"""Time limit of one RPC."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Result of a compare-and-swap."""

    succeeded: bool
    revision: int
    """The store's revision; on success also the key's mod_revision."""
    current: KeyValue | None
    """The key's current value if the comparison failed."""


class EtcdClient:
    """A typed edge to one etcd cluster, usable from several threads.

    Every method raises RegistryUnavailable (try again later) or RegistryDenied (etcd, TLS or a file of ours refuses).
    """

    def __init__(
        self, endpoints: Sequence[str], credentials: Credentials | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        if not endpoints:
            raise ValueError("no etcd endpoints")
        self._endpoints = tuple(endpoints)
        self._credentials = credentials or Credentials()
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._next_endpoint = 0
        self._connection: Connection | None = None
        self._closed = False
        self._late_in_turn = 0
        """Connections closed one after the other because of late answers."""

    def close(self) -> None:
        """Close the connection and end its watches; later calls raise RegistryUnavailable."""
        with self._lock:
            self._closed = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def reconnect(self) -> None:
        """Drop the connection and reload the TLS files; its watches end and the next call connects again."""
        with self._lock:
            connection = self._connection
        if connection is not None:
            self._give_up(connection)

    def range(self, key: bytes, range_end: bytes = b"") -> tuple[list[KeyValue], int]:
        """Return the key, or all keys from it up to `range_end`, in order, and the store's revision. Linearizable."""
        request = etcdrpc.RangeRequest(key=key, range_end=range_end)
        response = self._call(lambda connection: connection.kv.Range(request, **connection.limits))
        return [key_value(kv) for kv in response.kvs], response.header.revision

    def swap(self, key: bytes, expected_revision: int, value: bytes | None, etcd_lease_id: int = 0) -> Swap:
        """Write `value`, or with None delete the key, if its mod_revision is as expected; 0 expects no key.

        Raises LeaseLost when there is no such etcd lease.
        """
        compare = etcdrpc.Compare(key=key, result=etcdrpc.Compare.EQUAL)
        if expected_revision:
            compare.target, compare.mod_revision = etcdrpc.Compare.MOD, expected_revision
        else:
            compare.target, compare.version = etcdrpc.Compare.VERSION, 0
        if value is None:
            change = etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=key))
        else:
            change = etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key, value=value, lease=etcd_lease_id))
        read = etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key))
        request = etcdrpc.TxnRequest(compare=[compare], success=[change], failure=[read])
        response = self._call(lambda connection: connection.kv.Txn(request, **connection.limits))
        found = [] if response.succeeded else response.responses[0].response_range.kvs
        current = key_value(found[0]) if found else None
        return Swap(response.succeeded, response.header.revision, current)

    def grant(self, ttl_s: int) -> int:
        """Grant an etcd lease; return its id."""
        request = etcdrpc.LeaseGrantRequest(TTL=ttl_s)
        etcd_lease_id: int = self._call(lambda connection: connection.lease.LeaseGrant(request, **connection.limits)).ID
        return etcd_lease_id

    def keep_alive(self, etcd_lease_id: int) -> int:
        """Restart the lease's TTL; return it in seconds, 0 or less when there is no such lease."""

        def renew(connection: Connection) -> int:
            with KeepAlive(connection, etcd_lease_id) as stream:
                return stream.ttl_s()

        return self._call(renew)

    def keep_alive_and_get(self, etcd_lease_id: int, key: bytes) -> tuple[int | RegistryUnavailable, KeyValue | None]:
        """Return the result of `keep_alive` and the key, requested together: one round trip instead of two.

        If etcd returns the key but does not renew, the reason replaces the TTL.
        """
        reading = etcdrpc.RangeRequest(key=key)

        def both(connection: Connection) -> tuple[int | RegistryUnavailable, KeyValue | None]:
            with KeepAlive(connection, etcd_lease_id) as stream:
                answer = connection.begin(lambda: connection.kv.Range.future(reading, **connection.limits))
                try:
                    renewal = _ttl_or_why_not(stream, connection)
                    found = answer.result().kvs
                finally:
                    answer.cancel()
            if isinstance(renewal, RegistryUnavailable) and len(self._endpoints) > 1:
                # Another endpoint may renew it.
                self._give_up(connection)
            return renewal, key_value(found[0]) if found else None

        return self._call(both)

    def keys_of(self, etcd_lease_id: int) -> tuple[bytes, ...]:
        """Return the keys that are deleted with this lease; none when there is no such lease."""
        return tuple(self._time_to_live(etcd_lease_id).keys)

    def seconds_left(self, etcd_lease_id: int) -> int:
        """Return the lease's remaining time without renewal; below 0 when there is no such lease."""
        return int(self._time_to_live(etcd_lease_id).TTL)

    def _time_to_live(self, etcd_lease_id: int) -> Any:  # noqa: ANN401 - etcd3 has no types
        request = etcdrpc.LeaseTimeToLiveRequest(ID=etcd_lease_id, keys=True)
        return self._call(lambda connection: connection.lease.LeaseTimeToLive(request, **connection.limits))

    def revoke(self, etcd_lease_id: int) -> None:
        """End the lease and delete its keys; already gone is success."""
        request = etcdrpc.LeaseRevokeRequest(ID=etcd_lease_id)

        def revoke(connection: Connection) -> None:
            try:
                connection.lease.LeaseRevoke(request, **connection.limits)
            except grpc.RpcError as error:
                if status_of(error) != grpc.StatusCode.NOT_FOUND:
                    raise

        self._call(revoke)

    def watch(self, key: bytes, range_end: bytes, start_revision: int) -> "WatchStream":
        """Follow the keys from `start_revision` on; return once etcd has confirmed the watch."""
        create = etcdrpc.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision, progress_notify=True
        )

        def open_stream(connection: Connection) -> WatchStream:
            stream = WatchStream(connection, etcdrpc.WatchRequest(create_request=create), self._give_up)
            try:
                stream.await_created(self._deadline_s)
            except BaseException:
                stream.cancel()
                raise
            return stream

        return self._call(open_stream)

    def _call(self, rpc: Callable[[Connection], T]) -> T:
        """Run `rpc` on the current connection; on the other endpoints too while members are unreachable."""
        may_reauthenticate = self._credentials.user is not None
        tries = len(self._endpoints)
        failures: list[AgentError] = []
        while True:
            connection = None
            try:
                connection = self._connect()
                answer = rpc(connection)
                self._late_in_turn = 0
                return answer
            # grpc raises ValueError on a channel that another thread closed; StopIteration is an empty stream;
            # RuntimeError means that no thread can be started, for instance because a pod used up pids.max.
            except (
                grpc.RpcError,
                grpc.FutureCancelledError,
                RegistryError,
                ValueError,
                StopIteration,
                RuntimeError,
            ) as error:
                stale = is_stale_token(error) and may_reauthenticate
                # A new connection would end the watches of this one.
                if connection is not None and is_wrong_endpoint(error) and not (stale and self._logged_in(connection)):
                    self._give_up(connection, late=is_late(error))
                endpoint = connection.endpoint if connection else ", ".join(self._endpoints)
                failures.append(translate(error, endpoint))
                tries -= 1
                if stale:
                    may_reauthenticate = False
                    tries = max(tries, 1)
                elif tries <= 0 or not _may_ask_another(error):
                    raise _together(failures) from error

    def _connect(self) -> Connection:
        """Return the current connection, or a new one to the next endpoint."""
        with self._lock:
            if self._closed:
                raise RegistryUnavailable("the etcd client is closed")
            if self._connection is None:
                endpoint = self._endpoints[self._next_endpoint % len(self._endpoints)]
                try:
                    self._connection = connect(endpoint, self._credentials, self._deadline_s)
                except RegistryError:
                    self._next_endpoint += 1
                    raise
            return self._connection

    def _logged_in(self, connection: Connection) -> bool:
        """Return whether etcd has given the connection a new token."""
        try:
            connection.log_in(self._credentials)
        except (grpc.RpcError, ValueError):
            return False
        return True

    def _give_up(self, connection: Connection, late: bool = False) -> None:
        with self._lock:
            if connection is not self._connection:
                return
            if late:
                if len(self._endpoints) == 1 or self._late_in_turn >= len(self._endpoints):
                    return
                self._late_in_turn += 1
            self._connection = None
            self._next_endpoint += 1
        connection.close()


def _ttl_or_why_not(stream: KeepAlive, connection: Connection) -> int | RegistryUnavailable:
    try:
        return stream.ttl_s()
    except (grpc.RpcError, StopIteration) as error:
        return RegistryUnavailable(str(translate(error, connection.endpoint)))


def _may_ask_another(error: BaseException) -> bool:
    """Report whether the request surely was not slow: after a deadline the caller has waited long enough."""
    if isinstance(error, grpc.RpcError):
        return bool(status_of(error) == grpc.StatusCode.UNAVAILABLE)
    return isinstance(error, RegistryUnavailable) and not is_late(error)


def _together(failures: Sequence[AgentError]) -> AgentError:
    """Join the errors of several endpoints: those that answered before those that are unreachable."""
    last = failures[-1]
    if not isinstance(last, RegistryUnavailable):
        return last
    said = sorted(dict.fromkeys(map(str, failures)), key=lambda text: OWN_WORDS not in text)
    return RegistryUnavailable("; ".join(said))


def warm_up() -> None:
    """Pay in advance for the first message of each kind: its descriptors' options and their modules."""
    for name in dir(etcdrpc):
        kind: Any = getattr(etcdrpc, name)
        descriptor = getattr(kind, "DESCRIPTOR", None)
        if descriptor is not None and hasattr(kind, "FromString"):
            kind.FromString(kind().SerializeToString())
            descriptor.GetOptions()
            for field in descriptor.fields:
                field.GetOptions()
