"""Who a container's processes are and what they may, seen from inside."""

from collections.abc import Iterator

import pytest

from testbed.cluster.name_rules import CAPABILITIES
from tests.netns.pods import DEFAULT_CAPABILITIES, SLEEP, PodNode, ended, execute, output, shell, started, wait_until

pytestmark = pytest.mark.root
WHO = "echo $(id -u) $(id -g) $(id -G)"
RIGHTS = "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodNode]:
    with PodNode(tmp_path_factory.mktemp("node")) as made:
        yield made


def rights(text: str) -> dict[str, int]:
    """Return the masks by name, and whether new rights are forbidden."""
    return {name: int(value, 16) for name, value in (line.split(":\t") for line in text.splitlines())}


def mask(*names: str) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


def test_user_and_group_are_the_container_s_else_the_pod_s(node: PodNode) -> None:
    own = shell("own", SLEEP, securityContext={"runAsUser": 1000, "runAsGroup": 3000})
    pod = started(
        node.pod("who", own, shell("pods", SLEEP), securityContext={"runAsUser": 2000, "supplementalGroups": [40, 50]})
    )
    assert output(pod, "own", WHO) == "1000 3000 3000 40 50\n"
    assert output(pod, "pods", WHO) == "2000 0 0 40 50\n"


def test_a_container_without_a_security_context_is_root_with_the_usual_rights(node: PodNode) -> None:
    pod = started(node.pod("usual", shell("c", SLEEP)))
    assert output(pod, "c", WHO) == "0 0 0\n"
    found = rights(output(pod, "c", RIGHTS))
    assert (found["CapEff"], found["CapBnd"], found["NoNewPrivs"]) == (DEFAULT_CAPABILITIES, DEFAULT_CAPABILITIES, 0)


def test_the_root_is_read_only_and_volumes_are_not(node: PodNode) -> None:
    container = shell(
        "c",
        f"echo up > /data/up; {SLEEP}",
        workingDir="/srv/here",
        volumeMounts=[{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/usr/local/deep/data"}],
        securityContext={"readOnlyRootFilesystem": True},
    )
    pod = started(node.pod("sealed", container, volumes=[{"name": "data", "emptyDir": {}}]))
    for place in ("/tmp/x", "/etc/x", "/srv/here/x", "/usr/local/deep/x", "/x"):
        failed = execute(pod, "c", f"echo x > {place}")
        assert "Read-only file system" in failed.stderr, place
    assert output(pod, "c", "cat /usr/local/deep/data/up; echo x > /data/x; echo x > /dev/shm/x; pwd") == (
        "up\n/srv/here\n"
    )


def test_dropped_capabilities_are_gone_and_added_ones_are_there(node: PodNode) -> None:
    context = {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    pod = started(node.pod("few", shell("c", SLEEP, securityContext=context)))
    found = rights(output(pod, "c", RIGHTS))
    assert (found["CapEff"], found["CapBnd"]) == (mask("NET_BIND_SERVICE"), mask("NET_BIND_SERVICE"))
    assert execute(pod, "c", "chown 1 /tmp").returncode != 0


def test_net_admin_is_given_to_whoever_asks(node: PodNode) -> None:
    context = {"capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}}
    pod = started(node.pod("admin", shell("c", SLEEP, securityContext=context), shell("other", SLEEP)))
    output(pod, "c", "ip link add dummy type veth")
    assert execute(pod, "c", "chown 1 /tmp").returncode != 0
    assert execute(pod, "other", "ip link delete dummy").returncode != 0


def test_a_user_without_any_capability_runs(node: PodNode) -> None:
    context = {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    pod = started(node.pod("plain", shell("c", SLEEP, securityContext=context)))
    assert output(pod, "c", WHO) == "1000 0 0\n"
    assert rights(output(pod, "c", RIGHTS)) == {"CapEff": 0, "CapBnd": 0, "NoNewPrivs": 1}
    assert rights(output(pod, "c", RIGHTS.replace("self", "1")))["NoNewPrivs"] == 1


def test_fs_group_owns_the_volumes(node: PodNode) -> None:
    container = shell("c", SLEEP, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    context = {"runAsUser": 1000, "fsGroup": 2000}
    volumes = [{"name": "data", "emptyDir": {}}]
    pod = started(node.pod("group", container, securityContext=context, volumes=volumes))
    assert output(pod, "c", "touch /data/x; stat -c '%u %g' /data/x; id -G") == "1000 2000\n0 2000\n"


def test_a_container_dies_with_its_shim_also_as_another_user(node: PodNode) -> None:
    context = {"runAsUser": 1000, "runAsGroup": 1000}
    pod = started(node.pod("mortal", shell("c", SLEEP, securityContext=context)))
    pid = pod.containers["c"].pid
    pod.delete(0.0)
    assert pid is not None
    assert ended(pid)


def test_a_user_without_rights_may_listen_on_a_low_port_of_its_pod(node: PodNode) -> None:
    context = {"runAsUser": 10001, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    script = 'import socket, time; socket.create_server(("", 80)); print("up", flush=True); time.sleep(99)'
    listen = f"exec python3 -c '{script}'"
    pod = started(node.pod("low", shell("c", listen, securityContext=context)))
    wait_until(lambda: pod.containers["c"].log.read_text() == "up\n", "it listens on port 80")
