"""One probe of a container, asked from where this test runs."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from testbed.cluster.manifest import PodManifest
from testbed.cluster.probe import Probe
from testbed.pods.prober import Asker

CONTAINERS = [{"name": "c", "image": "echo"}]
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": CONTAINERS}}


class Server(HTTPServer):
    """Notes the path of each request."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.paths.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.parametrize(("written", "asked"), [("/healthz", "/healthz"), ("healthz?full", "/healthz?full"), ("", "/")])
def test_a_path_is_one_from_the_servers_root(server: Server, written: str, asked: str) -> None:
    probe = Probe.model_validate({"httpGet": {"port": server.server_port, "path": written}})
    (container,) = PodManifest.model_validate(POD).spec.containers
    asker = Asker(container, probe, "127.0.0.1", 0, lambda argv, _tty: list(argv))
    assert probe.http_get is not None
    assert asker._get(probe.http_get, "127.0.0.1") == ""
    assert server.paths == [asked]
