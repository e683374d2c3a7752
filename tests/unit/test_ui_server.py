"""What the server of `testbed ui` answers."""

import http.client
import json
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.ui import server as server_module
from testbed.ui.server import Server


def test_a_failure_that_nobody_expected_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("node3")

    monkeypatch.setattr(server_module, "ask", fail)
    feed: Any = SimpleNamespace(record=None)
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    server = Server(feed, listener)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Origin": server.origin, "Content-Type": "application/json"}
        connection.request("POST", f"/{server.token}/heal", "{}", headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (500, {"error": "internal error: KeyError('node3')"})
    finally:
        connection.close()
        server.shutdown()
        serving.join()
        server.server_close()
