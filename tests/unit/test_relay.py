"""The relay of `testbed forward`: both directions, one end after the other, and a refusal is no empty answer."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from testbed.workloads.relay import Target, serve


@contextlib.asynccontextmanager
async def relaying(*targets: Target) -> AsyncIterator[int]:
    """Yield a relay on a port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(serve(listener, targets))
    try:
        yield listener.getsockname()[1]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def counting_server() -> AsyncIterator[int]:
    """Run a server that reads its input to the end before it answers with the length."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read())).encode())
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_the_end_of_one_direction_leaves_the_other_open() -> None:
    async def ask() -> bytes:
        async with counting_server() as far, relaying(("127.0.0.1", far)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(1_000_000))
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(ask()) == b"1000000"


def test_the_second_target_is_taken_when_the_first_refuses() -> None:
    async def ask() -> bytes:
        async with counting_server() as far, relaying(("127.0.0.1", free_port()), ("127.0.0.1", far)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(ask()) == b"0"


def test_a_target_that_refuses_resets_the_connection_and_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    target = free_port()

    async def ask() -> None:
        async with relaying(("127.0.0.1", target)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                await reader.read()
            finally:
                writer.close()

    with pytest.raises(ConnectionResetError):
        asyncio.run(ask())
    assert f"forward: 127.0.0.1:{target}: " in capfd.readouterr().err
