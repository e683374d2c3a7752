"""Probes that run: what they say of a container, and what follows from it. And pods with their node's network."""

import http.client
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from testbed.cluster.image_names import ImageRule
from testbed.pods.pod import Pod
from testbed.processes.namespaces import in_network_of
from tests.netns.pods import SLEEP, PodNode, execute, output, shell, started, wait_until

pytestmark = pytest.mark.slow

ECHO = {"name": "main", "image": "echo", "ports": [{"containerPort": 8080, "name": "web"}]}
ROOT = Path(__file__).parents[2]
OFTEN = {"periodSeconds": 1}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PodNode]:
    with PodNode(tmp_path) as made:
        yield made


def reasons(node: PodNode, pod: Pod) -> list[str]:
    return [reason for thing, reason in node.events if thing == f"pod/{pod.name}"]


def test_a_command_in_the_container_decides_whether_it_is_ready(node: PodNode) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "failureThreshold": 1, **OFTEN}
    pod = node.pod("web", shell("main", SLEEP, readinessProbe=probe))
    pod.start()
    wait_until(lambda: "Unhealthy" in reasons(node, pod), "the first failure is told")
    assert not pod.status().ready
    assert "main is not ready by its readiness probe" in pod.status().why_not_ready
    output(pod, "main", "touch /tmp/ready")
    wait_until(lambda: pod.status().ready, "ready")
    output(pod, "main", "rm /tmp/ready")
    wait_until(lambda: not pod.status().ready, "not ready any more")
    assert pod.status().restarts == 0, "readiness restarts nothing"


def test_a_stand_in_is_ready_at_once_whatever_its_probes_wait_for(node: PodNode) -> None:
    node.images = (ImageRule("*", "echo"),)
    late = {"httpGet": {"port": 80, "path": "/health"}, "initialDelaySeconds": 3600, "failureThreshold": 1}
    container = {"name": "main", "image": "slow:1", "ports": [{"containerPort": 80}]}
    pod = started(node.pod("slow", {**container, "startupProbe": late, "readinessProbe": late, "livenessProbe": late}))
    assert pod.status().restarts == 0, "a failure before the initial delay has no effect"


def test_an_open_port_is_not_enough_where_a_probe_asks_for_a_page(node: PodNode) -> None:
    pod = node.pod("web", {**ECHO, "readinessProbe": {"httpGet": {"port": "web", "path": "/nothing"}, **OFTEN}})
    pod.start()
    wait_until(lambda: "Unhealthy" in reasons(node, pod), "404 is a failure")
    assert not pod.status().ready


def test_a_page_and_a_connection_make_a_container_ready(node: PodNode) -> None:
    page = started(node.pod("page", {**ECHO, "readinessProbe": {"httpGet": {"port": "web", "path": "/hostname"}}}))
    port = started(node.pod("port", {**ECHO, "readinessProbe": {"tcpSocket": {"port": 8080}}}))
    assert (page.status().ready, port.status().ready) == (True, True)


def test_a_health_service_decides_whether_its_container_is_ready(node: PodNode, tmp_path: Path) -> None:
    well = tmp_path / "well"
    probe = {"grpc": {"port": 9000}, "failureThreshold": 1, **OFTEN}
    pod = node.pod("api", shell("main", SLEEP, readinessProbe=probe))
    pod.start()
    wait_until(lambda: "Unhealthy" in reasons(node, pod), "nothing listens yet")
    command = [sys.executable, "-m", "tests.health_server", "9000", str(well)]
    enter = ["nsenter", "--target", str(pod.pause_pid), "--net", "--"]
    with subprocess.Popen([*enter, *command], cwd=ROOT, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"serves\n"
            assert not pod.status().ready
            well.touch()
            wait_until(lambda: pod.status().ready, "ready")
            well.unlink()
            wait_until(lambda: not pod.status().ready, "not ready any more")
        finally:
            server.kill()
    assert pod.status().restarts == 0, "readiness restarts nothing"


def test_a_container_that_does_not_live_is_restarted(node: PodNode) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/stuck"]}, "failureThreshold": 2, **OFTEN}
    pod = started(node.pod("web", shell("main", SLEEP, livenessProbe=probe)))
    former = pod.containers["main"].pid
    output(pod, "main", "touch /tmp/stuck")
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "restarted")
    assert pod.containers["main"].pid != former
    assert reasons(node, pod).count("Killing") == 1
    # Its own root is a new one, so the file is gone and the container lives.
    assert execute(pod, "main", "test -e /tmp/stuck").returncode == 1


@pytest.mark.slow
def test_one_that_ignores_the_end_is_killed_after_the_grace(node: PodNode) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/stuck"]}, "failureThreshold": 1, **OFTEN}
    deaf = shell("main", "trap '' TERM; while :; do sleep 0.2; done", livenessProbe=probe)
    pod = started(node.pod("web", deaf, terminationGracePeriodSeconds=0))
    output(pod, "main", "touch /tmp/stuck")
    wait_until(lambda: pod.status().restarts == 1, "restarted all the same")


def test_a_pod_with_the_nodes_network_has_the_nodes_interfaces_and_address(node: PodNode) -> None:
    links = node.kernel.links()
    pod = started(node.pod("web", ECHO, hostNetwork=True))
    assert node.kernel.links() == links, "it needs no link of its own"
    assert pod.address == str(node.address)
    assert "docker0" in output(pod, "main", "ls /sys/class/net; ip -o link")
    assert output(pod, "main", "hostname").strip() == "node1"
    assert node.ipam.reservations() == {}
    assert in_network_of(node.pid, lambda: answer_of(8080)) == 200
    pod.stop()
    assert node.kernel.links() == links


def answer_of(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/hostname")
        return connection.getresponse().status
    finally:
        connection.close()


class Moved(BaseHTTPRequestHandler):
    """Answers 302 and notes the headers that came."""

    seen: dict[str, str]

    def do_GET(self) -> None:
        type(self).seen = dict(self.headers)
        self.send_response(302)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_redirect_is_a_success_and_headers_go_along(node: PodNode) -> None:
    server = in_network_of(node.pid, lambda: HTTPServer(("127.0.0.1", 9090), Moved))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        get = {"port": 9090, "host": "127.0.0.1", "httpHeaders": [{"name": "X-Who", "value": "probe"}]}
        started(node.pod("web", shell("main", SLEEP, readinessProbe={"httpGet": get})))
        assert Moved.seen["X-Who"] == "probe"
    finally:
        server.shutdown()
        server.server_close()
