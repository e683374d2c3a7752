"""The question to a health service, to real gRPC servers and to programs that are none."""

import socket
import threading
from collections.abc import Iterator

import pytest

from testbed.pods.grpc_health import MOST_BYTES, check, request, split
from tests.health_server import NOT_SERVING, SERVING, health_server

LONG_NAME = "a" * 300
STATUSES = {"": SERVING, "shop.Cart": SERVING, "shop.Till": NOT_SERVING, "shop.New": 0}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server, port = health_server(STATUSES.get, "127.0.0.1:0")
    yield port
    server.stop(0).wait()


@pytest.mark.parametrize("service", ["", "shop.Cart"])
def test_a_program_that_serves_is_well(port: int, service: str) -> None:
    assert check("127.0.0.1", port, service, 5) == ""


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("shop.Till", "the health service answers NOT_SERVING"),
        ("shop.New", "the health service answers UNKNOWN"),
        ("nobody", "no health service answers for nobody (want grpc.health.v1.Health)"),
    ],
)
def test_every_other_answer_is_a_failure_with_a_message(port: int, service: str, why: str) -> None:
    assert check("127.0.0.1", port, service, 5) == why


def test_a_program_without_a_health_service_is_a_failure() -> None:
    server, port = health_server(lambda _: None, "127.0.0.1:0")
    try:
        assert check("127.0.0.1", port, "", 5) == "no health service answers (want grpc.health.v1.Health)"
    finally:
        server.stop(0).wait()


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00" * 100, b"\xff" * (MOST_BYTES + 1)])
def test_a_server_without_grpc_is_a_failure(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            why = check("127.0.0.1", listener.getsockname()[1], "", 5)
        except ConnectionResetError as reset:
            why = str(reset)
        thread.join()
    assert why


def test_a_program_that_does_not_answer_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        check("127.0.0.1", listener.getsockname()[1], "", 0.1)


def test_a_long_name_is_sent_in_full(port: int) -> None:
    frames, rest = split(request(LONG_NAME).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    assert rest == b""
    assert frames[-1].payload[5:].endswith(LONG_NAME.encode())
