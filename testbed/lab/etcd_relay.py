"""Relays the lab's connections to an existing etcd cluster, on the machine where the lab's own etcd would be.

    python -m testbed.lab.etcd_relay GATE_FD ADDRESS [CA CERTIFICATE KEY]     standard input: an ExistingEtcd

It ends TLS on both sides: towards the lab with the lab's certificates, so that agents need no others and no machine has
the cluster's; towards the cluster with those of the cluster file. Each connection comes from the gate on the host, and
goes to the next endpoint that accepts one. `/health` on loopback is the cluster's own.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import sys
from collections.abc import Sequence
from typing import NoReturn

from testbed.control.existing_etcd import GRPC, HEALTH_LIMIT_S, HTTP, ExistingEtcd, in_words, why_unhealthy
from testbed.host.etcd_gate import NUMBER, REQUEST
from testbed.lab.etcd import CLIENT_PORT, HEALTH_PORT

CHUNK_BYTES = 64 * 1024
GATE_LIMIT_S = 6.0
"""More than the gate takes to connect."""
HANDSHAKE_LIMIT_S = 5.0
LAST_NUMBER = 2**32 - 1
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class GateClient:
    """The lab's end of the gate."""

    def __init__(self, gate: socket.socket) -> None:
        self._gate = gate
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        # Not those of a relay before this one, whose answers may still come.
        self._number = random.randrange(LAST_NUMBER)
        gate.setblocking(False)
        asyncio.get_running_loop().add_reader(gate, self._read)

    async def connect(self, index: int) -> socket.socket:
        """Return a connection to endpoint `index`. Raises OSError."""
        self._number = (self._number + 1) % LAST_NUMBER
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._gate.send(REQUEST.pack(number, index))
            return await asyncio.wait_for(answer, GATE_LIMIT_S)
        finally:
            del self._waiting[number]

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._gate, 1000, 1)
        except BlockingIOError:
            return
        except OSError as failure:
            fail(f"the gate on the host: {failure}")
        if not data:
            fail("the gate on the host has ended (want: down and up of this lab)")
        connected = [socket.socket(fileno=one) for one in descriptors]
        answer = self._waiting.get(NUMBER.unpack_from(data)[0])
        if answer is None or answer.done():
            for one in connected:
                one.close()
        elif connected:
            answer.set_result(connected[0])
        else:
            answer.set_exception(OSError(0, data[NUMBER.size :].decode(errors="replace")))


class Relay:
    """All connections of the lab."""

    def __init__(self, existing: ExistingEtcd, gate: GateClient) -> None:
        self._endpoints = existing.endpoints
        self._hosts = [host for host, _ in existing.targets]
        self._for_grpc, self._for_health = existing.context(GRPC), existing.context(HTTP)
        self._gate = gate
        self._turn = 0
        self._said = ""

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either end closes it."""
        far = await self._open()
        if far is None:
            writer.transport.abort()
            return
        far_reader, far_writer = far
        copies = [asyncio.create_task(copy(reader, far_writer)), asyncio.create_task(copy(far_reader, writer))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for one in copies:
            one.cancel()
        for end in (writer, far_writer):
            end.close()

    async def attend_health(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one HTTP request with the cluster's health."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            reason = await self._why_unhealthy()
            body = json.dumps({"health": "true"} if reason is None else {"health": "false", "reason": reason}).encode()
            status = "200 OK" if reason is None else "503 Service Unavailable"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async def _open(self) -> Streams | None:
        """Return a connection to the next endpoint that accepts one; without any, log the reasons."""
        reasons = []
        self._turn += 1
        for step in range(len(self._endpoints)):
            index = (self._turn + step) % len(self._endpoints)
            try:
                connected = await self._gate.connect(index)
                connected.setblocking(False)
                secure, host = self._for_grpc, self._hosts[index]
                opening = asyncio.open_connection(sock=connected, ssl=secure, server_hostname=host if secure else None)
                return await asyncio.wait_for(opening, HANDSHAKE_LIMIT_S)
            except OSError as failure:  # TimeoutError and SSLError too
                reasons.append(f"{self._endpoints[index]}: {in_words(failure) or 'no answer in time'}")
        self._say("; ".join(sorted(reasons)))
        return None

    async def _why_unhealthy(self) -> str | None:
        reasons = []
        looks = [asyncio.create_task(self._look(index)) for index in range(len(self._endpoints))]
        for look in asyncio.as_completed(looks):
            reason = await look
            if reason is None:
                self._say("the cluster answers")
                return None
            reasons.append(reason)
        why = "; ".join(sorted(reasons))
        self._say(why)
        return why

    async def _look(self, index: int) -> str | None:
        try:
            connected = await asyncio.wait_for(self._gate.connect(index), HEALTH_LIMIT_S)
        except OSError as failure:
            reason: str | None = in_words(failure) or "no answer in time"
        else:
            reason = await asyncio.to_thread(why_unhealthy, connected, self._hosts[index], self._for_health)
        return reason and f"{self._endpoints[index]}: {reason}"

    def _say(self, what: str) -> None:
        """Log what has changed; an outage is one line, however often agents try again."""
        if what != self._said:
            self._said = what
            print(what, file=sys.stderr, flush=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy everything up to the end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


def fail(why: str) -> NoReturn:
    """End the relay; the lab starts another."""
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def server_context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return what TLS towards the lab needs: only certificates of the lab are let in."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(list(GRPC))
    return context


async def serve(existing: ExistingEtcd, gate: int, address: str, tls: Sequence[str]) -> None:
    """Relay until the lab ends."""
    relay = Relay(existing, GateClient(socket.socket(fileno=gate)))
    secure = server_context(*tls) if tls else None
    servers = [
        await asyncio.start_server(relay.attend, address, CLIENT_PORT, ssl=secure, backlog=1024),
        await asyncio.start_server(relay.attend_health, "127.0.0.1", HEALTH_PORT),
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Run the relay."""
    existing = ExistingEtcd.from_json(sys.stdin.buffer.read())
    asyncio.run(serve(existing, int(sys.argv[1]), sys.argv[2], sys.argv[3:]))


if __name__ == "__main__":
    main()
