"""exec and port-forward over WebSockets: the protocol of kubectl 1.31 and later, and of Kubernetes' clients."""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import WSMsgType, web

from testbed.api import spdy
from testbed.api.failure import Failure, from_lab, success
from testbed.api.resources import ApiPlace
from testbed.api.selection import is_true
from testbed.api.streams import CHUNK_BYTES, Ended, PodDoor, StreamProgram, read_some, start_exec
from testbed.cluster.object_key import ObjectKey
from testbed.control.client import LabRecord
from testbed.errors import TestbedError

CHANNELS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FORWARD_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
NO_WEBSOCKET = "needs a WebSocket (kubectl 1.31 or later, without KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false)"


def wants_websocket(request: web.Request) -> bool:
    """Return whether a request asks for one."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


async def serve_exec(request: web.Request, place: ApiPlace, record: LabRecord) -> web.WebSocketResponse:
    """Run a command in a pod for a client. Raises Failure before the WebSocket opens."""
    query = request.query
    command, container = query.getall("command", []), query.get("container")
    if not command:
        raise Failure(400, "exec: no command", place)
    if not wants_websocket(request):
        raise Failure(400, f"exec: {NO_WEBSOCKET}", place)
    terminal = is_true(query.get("tty"))
    try:
        program = start_exec(record, place.key, container, command, terminal=terminal)
    except TestbedError as error:
        raise from_lab(error, place) from error
    socket = web.WebSocketResponse(protocols=CHANNELS)
    try:
        await socket.prepare(request)
    except BaseException:
        program.hang_up()
        program.close()
        raise
    if not is_true(query.get("stdin")):
        program.close_stdin()
    reading = asyncio.create_task(_take_input(socket, program))
    outputs = [asyncio.create_task(_send_output(socket, program.stdout, STDOUT))]
    if program.stderr is not None:
        outputs.append(asyncio.create_task(_send_output(socket, program.stderr, STDERR)))
    try:
        # The client leaves, or the program ends.
        program.ended.add_done_callback(lambda _: reading.cancel())
        await asyncio.wait({reading})
        if program.ended.done():
            await asyncio.wait(outputs)
            how = json.dumps(_how_it_ended(program.ended.result())).encode()
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(bytes([ERROR]) + how)
    finally:
        program.hang_up()
        for one in (reading, *outputs):
            one.cancel()
        await asyncio.gather(reading, *outputs, return_exceptions=True)
        program.close()
        await socket.close()
    return socket


async def _take_input(socket: web.WebSocketResponse, program: StreamProgram) -> None:
    """Forward the client's input, until it leaves."""
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, payload = message.data[0], message.data[1:]
        if channel == STDIN and payload:
            await program.write(payload)
        elif channel == RESIZE:
            program.resize(payload)
        elif channel == CLOSE and payload[:1] == bytes([STDIN]):
            program.close_stdin()


async def _send_output(socket: web.WebSocketResponse, descriptor: int, channel: int) -> None:
    while data := await read_some(descriptor):
        await socket.send_bytes(bytes([channel]) + data)


def _how_it_ended(ended: Ended) -> Mapping[str, Any]:
    if ended.error is not None:
        return Failure(500, str(ended.error)).status()
    if ended.code == 0:
        return success()
    cause = {"reason": "ExitCode", "message": str(ended.code)}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {ended.code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [cause]},
    }


async def serve_port_forward(request: web.Request, place: ApiPlace, record: LabRecord) -> web.WebSocketResponse:
    """Forward a client's connections to ports of a pod. Raises Failure before the WebSocket opens."""
    if not wants_websocket(request) or FORWARD_PROTOCOL not in request.headers.get("Sec-WebSocket-Protocol", ""):
        raise Failure(400, f"portforward: {NO_WEBSOCKET}", place)
    socket = web.WebSocketResponse(protocols=(FORWARD_PROTOCOL,))
    await socket.prepare(request)
    session = _Forwarding(socket, place.key, record)
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                await session.take(message.data)
    except spdy.ProtocolError:
        pass
    finally:
        session.close()
        await socket.close()
    return socket


class _Forwarding:
    """One port-forward of a client: its streams, and their connections."""

    def __init__(self, socket: web.WebSocketResponse, pod: ObjectKey, record: LabRecord) -> None:
        self._socket = socket
        self._pod = pod
        self._record = record
        self._session = spdy.Session()
        self._errors: dict[str, int] = {}
        """Streams for errors, by request."""
        self._doors: dict[int, PodDoor] = {}
        """By port."""
        self._opening = asyncio.Lock()
        self._writers: dict[int, asyncio.Queue[bytes | None]] = {}
        """Pending data for a connection, by its stream; None is its end."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, data: bytes) -> None:
        """Handle the client's data. Raises spdy.ProtocolError."""
        for frame in self._session.feed(data):
            match frame:
                case spdy.Opened():
                    await self._send(self._session.reply(frame.stream))
                    self._open(frame)
                case spdy.Data():
                    queue = self._writers.get(frame.stream)
                    if queue is not None and frame.payload:
                        await queue.put(frame.payload)
                    if queue is not None and frame.last:
                        await queue.put(None)
                case spdy.Reset():
                    queue = self._writers.get(frame.stream)
                    if queue is not None:
                        await queue.put(None)
                case spdy.Pinged():
                    await self._send(self._session.pong(frame.number))

    def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        for door in self._doors.values():
            door.close()

    def _open(self, opened: spdy.Opened) -> None:
        request = opened.headers.get("requestid", "")
        if opened.headers.get("streamtype") == "error":
            self._errors[request] = opened.stream
            return
        self._writers[opened.stream] = asyncio.Queue(64)
        carrying = self._carry(opened.stream, opened.headers.get("port", ""), self._errors.pop(request, 0))
        task = asyncio.create_task(carrying)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, stream: int, port: str, errors: int) -> None:
        """Forward one connection to its end; report errors on its other stream."""
        queue = self._writers[stream]
        try:
            reader, writer = await self._connect(port)
        except (TestbedError, OSError, ValueError) as error:
            await self._send(self._session.data(errors, f"port {port}: {error}".encode(), last=True))
            await self._send(self._session.data(stream, b"", last=True))
            self._forget(stream)
            return
        sending = asyncio.create_task(_send_queue(queue, writer))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK_BYTES):
                    await self._send(self._session.data(stream, data))
            await self._send(self._session.data(errors, b"", last=True))
            await self._send(self._session.data(stream, b"", last=True))
        finally:
            sending.cancel()
            writer.close()
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        """Drop what a connection has not taken: a thread that waits to add to it delays every connection."""
        queue = self._writers.pop(stream)
        while not queue.empty():
            queue.get_nowait()

    async def _connect(self, port: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        number = int(port)
        async with self._opening:
            if number not in self._doors:
                self._doors[number] = await asyncio.to_thread(PodDoor, self._record, self._pod, number)
        # An abstract name is bytes, whatever the hint says.
        return await asyncio.open_unix_connection(os.fsdecode(self._doors[number].name))

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(data)


async def _send_queue(queue: "asyncio.Queue[bytes | None]", writer: asyncio.StreamWriter) -> None:
    is_open = True
    while (data := await queue.get()) is not None:
        # What is not wanted any more is taken all the same, or the client's other connections would wait.
        if is_open:
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                is_open = False
    if is_open:
        with contextlib.suppress(OSError):
            writer.write_eof()
