"""The `echo` image: reports its own and the client's identity, and echoes its input, over HTTP and UDP on one port.

    GET  /hostname   the pod's name
    GET  /clientip   the address that the request came from, as this pod sees it
    any  /echo       the request's body; without one, what follows `?msg=`
    GET  /           a sentence with all of it
    UDP              `hostname` and `clientip` are answered as above; every other datagram goes back as it came

Runs inside a container as `python3 -I -S echo_server.py`, with only the standard library; few imports, so that a lab of
a hundred of these starts in seconds. The port is taken from PORT.

    python3 -I -S echo_server.py --stand-in 80/TCP 53/UDP    answers on these, and 200 for every path
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO, NoReturn
from urllib.parse import unquote_plus

DEFAULT_PORT = 8080
IDLE_TIMEOUT_S = 30.0
MAX_LINE_BYTES = 8192
MAX_HEADERS = 100
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_CONNECTIONS = 200
MAX_DATAGRAM_BYTES = 65535

Answer = Callable[[str, str, bytes, str], tuple[str, bytes]]
"""Takes method, target, body and client; returns status line and body."""


class BadRequest(Exception):
    """The request is invalid; carries the status line."""


def main(words: list[str]) -> NoReturn:
    """Serve until SIGTERM or SIGINT. Exits with 2 for a bad PORT, 1 if a port is taken."""
    end_on_signals()
    if words[:1] == ["--stand-in"]:
        serve([(int(number), protocol) for number, _, protocol in (word.partition("/") for word in words[1:])])
    given = os.environ.get("PORT", str(DEFAULT_PORT))
    if not given.isdecimal() or not 1 <= int(given) <= 65535:
        sys.exit(_complain(f"error: PORT: not a port (got {given}; want 1 to 65535)", 2))
    serve([(int(given), "UDP"), (int(given), "TCP")], answer)


def end_on_signals() -> None:
    """Handle signals: the first process of a PID namespace ignores those without a handler."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def serve(ports: Sequence[tuple[int, str]], reply: "Answer | None" = None) -> NoReturn:
    """Serve on these ports, each a number and TCP or UDP. Exits with 1 if one is taken."""
    reply = reply or stand_in_answer
    datagrams, listeners = [], []
    for port, protocol in ports:
        try:
            if protocol == "UDP":
                datagrams.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                datagrams[-1].bind(("", port))
            else:
                # Last, because a listening TCP port is the sign of readiness.
                listeners.append(socket.create_server(("", port), backlog=128))
        except OSError as error:
            sys.exit(_complain(f"error: port {port}: {error.strerror}", 1))
    datagrams += [one for port, protocol in ports if protocol == "UDP" for one in _by_ipv6(port, _datagrams_by_ipv6)]
    listeners += [one for port, protocol in ports if protocol != "UDP" for one in _by_ipv6(port, _listener_by_ipv6)]
    for one in datagrams:
        threading.Thread(target=_serve_datagrams, args=(one,), daemon=True).start()
    for one in listeners:
        threading.Thread(target=_serve_connections, args=(one, reply), daemon=True).start()
    while True:
        signal.pause()


def _by_ipv6(port: int, opened: "Callable[[int], socket.socket]") -> "list[socket.socket]":
    """Serve the same over IPv6, if the pod has it; on separate sockets, so that IPv4 clients keep their form."""
    with contextlib.suppress(OSError):
        return [opened(port)]
    return []


def _datagrams_by_ipv6(port: int) -> socket.socket:
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    datagrams.bind(("::", port))
    return datagrams


def _listener_by_ipv6(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, backlog=128)


def answer(method: str, target: str, body: bytes, client: str) -> tuple[str, bytes]:
    """Return status line and body for one request. Pure except for the host's own name."""
    path, _, query = target.partition("?")
    name = socket.gethostname()
    if path == "/hostname":
        return "200 OK", f"{name}\n".encode()
    if path == "/clientip":
        return "200 OK", f"{client}\n".encode()
    if path == "/echo":
        message = dict(part.partition("=")[::2] for part in query.split("&")).get("msg", "")
        return "200 OK", body or unquote_plus(message).encode()
    if path == "/":
        return "200 OK", f"pod {name} answers {client}: {method} {target}\n".encode()
    return "404 Not Found", b"404: want /, /hostname, /clientip or /echo\n"


def stand_in_answer(method: str, target: str, body: bytes, client: str) -> tuple[str, bytes]:
    """Answer the same, and success for every other path: the image's own answers are unknown."""
    status, content = answer(method, target, body, client)
    if status.startswith("404"):
        return "200 OK", f"pod {socket.gethostname()} answers {client}: {method} {target}\n".encode()
    return status, content


def _serve_datagrams(datagrams: socket.socket) -> NoReturn:
    while True:
        # An ICMP error of an earlier answer is reported here and affects no other client.
        with contextlib.suppress(OSError):
            payload, sender = datagrams.recvfrom(MAX_DATAGRAM_BYTES)
            question = b"/" + payload.strip()
            if question in (b"/hostname", b"/clientip"):
                _, payload = answer("UDP", question.decode(), b"", sender[0])
            datagrams.sendto(payload, sender)


def _serve_connections(listener: socket.socket, reply: "Answer") -> NoReturn:
    slots = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def serve(connection: socket.socket, client: str) -> None:
        try:
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
                connection.settimeout(IDLE_TIMEOUT_S)
                while _serve_request(connection, stream, client, reply):
                    pass
        finally:
            slots.release()

    while True:
        try:
            connection, (client, *_) = listener.accept()
        except OSError:
            continue  # the client was gone before we looked
        slots.acquire()
        try:
            threading.Thread(target=serve, args=(connection, client), daemon=True).start()
        except RuntimeError:
            # No process is left for now: this client is turned away, and the next one may be served.
            slots.release()
            connection.close()


def _serve_request(connection: socket.socket, stream: BinaryIO, client: str, reply: "Answer") -> bool:
    """Answer one request; return True if the connection may carry another. Raises OSError."""
    try:
        request = _read_request(connection, stream)
        if request is None:
            return False
        method, target, version, headers, body = request
        status, content = reply(method, target, body, client)
        wish = headers.get("connection", "keep-alive" if version == "HTTP/1.1" else "close").lower()
        keep = wish != "close"
    except BadRequest as bad:
        method, target, status, content, keep = "-", "-", str(bad), f"{bad}\n".encode(), False
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(content)}\r\n"
    head += f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    connection.sendall(head.encode() + (b"" if method == "HEAD" else content))
    print(f"{client} {method} {target} {status[:3]}", flush=True)
    return keep


def _read_request(connection: socket.socket, stream: BinaryIO) -> tuple[str, str, str, dict[str, str], bytes] | None:
    """Return method, target, version, headers and body (RFC 9112 §2); None at the end of the connection.

    Raises BadRequest.
    """
    line = _read_line(stream)
    if not line:
        return None
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest("400 Bad Request")
    headers: dict[str, str] = {}
    while header := _read_line(stream):
        if len(headers) == MAX_HEADERS:
            raise BadRequest("431 Request Header Fields Too Large")
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequest("411 Length Required")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 12:
        raise BadRequest("400 Bad Request")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequest("413 Content Too Large")
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = stream.read(int(length))
    if len(body) < int(length):
        return None
    return parts[0], parts[1], parts[2], headers, body


def _read_line(stream: BinaryIO) -> str:
    line = stream.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise BadRequest("431 Request Header Fields Too Large")
    return line.rstrip(b"\r\n").decode("latin-1")


def _complain(message: str, exit_code: int) -> int:
    print(message, file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main(sys.argv[1:])
