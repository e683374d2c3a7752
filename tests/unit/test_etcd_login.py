"""Logging in to etcd, to a server of ours: whose token is sent, and that a connection that is refused does not stay."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from etcd3 import etcdrpc

from agent.errors import AgentError, RegistryDenied, RegistryUnavailable
from agent.etcd.client import EtcdClient
from agent.etcd.connection import Connection, Credentials

LIMIT_S = 20.0
NODE = Credentials(user="node", password="pass")
Refusal = tuple[grpc.StatusCode, str]


class Etcd(etcdrpc.AuthServicer, etcdrpc.KVServicer):  # type: ignore[misc]  # etcd3 has no types
    """Gives everyone a token, or refuses; answers each read with nothing."""

    def __init__(self, refusal: Refusal | None) -> None:
        self._refusal = refusal
        self.tokens: list[object] = []
        """The token of each read."""

    def Authenticate(self, request: Any, context: Any) -> object:  # noqa: ANN401 - etcd3's types
        """Return the RPC."""
        assert (request.name, request.password) == ("node", "pass")
        if self._refusal is not None:
            context.abort(*self._refusal)
        return etcdrpc.AuthenticateResponse(token="secret")

    def Range(self, request: object, context: Any) -> object:  # noqa: ANN401 - etcd3's types
        """Return the RPC."""
        self.tokens.append(dict(context.invocation_metadata()).get("token"))
        return etcdrpc.RangeResponse()


@contextmanager
def etcd_that(refuses: Refusal | None) -> Iterator[tuple[EtcdClient, Etcd]]:
    """Yield a client of a server on loopback, and the server."""
    threads, service = ThreadPoolExecutor(4), Etcd(refuses)
    server = grpc.server(threads)
    etcdrpc.add_AuthServicer_to_server(service, server)
    etcdrpc.add_KVServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = EtcdClient([f"http://127.0.0.1:{port}"], NODE, LIMIT_S)
    try:
        yield client, service
    finally:
        client.close()
        server.stop(0).wait()
        threads.shutdown()


def test_what_follows_a_login_has_its_token() -> None:
    with etcd_that(None) as (client, etcd):
        client.range(b"key")
        client.range(b"key")
    assert etcd.tokens == ["secret", "secret"]


def test_a_password_that_etcd_does_not_need_does_no_harm() -> None:
    refusal = (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
    with etcd_that(refusal) as (client, etcd):
        client.range(b"key")
    assert etcd.tokens == [None]


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            RegistryDenied,
        ),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", RegistryUnavailable),
    ],
)
def test_a_connection_that_may_not_log_in_is_closed(
    code: grpc.StatusCode, text: str, error: type[AgentError], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Connection] = []
    close = Connection.close

    def close_and_note(connection: Connection) -> None:
        closed.append(connection)
        close(connection)

    monkeypatch.setattr(Connection, "close", close_and_note)
    with etcd_that((code, text)) as (client, etcd):
        for tries in (1, 2):
            with pytest.raises(error, match=text):
                client.range(b"key")
            assert len(closed) == tries
    assert etcd.tokens == []
