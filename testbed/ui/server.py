"""The page's server: on 127.0.0.1 only, and only for clients that know the URL. Other pages in the same browser can
send requests to 127.0.0.1 as well.

So everything is below a random path, requests must name this server as their host (else a foreign name could be pointed
at 127.0.0.1), and changes to the lab must come from this page itself.
"""

import hmac
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testbed.control.client import NoAnswer, ask
from testbed.control.questions import FAULT, HEAL, POLICY, TRACE
from testbed.errors import InvalidInput, TestbedError
from testbed.graph.drawing import STYLE
from testbed.graph.encapsulation import STYLE as STACK_STYLE
from testbed.graph.encapsulation import draw_each_stack
from testbed.graph.facts import facts_of_lab
from testbed.graph.headers import LEG_WORDS
from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import graph_of
from testbed.graph.path import STYLE as PATH_STYLE
from testbed.graph.policy_edges import STYLE as EDGE_STYLE
from testbed.graph.policy_edges import draw_edges
from testbed.graph.trace_path import trace_way
from testbed.output.trace_bytes import hop_bytes
from testbed.ui.feed import Feed
from testbed.ui.routes import routes_of
from testbed.ui.things import every_offer, has_routes, offers_of, rows_of_thing

FILES = Path(__file__).parent
CONTENT = {
    "": ("index.html", "text/html; charset=utf-8"),
    "app.js": ("app.js", "text/javascript; charset=utf-8"),
    "style.css": ("style.css", "text/css; charset=utf-8"),
}
PICTURE_STYLE = "picture.css"
LARGEST_REQUEST = 4096  # bytes
ANSWER_LIMIT_S = 30.0
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def view_box(layout: GraphLayout) -> str:
    """Return the picture's attribute, by which the page knows whether it is still the same picture."""
    return f"0 0 {layout.part.width:.0f} {layout.part.height:.0f}"


class Server(ThreadingHTTPServer):
    """Serves one lab."""

    daemon_threads = True

    def __init__(self, feed: Feed, listener: socket.socket) -> None:
        """`listener` now belongs to the server."""
        self.feed = feed
        self.token = secrets.token_urlsafe(18)
        super().__init__(listener.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    @property
    def origin(self) -> str:
        """Return the origin of our page."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Return the page's URL."""
        return f"{self.origin}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own types
        """Ignore errors: a browser that closes a connection is normal."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send a file of the page, or the live messages."""
        name = self._name()
        if name is None:
            return
        if name == "live":
            self._live()
        elif name == PICTURE_STYLE:
            self._answer(
                HTTPStatus.OK, (STYLE + PATH_STYLE + STACK_STYLE + EDGE_STYLE).encode(), "text/css; charset=utf-8"
            )
        elif name in CONTENT:
            file, content_type = CONTENT[name]
            self._answer(HTTPStatus.OK, (FILES / file).read_bytes(), content_type)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "not found")

    def do_POST(self) -> None:
        """Run a trace or a fault, or answer what the page asks."""
        name = self._name()
        if name is None:
            return
        actions: Mapping[str, Callable[[dict[str, Any]], object]] = {
            "trace": self._trace,
            "facts": self._facts,
            "policies": self._policies,
            "fault": self._fault,
            "heal": self._heal,
        }
        if self.headers.get("Origin") != self.server.origin:
            return self._refuse(HTTPStatus.FORBIDDEN, "not from this page")
        if name not in actions:
            return self._refuse(HTTPStatus.NOT_FOUND, "not found")
        request = self._request()
        if request is None:
            return self._refuse(HTTPStatus.BAD_REQUEST, "not a request from this page")
        try:
            answer = actions[name](request)
        except TestbedError as failure:
            late = isinstance(failure, NoAnswer)
            return self._refuse(HTTPStatus.GATEWAY_TIMEOUT if late else HTTPStatus.CONFLICT, str(failure))
        except Exception as failure:
            # The page would say only that the server does not answer.
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error: {failure!r}")
        return self._answer(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")

    def _trace(self, request: dict[str, Any]) -> object:
        from testbed.trace.arguments import arguments_of

        source, destination = str(request.get("source", "")), str(request.get("destination", ""))
        if not source or not destination:
            raise InvalidInput("trace: want a source and a destination")
        record = self.server.feed.record
        arguments = arguments_of(source, destination, None) | {"size": None, "timeout_s": 1.0, "headers": True}
        answer = ask(record, TRACE, answer_within_s=ANSWER_LIMIT_S, **arguments)
        layout = lay_out(graph_of(facts_of_lab(record, ANSWER_LIMIT_S)))
        return {
            "trace": answer,
            "way": trace_way(layout, answer),
            "viewBox": view_box(layout),
            "legs": LEG_WORDS,
            "stacks": draw_each_stack(answer["hops"]),
            "bytes": ["\n".join(hop_bytes(hop)) for hop in answer["hops"]],
        }

    def _facts(self, request: dict[str, Any]) -> object:
        kind, name = str(request.get("kind", "")), str(request.get("name", ""))
        record = self.server.feed.record
        facts = facts_of_lab(record, ANSWER_LIMIT_S)
        rows = rows_of_thing(facts, kind, name)
        routes = routes_of(record, name) if has_routes(facts, kind, name) else []
        return {"rows": [*rows, *(("route", route) for route in routes)], "faults": offers_of(facts, kind, name)}

    def _policies(self, request: dict[str, Any]) -> object:
        pod = str(request.get("pod", ""))
        if not pod:
            raise InvalidInput("policies: want a pod")
        record = self.server.feed.record
        answer = ask(record, POLICY, answer_within_s=ANSWER_LIMIT_S, matrix=True, source=pod)
        layout = lay_out(graph_of(facts_of_lab(record, ANSWER_LIMIT_S)))
        return {"edges": draw_edges(layout, answer["pairs"]), "viewBox": view_box(layout)}

    def _fault(self, request: dict[str, Any]) -> object:
        record, words = self.server.feed.record, request.get("words")
        if not isinstance(words, list) or tuple(words) not in every_offer(facts_of_lab(record, ANSWER_LIMIT_S)):
            raise InvalidInput(f"fault: the page does not offer this (got {words})")
        done = ask(record, FAULT, answer_within_s=ANSWER_LIMIT_S, words=words, lasts_s=None)
        self.server.feed.hurry()
        return done

    def _heal(self, request: dict[str, Any]) -> object:
        number = request.get("number")
        numbers = [number] if isinstance(number, int) else None
        # The page shows what is not ready yet.
        return ask(self.server.feed.record, HEAL, answer_within_s=ANSWER_LIMIT_S, numbers=numbers, limit_s=0.0)

    def _live(self) -> None:
        """Send server-sent events (HTML standard, 9.2) until the browser closes the connection."""
        self.send_response(HTTPStatus.OK)
        for header, value in {**HEADERS, "Content-Type": "text/event-stream", "Connection": "close"}.items():
            self.send_header(header, value)
        self.end_headers()
        self.close_connection = True
        try:
            for message in self.server.feed.messages():
                if message is None:
                    self.wfile.write(b": still here\n\n")
                else:
                    self.wfile.write(f"event: {message[0]}\ndata: {json.dumps(message[1])}\n\n".encode())
                self.wfile.flush()
        except OSError:
            return

    def _name(self) -> str | None:
        """Return the requested name below our path; None if the request was refused."""
        if self.headers.get("Host") != self.server.origin.removeprefix("http://"):
            self._refuse(HTTPStatus.FORBIDDEN, "not this host")
            return None
        token, slash, name = self.path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "not this URL; testbed ui printed the right one")
            return None
        return name

    def _request(self) -> dict[str, Any] | None:
        """Return the body; None if the request is not from our page."""
        try:
            length = int(self.headers.get("Content-Length", ""))
            if self.headers.get("Content-Type") != "application/json" or not 0 <= length <= LARGEST_REQUEST:
                return None
            value = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._answer(status, json.dumps({"error": why}).encode(), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        closing = {"Connection": "close"} if self.close_connection else {}
        for header, value in {**HEADERS, **closing, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is for people."""
