"""Every image recipe, run for real: in a container's private root, in a network namespace of its own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed.cluster.image_names import ImageRule
from testbed.cluster.manifest import PodManifest
from testbed.places import PAUSE
from testbed.pods.container_document import ContainerPlace
from testbed.pods.pod_container import PodContainer
from tests.waiting import wait_until

pytestmark = pytest.mark.root

START_TIMEOUT_S = 90.0


@dataclass
class RunningContainer:
    """One container with a network namespace around it in which nothing but loopback exists."""

    container: PodContainer
    pause: subprocess.Popen[bytes]

    def inside(self, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command in the container."""
        return subprocess.run(self.container.exec_argv(argv, False), input=stdin, capture_output=True, timeout=60)

    def text(self, *argv: str) -> str:
        """Return what a command in the container prints; it must succeed."""
        done = self.inside(*argv)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def log(self) -> str:
        """Return what the container wrote so far."""
        return self.container.log.read_text(errors="replace")

    def ready(self) -> bool:
        """Return whether the recipe's port is in LISTEN."""
        facts = self.container.facts(self.pause.pid)
        return facts.state == "running" and facts.listens


Start = Callable[..., RunningContainer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one container of a manifest and wait until it is ready."""
    undo = ExitStack()

    def run(*rules: ImageRule, **container: object) -> RunningContainer:
        name = str(container.setdefault("name", container["image"]))
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
        pod = PodManifest.model_validate(manifest, context=rules)
        pause = subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "--mount", str(PAUSE)])
        undo.callback(pause.wait)
        undo.callback(pause.kill)
        exe = Path(f"/proc/{pause.pid}/exe")
        wait_until(lambda: exe.resolve() == PAUSE.resolve(), timeout_s=20, what="pause runs")
        subprocess.run(["nsenter", f"--net=/proc/{pause.pid}/ns/net", "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nsenter", f"--uts=/proc/{pause.pid}/ns/uts", "hostname", name], check=True)
        for directory in ("pod/shm", "pod/volumes"):
            (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        log = tmp_path / f"{name}.log"
        box = PodContainer(pod, pod.spec.containers[0], tmp_path / "pod", log, lambda *event: None)
        running = RunningContainer(box, pause)
        undo.callback(box.stop, 0.0)
        box.start(ContainerPlace(pause.pid, pause.pid, name, "127.0.0.1"))
        wait_until(running.ready, timeout_s=START_TIMEOUT_S, what=f"{name} is ready; its log: {log}")
        return running

    with undo:
        yield run


LONGEST_END_S = 15.0
"""A machine may pause; without a TERM that is heeded it is 30 s."""


def stops_at_once(running: RunningContainer) -> float:
    """Return the seconds from TERM to the container's end."""
    before = time.monotonic()
    running.container.stop(30.0)
    took_s = time.monotonic() - before
    assert running.container.facts(running.pause.pid).exit_code != 137, "it ends by TERM"
    return took_s


def test_nginx_serves_its_own_page_and_logs_the_request(start: Start) -> None:
    nginx = start(image="nginx")
    assert "Welcome to nginx" in nginx.text("curl", "-s", "http://127.0.0.1/")
    wait_until(lambda: "GET / HTTP/1.1" in nginx.log(), timeout_s=30, what="the access log is in the container's log")


def test_nginx_with_an_upstream_serves_files_itself_and_proxies_the_rest(start: Start) -> None:
    nginx = start(image="nginx", env=[{"name": "NGINX_UPSTREAM", "value": "127.0.0.1:8080"}])
    assert "Welcome to nginx" in nginx.text("curl", "-s", "http://127.0.0.1/index.html")
    # Nobody listens there: that the proxy tried is what can be seen.
    assert nginx.text("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1/") == "502"


def test_nginx_workers_are_not_root_and_it_ends_on_term(start: Start) -> None:
    nginx = start(image="nginx")
    wait_until(lambda: "worker process" in nginx.text("ps", "-eo", "user,args"), timeout_s=30, what="it has a worker")
    assert "www-data" in nginx.text("ps", "-eo", "user,args").split("worker process")[0].splitlines()[-1]
    assert stops_at_once(nginx) < LONGEST_END_S


def test_tomcat_answers_with_a_page_that_names_pod_and_client(start: Start) -> None:
    tomcat = start(image="tomcat")
    page = tomcat.text("curl", "-s", "http://127.0.0.1:8080/")
    assert "this is Tomcat" in page
    assert "Apache Tomcat/10" in page
    assert "pod: tomcat (" in page
    assert "client: 127.0.0.1" in page
    wait_until(
        lambda: "127.0.0.1 - - " in tomcat.log() and '"GET / HTTP/1.1" 200' in tomcat.log(),
        timeout_s=30,
        what="access log",
    )
    assert "SEVERE" not in tomcat.log()
    assert stops_at_once(tomcat) < LONGEST_END_S


def test_shell_sleeps_and_ends_at_once_on_term(start: Start) -> None:
    shell = start(image="shell")
    assert shell.text("hostname") == "shell\n"
    assert stops_at_once(shell) < LONGEST_END_S


def test_shell_reaps_orphans(start: Start) -> None:
    shell = start(image="shell")
    shell.text("sh", "-c", "sh -c 'sleep 0.05 & exit 0'")
    wait_until(lambda: "sleep 0.05" not in shell.text("ps", "-eo", "args"), timeout_s=30, what="the orphan ended")
    wait_until(lambda: "defunct" not in shell.text("ps", "-eo", "args"), timeout_s=30, what="the orphan is reaped")


def test_echo_answers_over_http(start: Start) -> None:
    echo = start(image="echo", ports=[{"containerPort": 9000}])
    base = "http://127.0.0.1:9000"
    assert echo.text("curl", "-s", f"{base}/hostname") == "echo\n"
    assert echo.text("curl", "-s", f"{base}/clientip") == "127.0.0.1\n"
    assert echo.text("curl", "-s", f"{base}/echo?msg=a%20b") == "a b"
    body = os.urandom(200_000)
    assert echo.inside("curl", "-s", "--data-binary", "@-", f"{base}/echo", stdin=body).stdout == body
    assert echo.text("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{base}/nothing") == "404"


def test_echo_returns_datagrams(start: Start) -> None:
    echo = start(image="echo")
    ask = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(20);"
        "s.sendto(b'hello', ('127.0.0.1', 8080)); print(s.recv(100).decode())"
    )
    assert echo.text("python3", "-c", ask) == "hello\n"
    assert stops_at_once(echo) < LONGEST_END_S


def test_httpd_serves_its_page_and_ends_on_term(start: Start) -> None:
    httpd = start(name="httpd", image="httpd:2.4")
    assert "It works!" in httpd.text("curl", "-s", "http://127.0.0.1/")
    wait_until(lambda: '"GET / HTTP/1.1" 200' in httpd.log(), timeout_s=30, what="the access log is in the log")
    assert stops_at_once(httpd) < LONGEST_END_S


def test_busybox_has_its_own_tools_in_front_of_the_machine_s(start: Start) -> None:
    busybox = start(name="busybox", image="busybox:1.28")
    assert "BusyBox" in busybox.text("sh", "-c", "wget --help 2>&1; true")
    assert busybox.text("sh", "-c", "command -v nslookup").startswith("/opt/busybox/")
    assert "curl 7" in busybox.text("curl", "--version")


def test_netshoot_has_dig_and_nslookup(start: Start) -> None:
    netshoot = start(name="netshoot", image="registry.k8s.io/e2e-test-images/jessie-dnsutils:1.3")
    assert (
        netshoot.text("sh", "-c", "command -v dig && command -v nslookup")
        == "/opt/busybox/dig\n/opt/busybox/nslookup\n"
    )
    assert "Knot DNS" in netshoot.text("dig", "-V")


def test_agnhost_s_netexec_answers(start: Start) -> None:
    command = ["/agnhost", "netexec", "--http-port=8081"]
    agnhost = start(name="agnhost", image="registry.k8s.io/e2e-test-images/agnhost:2.53", command=command)

    def answers() -> bool:
        return agnhost.inside("curl", "-s", "http://127.0.0.1:8081/hostname").stdout == b"agnhost\n"

    wait_until(answers, timeout_s=30, what="netexec answers")
    assert stops_at_once(agnhost) < LONGEST_END_S


def test_serve_hostname_answers_with_the_pod_s_name(start: Start) -> None:
    served = start(name="snowflake", image="k8s.gcr.io/serve_hostname")
    assert served.text("curl", "-s", "http://127.0.0.1:9376/") == "snowflake"


def test_agnhost_s_liveness_is_well_for_ten_seconds(start: Start) -> None:
    agnhost = start(name="agnhost", image="registry.k8s.io/e2e-test-images/agnhost:2.40", args=["liveness"])

    def status() -> bytes:
        asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8080/healthz")
        return agnhost.inside(*asked).stdout

    wait_until(lambda: status() == b"200", timeout_s=5, what="it is well")
    wait_until(lambda: status() == b"500", timeout_s=30, what="it is not well any more")


def test_a_stand_in_answers_on_every_declared_port_whatever_its_command_is(start: Start) -> None:
    ports = [{"containerPort": 6379}, {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]
    probe = {"tcpSocket": {"port": 9000}}
    shop = start(
        ImageRule("*", "echo"),
        name="shop",
        image="example.com/shop:1.0",
        command=["/shop"],
        args=["--serve"],
        ports=ports,
        livenessProbe=probe,
        env=[{"name": "PORT", "value": "none"}],
    )
    for port in (6379, 80, 9000):
        assert shop.text("curl", "-s", f"http://127.0.0.1:{port}/healthz?x=1").startswith("pod shop answers 127.0.0.1")
    assert shop.text("curl", "-s", "http://127.0.0.1/hostname") == "shop\n"
    ask = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(20);"
        "s.sendto(b'hello', ('127.0.0.1', 53)); print(s.recv(100).decode())"
    )
    assert shop.text("python3", "-c", ask) == "hello\n"
    assert stops_at_once(shop) < LONGEST_END_S
