"""Relays connections from a listening socket, which is standard input, to a target in this network namespace.

    python3 -I -S relay.py HOST:PORT [HOST:PORT…]       the first target that accepts the connection gets it

Runs inside the lab, in the target's namespace; `testbed forward` created the listening socket on the host. So no
process of the host ever has a socket of the lab, and both processes end together. Standard library only.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

CONNECT_TIMEOUT_S = 5.0
CHUNK_BYTES = 64 * 1024

Target = tuple[str, int]


async def serve(listener: socket.socket, targets: Sequence[Target]) -> None:
    """Relay every connection that `listener` accepts, until the process ends."""

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected = await connect(targets)
        if isinstance(connected, str):
            print(f"forward: {connected}", file=sys.stderr, flush=True)
            reset(writer)
            return
        far_reader, far_writer = connected
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        for one in (writer, far_writer):
            one.close()

    asyncio.get_running_loop().set_exception_handler(end_with_the_listener)
    server = await asyncio.start_server(attend, sock=listener)
    await server.serve_forever()


def end_with_the_listener(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the process when `testbed forward` has shut the listening socket down: accept(2) then fails with EINVAL."""
    failure = context.get("exception")
    if isinstance(failure, OSError) and failure.errno == errno.EINVAL:
        os._exit(0)
    loop.default_exception_handler(context)


async def connect(targets: Sequence[Target]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | str:
    """Return a connection to the first target that accepts it, or the reasons of all refusals."""
    failures = []
    for host, port in targets:
        try:
            return await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT_TIMEOUT_S)
        except TimeoutError:
            failures.append(f"{host}:{port}: no answer within {CONNECT_TIMEOUT_S:g} s")
        except OSError as error:
            failures.append(f"{host}:{port}: {error.strerror or error}")
    return "; ".join(failures)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy everything up to the end; the other direction may continue."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            return
    reset(writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection, so that it is not mistaken for a complete or an empty answer."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def main() -> None:
    """Run the relay."""
    targets = [(host, int(port)) for host, _, port in (word.rpartition(":") for word in sys.argv[1:])]
    with socket.socket(fileno=0) as listener:
        asyncio.run(serve(listener, targets))


if __name__ == "__main__":
    main()
