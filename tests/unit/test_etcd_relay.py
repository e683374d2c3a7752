"""The relay to an existing etcd: TLS on both sides, the next endpoint where one fails, the cluster's own health.

The gate is the real one; a server that echoes, or answers /health, stands for etcd's port.
"""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.cluster.etcd_claim import Claimant, PrefixClaim
from testbed.control.existing_etcd import ExistingEtcd
from testbed.host.gate import open_gate
from testbed.lab.certificates import Authority, TlsFiles
from testbed.lab.etcd_relay import GateClient, Relay, server_context

LOOPBACK = IPv4Address("127.0.0.1")
CLAIM = PrefixClaim(Claimant("mine", "here", "1f", "/run/testbed/mine"), "/x", is_named=False)
Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits of health questions: answers count here, not how soon, and each gate starts an interpreter."""
    for module in ("testbed.control.existing_etcd", "testbed.lab.etcd_relay"):
        monkeypatch.setattr(f"{module}.HEALTH_LIMIT_S", 8.0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one message back, and close."""
    writer.write(await reader.read(1000))
    writer.close()


def http(status: str, body: str) -> Attend:
    """Return an HTTP server for one request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    return answer


@contextlib.asynccontextmanager
async def listening(attend: Attend, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yield the port of a server on loopback."""
    async with await asyncio.start_server(attend, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def existing_at(ports: Sequence[int], cluster: TlsFiles | None) -> ExistingEtcd:
    endpoints = tuple(f"http{'s' if cluster else ''}://127.0.0.1:{port}" for port in ports)
    paths = {"ca": cluster.ca, "certificate": cluster.certificate, "key": cluster.key} if cluster else {}
    texts = {name: Path(path).read_text() for name, path in paths.items()}
    return ExistingEtcd(endpoints=endpoints, claim=CLAIM, **texts)


@contextlib.asynccontextmanager
async def relay_to(ports: Sequence[int], cluster: TlsFiles | None = None) -> AsyncIterator[Relay]:
    """Yield a relay to these ports of loopback; `cluster` are its files towards the cluster."""
    existing = existing_at(ports, cluster)
    gate = open_gate(existing)
    with gate.lab_end:
        assert ExistingEtcd.from_json(gate.lab_end.recv(100_000)) == existing
        yield Relay(existing, GateClient(gate.lab_end))
        asyncio.get_running_loop().remove_reader(gate.lab_end)
    assert gate.process.wait(60) == 0


async def say(port: int, text: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send a text, and return the answer up to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(text)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


async def health(relay: Relay) -> dict[str, str]:
    async with listening(relay.attend_health) as port:
        answer = await say(port, b"GET /health HTTP/1.1\r\n\r\n")
    found: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def test_bytes_pass_both_ways_and_an_endpoint_that_is_down_is_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with (
            listening(echo) as up,
            relay_to([free_port(), up, free_port()]) as relay,
            listening(relay.attend) as port,
        ):
            for _ in range(6):
                assert await say(port, b"hello") == b"hello"

    asyncio.run(run())
    assert capfd.readouterr().err == ""


def test_an_outage_is_one_line_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    down = free_port()

    async def run() -> None:
        async with relay_to([down]) as relay, listening(relay.attend) as port:
            for _ in range(3):
                with contextlib.suppress(ConnectionResetError):
                    assert await say(port, b"hello") == b""

    asyncio.run(run())
    assert capfd.readouterr().err == f"http://127.0.0.1:{down}: Connection refused\n"


def test_tls_ends_at_the_relay_on_both_sides(tmp_path: Path) -> None:
    cluster, lab = Authority("the cluster's"), Authority("the lab's")
    theirs = cluster.issue(tmp_path / "cluster", str(tmp_path / "cluster"), "etcd", [LOOPBACK])
    ours = cluster.issue(tmp_path / "ours", str(tmp_path / "ours"), "lab")
    own = lab.issue(tmp_path / "relay", str(tmp_path / "relay"), "etcd1", [LOOPBACK])
    agents = lab.issue(tmp_path / "agent", str(tmp_path / "agent"), "agent")

    def client(files: TlsFiles | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=own.ca)
        if files is not None:
            context.load_cert_chain(files.certificate, files.key)
        return context

    async def run() -> None:
        to_lab = server_context(own.ca, own.certificate, own.key)
        async with (
            listening(echo, server_context(theirs.ca, theirs.certificate, theirs.key)) as etcd,
            relay_to([etcd], ours) as relay,
            listening(relay.attend, to_lab) as port,
        ):
            assert await say(port, b"hello", client(agents)) == b"hello"
            for stranger in (None, ours):
                # With TLS 1.3 the refusal comes after the client's handshake.
                with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                    assert await say(port, b"hello", client(stranger)) == b""

    asyncio.run(run())


def test_a_cluster_of_another_authority_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    theirs = Authority("theirs").issue(tmp_path / "theirs", str(tmp_path / "theirs"), "etcd", [LOOPBACK])
    other = Authority("other").issue(tmp_path / "other", str(tmp_path / "other"), "lab")

    async def run() -> dict[str, str]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(theirs.certificate, theirs.key)
        async with listening(echo, context) as etcd, relay_to([etcd], other) as relay:
            return await health(relay)

    found = asyncio.run(run())
    assert found["health"] == "false"
    assert "its certificate: " in found["reason"]


def test_the_health_is_the_clusters_and_one_good_endpoint_is_enough() -> None:
    good, bad = http("200 OK", '{"health":"true"}'), http("503 Service Unavailable", '{"health":"false"}')

    async def run() -> list[dict[str, str]]:
        async with listening(good) as well, listening(bad) as ill:
            found = []
            for ports in ([well], [ill, well], [ill, free_port()]):
                async with relay_to(ports) as relay:
                    found.append(await health(relay))
            return found

    one, two, none = asyncio.run(run())
    assert one == two == {"health": "true"}
    assert none["health"] == "false"
    assert "Connection refused" in none["reason"]
    assert 'not healthy: {"health":"false"}' in none["reason"]
