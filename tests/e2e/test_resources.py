"""Resources of containers in a running lab: out of memory, and control groups that do not outlive the lab."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import host
from tests.e2e.lab import Lab
from tests.waiting import wait_until

HOG = "import time; time.sleep(0.5); data = bytearray(200 << 20); time.sleep(999)"
TREES = Path("/sys/fs/cgroup")


def groups_of(lab: Lab) -> list[Path]:
    # Not by rglob, which fails at a group that ends meanwhile.
    return [Path(place, name) for place, inner, _ in os.walk(TREES) for name in inner if name == f"testbed-{lab.name}"]


def apply_hog(lab: Lab) -> str:
    resources = {"limits": {"memory": "64Mi"}, "requests": {"cpu": "100m"}}
    container = {"name": "c", "image": "shell", "command": ["python3", "-c", HOG], "resources": resources}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hog"}, "spec": {"containers": [container]}}
    answer = lab.testbed("apply", "-f", "-", stdin=json.dumps(pod))
    assert answer.code == 0, answer
    return answer.err


@pytest.fixture
def limited_lab(own_lab: Lab) -> Lab:
    """Return a lab in which a pod with limits runs."""
    if complaint := apply_hog(own_lab):
        assert complaint.startswith("warning: resources of containers are not limited")
        pytest.skip(f"no control groups here: {complaint}")
    return own_lab


def test_a_pod_that_uses_too_much_memory_is_oom_killed_and_says_so(limited_lab: Lab) -> None:
    def last() -> dict[str, object]:
        pod = json.loads(limited_lab.must("get", "pod", "hog", "-o", "json"))
        return dict(pod["status"]["containerStatuses"][0]["lastState"].get("terminated", {}))

    wait_until(lambda: last().get("reason") == "OOMKilled", timeout_s=60, what="the container was killed")
    assert last()["exitCode"] == 137
    said = limited_lab.must("describe", "pod", "hog")
    assert "OOMKilling: container c used more than its memory limit of 64Mi; the kernel killed it" in said
    assert "OOMKilled" in said


def test_down_removes_the_groups_of_a_lab(limited_lab: Lab) -> None:
    assert groups_of(limited_lab)
    assert limited_lab.down().code == 0
    assert groups_of(limited_lab) == []


def test_after_a_crash_the_next_down_removes_the_groups(limited_lab: Lab) -> None:
    seen = host.footprint(limited_lab.json("status")["pid"])
    os.kill(host.pid_in(seen, "testbed.supervisor.lab_init"), signal.SIGKILL)
    wait_until(lambda: not seen.remains(), timeout_s=60, what="the lab's processes are gone")
    assert limited_lab.testbed("down", "--lab", limited_lab.name).code == 0
    assert groups_of(limited_lab) == []


def test_down_removes_the_groups_of_a_lab_whose_directory_was_removed_by_hand(limited_lab: Lab) -> None:
    remove = ["rm", "-rf", str(Path("/run/testbed", limited_lab.name))]
    # The lab still writes there: something may come while it is emptied.
    wait_until(
        lambda: subprocess.run(remove, capture_output=True, check=False).returncode == 0, timeout_s=10, what="removed"
    )
    assert limited_lab.testbed("down", "--lab", limited_lab.name).code == 0
    assert groups_of(limited_lab) == []


def test_after_a_crash_the_next_up_of_that_name_removes_the_groups(limited_lab: Lab) -> None:
    seen = host.footprint(limited_lab.json("status")["pid"])
    before = [(path, path.stat().st_ino) for path in groups_of(limited_lab)]
    os.kill(host.pid_in(seen, "testbed.supervisor.lab_init"), signal.SIGKILL)
    wait_until(lambda: not seen.remains(), timeout_s=60, what="the lab's processes are gone")
    assert limited_lab.up("two_nodes").code == 0
    assert not set(before) & {(path, path.stat().st_ino) for path in groups_of(limited_lab)}
    assert not any((path / "pod-hog_c").exists() for path in groups_of(limited_lab))
