"""A lab of an ordinary user: the same lab without sudo, everything of it in the user's own runtime directory."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.ordinary_user import RUNTIME_DIRECTORY, UID, OrdinaryUser
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
PYTHON = (sys.executable, "-P", "-B")
STEADY_SENDER = """
import pathlib, socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.settimeout(0.05)
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    try:
        sender.sendto(b"hostname", ("10.96.0.77", 53))
        pathlib.Path("/tmp/sends").touch()
        print(sender.recv(100).decode().strip())
        break
    except OSError:
        pass
"""


@pytest.fixture(scope="module")
def user() -> Iterator[OrdinaryUser]:
    user = OrdinaryUser.hold()
    try:
        yield user
    finally:
        user.testbed(PYTHON, "down", "--all")
        user.close()


@pytest.fixture(scope="module")
def started(user: OrdinaryUser) -> str:
    """Return what `up --rootless two_nodes` printed."""
    done = user.testbed(PYTHON, "up", "--rootless", "two_nodes")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_up_without_root_brings_the_lab_up_and_suggests_the_next_command_without_sudo(started: str) -> None:
    assert "4 pods ready" in started
    assert "sudo" not in started
    assert started.splitlines()[-1] == "  testbed ping"


@pytest.mark.usefixtures("started")
def test_every_pod_reaches_every_pod_and_a_page_comes_over_the_overlay(user: OrdinaryUser) -> None:
    pairs = json.loads(user.testbed(PYTHON, "ping", "-o", "json").stdout)
    assert len(pairs) == 12
    assert all(pair["received"] == 1 for pair in pairs)
    pods = {
        pod["name"]: pod["address"] for pod in json.loads(user.testbed(PYTHON, "status", "-o", "json").stdout)["pods"]
    }
    answer = user.testbed(PYTHON, "exec", "shell1", "--", "curl", "-s", f"http://{pods['echo2']}:8080/clientip")
    assert answer.stdout.startswith(pods["shell1"]), answer


@pytest.mark.usefixtures("started")
def test_the_users_verbs_change_their_lab(user: OrdinaryUser) -> None:
    assert user.testbed(PYTHON, "exec", "shell1", "--", "id", "-u").stdout == "0\n"
    assert "restarted" in user.testbed(PYTHON, "restart", "agent", "node1").stdout
    traced = user.testbed(PYTHON, "trace", "shell1", "echo2:8080")
    assert traced.returncode == 0, traced.stdout + traced.stderr


@pytest.mark.usefixtures("started")
def test_without_control_groups_a_lab_warns_once_and_pods_with_limits_run(user: OrdinaryUser) -> None:
    file, warnings = f"{RUNTIME_DIRECTORY}/limited.yaml", list[str]()
    for name in ("first", "second"):
        container = {"name": "c", "image": "shell", "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
        user.run("sh", "-c", 'printf %s "$1" > "$2"', "sh", json.dumps(pod), file)
        applied = user.testbed(PYTHON, "apply", "-f", file, "--wait")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        warnings += applied.stderr.splitlines()
    (warning,) = warnings
    assert warning.startswith("warning: resources of containers are not limited (memory and CPU: ")
    assert user.testbed(PYTHON, "delete", "pods", "first", "second").returncode == 0


@pytest.mark.usefixtures("started")
def test_a_steady_udp_sender_is_answered_when_its_service_comes(user: OrdinaryUser) -> None:
    port = {"port": 53, "targetPort": 8080, "protocol": "UDP"}
    spec = {"clusterIP": "10.96.0.77", "selector": {"app": "echo"}, "ports": [port]}
    manifest = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"}, "spec": spec})
    file = f"{RUNTIME_DIRECTORY}/late.yaml"
    user.run("sh", "-c", 'printf %s "$1" > "$2"', "sh", manifest, file)
    with ThreadPoolExecutor(1) as threads:
        sender = threads.submit(user.testbed, PYTHON, "exec", "shell1", "--", "python3", "-c", STEADY_SENDER)
        wait_until(
            lambda: user.testbed(PYTHON, "exec", "shell1", "--", "test", "-e", "/tmp/sends").returncode == 0,
            timeout_s=10,
            what="it sends",
        )
        applied = user.testbed(PYTHON, "apply", "-f", file, "--wait")
        assert applied.returncode == 0, applied.stderr
        wait_until(sender.done, timeout_s=1, what="it is answered")
    assert sender.result().stdout in ("echo1\n", "echo2\n")


@pytest.mark.usefixtures("started")
def test_a_machine_whose_holder_was_killed_gets_another(user: OrdinaryUser) -> None:
    def machine() -> dict[str, Any]:
        found = json.loads(user.testbed(PYTHON, "status", "-o", "json").stdout)["machines"]
        return next(one for one in found if one["name"] == "node1")

    before = machine()
    user.testbed(PYTHON, "exec", "node2", "--", "kill", "-9", str(before["pid"]))
    wait_until(
        lambda: machine() == {**before, "restarts": before["restarts"] + 1}, timeout_s=5, what="node1 is held again"
    )
    assert "node1-eth0" in user.testbed(PYTHON, "exec", "node1", "--", "ip", "-brief", "link").stdout


@pytest.mark.usefixtures("started")
def test_volumes_have_sizes_and_settings_of_the_machine_are_read_only(user: OrdinaryUser) -> None:
    rights = {"securityContext": {"privileged": True}}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    container = {"name": "main", "image": "shell", **mounts, **rights}
    spec = {"containers": [container], "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "8Mi"}}]}
    manifest = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sized"}, "spec": spec})
    file = f"{RUNTIME_DIRECTORY}/sized.yaml"
    user.run("sh", "-c", 'printf %s "$1" > "$2"', "sh", manifest, file)
    applied = user.testbed(PYTHON, "apply", "-f", file, "--wait")
    assert applied.returncode == 0, applied.stderr
    script = "df --output=size -k /data /dev/shm | tail -2; test -w /proc/sys/net/ipv4/ip_forward && echo network; "
    script += "test -w /proc/sys/vm/swappiness && echo machine; true"
    said = user.testbed(PYTHON, "exec", "sized", "--", "sh", "-c", script)
    assert said.stdout.split() == [str(8 * 1024), str(64 * 1024), "network"], said
    lab = f"{RUNTIME_DIRECTORY}/testbed/two-nodes"
    assert user.run("find", f"{lab}/nodes", "-mindepth", "1").stdout == ""
    assert user.testbed(PYTHON, "delete", "pod", "sized").returncode == 0
    assert user.run("ls", f"{lab}/logs/deleted").stdout.rstrip().endswith("-sized")


@pytest.mark.usefixtures("started")
def test_the_state_is_the_users_own_and_smaller_buffers_are_logged(user: OrdinaryUser) -> None:
    status = json.loads(user.testbed(PYTHON, "status", "-o", "json").stdout)
    assert status["rundir"] == f"{RUNTIME_DIRECTORY}/testbed/two-nodes"
    owners = user.run("find", f"{RUNTIME_DIRECTORY}/testbed", "!", "-uid", str(UID)).stdout
    assert owners == ""
    log = user.run("cat", f"{status['rundir']}/logs/agent-node1.log").stdout
    assert "UDP receive buffer:" in log or int(user.run("cat", "/proc/sys/net/core/rmem_max").stdout) >= 8 << 20


def test_a_container_of_a_second_user_is_refused_before_anything_is_made(user: OrdinaryUser) -> None:
    refused = user.testbed(PYTHON, "up", "--rootless", "nginx_tomcat", "--lab", "refused")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: container nginx: image nginx switches to another user after its start")
    assert user.run("ls", f"{RUNTIME_DIRECTORY}/testbed/refused").returncode != 0


def test_doctor_says_that_a_lab_can_run_without_root(user: OrdinaryUser) -> None:
    done = user.testbed(PYTHON, "doctor")
    assert done.returncode == 0, done.stdout
    assert "testbed up --rootless" in done.stdout.splitlines()[-1]


def test_without_the_tun_device_or_a_runtime_directory_the_reason_is_named() -> None:
    user = OrdinaryUser.hold(tun_mode="0600")
    try:
        done = user.testbed(PYTHON, "up", "--rootless", "two_nodes")
        assert done.returncode == 3
        assert "/dev/net/tun" in done.stderr
        assert "Permission denied" in done.stderr
        homeless = user.run(*PYTHON, "-m", "testbed", "up", "--rootless", "two_nodes", XDG_RUNTIME_DIR="/root")
        assert homeless.returncode == 3
        assert "XDG_RUNTIME_DIR" in homeless.stderr
    finally:
        user.close()


def test_down_leaves_nothing(user: OrdinaryUser, started: str) -> None:
    assert started
    pid = json.loads(user.testbed(PYTHON, "status", "-o", "json").stdout)["pid"]
    done = user.testbed(PYTHON, "down")
    assert done.stdout == "lab two-nodes is down\n", done.stderr
    assert user.run("ls", "-A", f"{RUNTIME_DIRECTORY}/testbed").stdout == ""
    # Its parent is the machine's init, which may take a while to look at what ended.
    assert user.run("ps", "-o", "stat=", "-p", str(pid)).stdout[:1] in ("", "Z")
