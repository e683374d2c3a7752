"""What a pod's containers share as files: each in memory of the lab's own, with a size, and gone with the pod."""

import errno
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.pods.pod import Pod
from testbed.pods.tmpfs import MIB
from tests.netns.pods import SLEEP, PodNode, execute, host_mounts, output, shell, started, wait_until

pytestmark = pytest.mark.root

VOLUMES = {
    "plain": ({}, 256 * MIB),
    "small": ({"sizeLimit": "8Mi"}, 8 * MIB),
    "memory": ({"medium": "Memory", "sizeLimit": "1.5G"}, 1_500_000_256),  # whole pages
}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PodNode]:
    with PodNode(tmp_path) as made:
        yield made


def own_mounts(node: PodNode) -> list[str]:
    """Return what is mounted below the lab's directory, in the lab's own namespace."""
    lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
    return sorted(path for line in lines if (path := line.split()[4]).startswith(f"{node.rundir}/"))


def pod_with(node: PodNode, volumes: Mapping[str, Mapping[str, object]], *names: str) -> Pod:
    """Return a pod whose containers have each volume at `/NAME`."""
    mounts = {"volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in volumes]}
    containers = [shell(name, SLEEP, **mounts) for name in names or ("main",)]
    return node.pod("web", *containers, volumes=[{"name": name, "emptyDir": given} for name, given in volumes.items()])


def fill(pod: Pod, path: str, mib: int) -> tuple[int, str]:
    """Write so much into a file, as far as it goes: its size, and the complaint."""
    said = execute(pod, "main", f"head -c {mib}M /dev/zero > {path}")
    return int(output(pod, "main", f"stat -c %s {path}")), said.stderr


def test_a_directory_whose_group_cannot_be_given_leaves_no_mount(
    node: PodNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = [{"name": "plain", "emptyDir": {}}]
    pod = node.pod("web", shell("main", SLEEP), volumes=volumes, securityContext={"fsGroup": 2000})
    before = own_mounts(node)

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="Invalid argument"):
                pod.start()
    assert sum(path.endswith("/volumes/plain") for path in own_mounts(node)) == 0
    started(pod)
    pod.stop(grace_s=0.0)
    assert own_mounts(node) == before


def test_shared_memory_takes_64_mib_and_then_fails(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    size, complaint = fill(pod, "/dev/shm/x", 80)
    assert size == 64 * MIB
    assert "No space left on device" in complaint
    output(pod, "main", "rm /dev/shm/x && echo again > /dev/shm/y")


def test_an_empty_directory_takes_its_size_limit_or_256_mib(node: PodNode) -> None:
    pod = started(pod_with(node, {name: given for name, (given, _) in VOLUMES.items()}))
    for name, (_, size) in VOLUMES.items():
        assert int(output(pod, "main", f"df --output=size -B1 /{name} | tail -1")) == size, name
    size, complaint = fill(pod, "/small/x", 10)
    assert size == 8 * MIB
    assert "No space left on device" in complaint
    assert fill(pod, "/plain/x", 10) == (10 * MIB, ""), "each has its own"


def test_files_without_content_are_limited_too(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    many = "import itertools\nfor n in itertools.count(): open(f'/dev/shm/{n}', 'w').close()"
    assert "No space left on device" in execute(pod, "main", f'python3 -c "{many}"').stderr
    assert int(output(pod, "main", "ls /dev/shm | wc -l")) < 64 * MIB // 4096


def test_volumes_outlive_containers_and_the_pause_process_and_go_with_the_pod(node: PodNode) -> None:
    before, host = own_mounts(node), host_mounts()
    pod = started(pod_with(node, {"plain": {}}, "main", "other"))
    output(pod, "main", "echo kept | tee /plain/x > /dev/shm/x")
    assert output(pod, "other", "cat /plain/x /dev/shm/x") == "kept\nkept\n"
    assert len(own_mounts(node)) == len(before) + 2
    assert host_mounts() == host, "nothing is mounted on the host"
    main = pod.containers["main"].pid
    assert main is not None
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "the container is back")
    assert output(pod, "main", "cat /plain/x /dev/shm/x") == "kept\nkept\n"
    pause = pod.pause_pid
    assert pause is not None
    os.kill(pause, signal.SIGKILL)
    wait_until(lambda: pod.pause_pid not in (None, pause) and pod.status().ready, "the pod is back")
    assert output(pod, "other", "cat /plain/x /dev/shm/x") == "kept\nkept\n"
    pod.stop(grace_s=0)
    assert own_mounts(node) == before
    started(pod)
    assert "No such file" in execute(pod, "main", "cat /plain/x").stderr, "a new pod has new volumes"
    pod.delete(0)
    assert own_mounts(node) == before


def test_nothing_of_a_volume_is_on_the_host_and_no_process_keeps_it(node: PodNode, tmp_path: Path) -> None:
    pod = started(pod_with(node, {"plain": {}}))
    output(pod, "main", "echo secret > /plain/x")
    assert (node.rundir / "pods/web/volumes/plain/x").exists()
    on_host = node.mounts.outside(lambda: [path.name for path in tmp_path.rglob("*")])
    assert "plain" in on_host
    assert "x" not in on_host
    pod.delete(0)
    holders = [entry for entry in Path("/proc").glob("[0-9]*/mountinfo") if f"{node.rundir}/pods/web" in _text(entry)]
    assert holders == []


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
