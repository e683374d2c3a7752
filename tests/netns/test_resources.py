"""Limits of memory and CPU as containers meet them, and groups that leave nothing behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.cgroups import groups as cgroups
from testbed.cgroups.groups import PREFIX, CgroupClaim, Groups, claim, remove_groups_of_dead_labs
from testbed.cluster.limits import Limits
from testbed.processes import namespaces as ns
from tests.netns.pods import SLEEP, PodNode, execute, output, shell, started, wait_until

pytestmark = pytest.mark.root
MIB = 1 << 20
FILES = ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "cpu.shares", "cpu.weight")
HOG = "exec python3 -c 'import time; time.sleep(0.3); data = bytearray(200 << 20); time.sleep(999)'"


@pytest.fixture
def rundir(tmp_path: Path) -> Path:
    made = tmp_path / f"limits-{os.getpid()}"
    made.mkdir()
    return made


@pytest.fixture
def node(rundir: Path) -> Iterator[PodNode]:
    with PodNode(rundir) as made:
        claimed = claim(rundir.name)
        try:
            if claimed.why_not:
                pytest.skip(f"no control groups here: {dict(claimed.why_not)}")
            made.groups = claimed.attach(rundir / "cgroups")
            yield made
        finally:
            for pod in made.made:
                pod.delete(0.0)
            ns.umount_below(str(rundir / "cgroups"))
            end(claimed)


def groups_of(rundir: Path) -> list[Path]:
    # Not by rglob, which fails at a group that ends meanwhile.
    name = f"{PREFIX}{rundir.name}"
    return [Path(place, name) for place, inner, _ in os.walk("/sys/fs/cgroup") if name in inner]


def end(claimed: CgroupClaim) -> None:
    """Let go of a claim, as a lab does that ends, and remove its groups, as `down` does."""
    for lock in claimed.locks:
        os.close(lock)
    assert remove_groups_of_dead_labs() == []


def test_a_container_that_uses_too_much_memory_is_killed_and_says_so(node: PodNode) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    pod = node.pod("hog", shell("c", HOG, **limits), shell("other", SLEEP))
    pod.start()
    wait_until(lambda: ("pod/hog", "OOMKilling") in node.events, "the kernel has killed it", 60)
    wait_until(lambda: pod.status().restarts > 0, "it is started again", 60)
    status = pod.status()
    assert (status.containers[0].exit_code, status.containers[0].ended) == (137, "OOMKilled")
    assert status.containers[1].state == "running"
    said = next(message for thing, reason, message in node.messages if reason == "OOMKilling")
    assert said == "container c used more than its memory limit of 64Mi; the kernel killed it"


def test_a_container_that_ends_for_good_is_called_oom_killed(node: PodNode) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    pod = node.pod("once", shell("c", HOG, **limits), restartPolicy="Never")
    pod.start()
    wait_until(lambda: pod.status().state == "OOMKilled", "it has ended", 60)
    assert pod.status().phase == "Failed"


def test_a_container_that_fails_within_its_limit_is_not_called_oom_killed(node: PodNode) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    pod = node.pod("fails", shell("c", "exit 137", **limits), restartPolicy="Never")
    pod.start()
    wait_until(lambda: pod.status().state == "Error", "it has ended", 60)
    assert (pod.status().containers[0].exit_code, pod.status().containers[0].ended) == (137, "Error")


def test_limits_are_in_the_group_and_commands_are_in_it_too(node: PodNode, rundir: Path) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi", "cpu": "500m"}}}
    pod = started(node.pod("shop/both", shell("c", SLEEP, **limits), shell("free", SLEEP)))
    own = output(pod, "c", "cat /proc/1/cgroup; echo; cat /proc/self/cgroup").split("\n\n")
    assert own[0].strip() == own[1].strip()
    groups = {directory / "pod-shop_both_c" for directory in groups_of(rundir)}
    assert all(group.is_dir() for group in groups)
    values = {file.name: file.read_text().strip() for group in groups for file in group.iterdir() if file.name in FILES}
    assert values in (
        {"memory.limit_in_bytes": str(64 * MIB), "cpu.cfs_quota_us": "50000", "cpu.shares": "512"},
        {"memory.max": str(64 * MIB), "cpu.max": "50000 100000", "cpu.weight": "20"},
    )
    assert "pod-shop_both_free" not in output(pod, "free", "cat /proc/self/cgroup")
    assert execute(pod, "c", "ls /sys/fs/cgroup/*").stdout == ""
    failed = execute(pod, "c", "python3 -c 'bytearray(200 << 20)'")
    assert failed.returncode == 137
    pod.delete(0.0)
    assert not any(group.exists() for group in groups)


def test_a_container_gets_no_more_cpu_than_its_limit(node: PodNode) -> None:
    spin = "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    container = shell("c", f"python3 -c '{spin}' > /used; {SLEEP}", resources={"limits": {"cpu": "200m"}})
    pod = started(node.pod("slow", container))
    wait_until(lambda: execute(pod, "c", "cat /used").stdout.strip() != "", "it has measured", 60)
    assert 0.03 < float(output(pod, "c", "cat /used")) < 0.7


def test_a_container_that_cannot_have_its_group_says_why(node: PodNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "pod-lost_c")

    pod = started(node.pod("lost", shell("c", SLEEP, resources={"limits": {"memory": "64Mi"}})))
    monkeypatch.setattr(node.groups, "make", refuse)
    assert pod.containers["c"].pid is not None
    os.kill(pod.containers["c"].pid, signal.SIGKILL)
    wait_until(lambda: "control group: " in pod.status().why_not_ready, "it says why")
    assert ("pod/lost", "BackOff") in node.events
    monkeypatch.undo()
    wait_until(lambda: pod.status().ready, "it runs again", 60)
    assert pod.status().containers[0].message == ""


def claimed_groups(rundir: Path) -> CgroupClaim:
    """Make a claim that is not attached."""
    claimed = claim(rundir.name)
    for _, tree in claimed.trees.values():
        os.close(tree)
    if claimed.why_not:
        end(claimed)
        pytest.skip(f"no control groups here: {dict(claimed.why_not)}")
    return claimed


def test_groups_of_a_lab_stay_while_it_lives_and_are_then_removed_whole(rundir: Path) -> None:
    claimed = claimed_groups(rundir)
    made = groups_of(rundir)
    groups = Groups({controller: place for controller, (place, _) in claimed.trees.items()}, {})
    groups.make("pod-a_c", Limits(memory=64 * MIB, cpu_shares=2))
    assert made
    for _ in range(2):
        assert all((directory / "pod-a_c").is_dir() for directory in made)
        assert remove_groups_of_dead_labs() == []
    end(claimed)
    assert groups_of(rundir) == []


def test_groups_of_a_dead_lab_of_the_same_name_are_made_again(rundir: Path) -> None:
    first = claimed_groups(rundir)
    made = groups_of(rundir)
    (made[0] / "pod-a_c").mkdir()
    for lock in first.locks:
        os.close(lock)
    second = claimed_groups(rundir)
    assert groups_of(rundir) == made
    assert not (made[0] / "pod-a_c").exists()
    end(second)


def test_a_try_to_join_leaves_nothing(rundir: Path) -> None:
    claimed = claimed_groups(rundir)
    for place, _ in claimed.trees.values():
        cgroups._try_to_join(place.directory)
        assert not (place.directory / "probe").exists()
    end(claimed)
    with pytest.raises(FileNotFoundError):
        cgroups._try_to_join(rundir / "nowhere" / "group")


def test_where_no_group_can_be_made_there_is_one_warning(rundir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(cgroups, "_hold", refuse)
    claimed = claim(rundir.name)
    groups = claimed.attach(rundir / "cgroups")
    complaint = groups.complain_once()
    end(claimed)
    assert complaint.startswith("warning: resources of containers are not limited (memory and CPU: ")
    assert "Operation not permitted" in complaint
    assert groups.complain_once() == ""
    assert groups.make("pod-a_c", Limits(memory=MIB)) == []
