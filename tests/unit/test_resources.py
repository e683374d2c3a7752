"""What resources of a manifest mean for the kernel, and where control groups can be made."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from testbed.cgroups.plan import CgroupPlace, Setting, kills_in, places, settings
from testbed.cluster.image_names import ImageRule
from testbed.cluster.limits import Limits
from testbed.cluster.problems import SpecError
from testbed.cluster.resources import Resources, limits_of, qos_class
from testbed.cluster.spec import Cluster, read_cluster

MIB = 1 << 20


def resources(limits: dict[str, Any] | None = None, requests: dict[str, Any] | None = None) -> Resources:
    return Resources.model_validate({"limits": limits or {}, "requests": requests or {}})


def read(given: str, image: str = "shell") -> Cluster:
    spec = f"{{containers: [{{name: c, image: {image}, {given}}}]}}"
    pod = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}"
    return read_cluster(f"nodes: [node1]\n---\n{pod}\n".encode(), "c.yaml", (ImageRule("*", "echo"),))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (resources({"memory": "64Mi"}), Limits(memory=64 * MIB)),
        (resources({"cpu": "500m"}), Limits(cpu_quota_us=50_000, cpu_shares=512)),
        (resources({"cpu": 2}, {"cpu": "0.1"}), Limits(cpu_quota_us=200_000, cpu_shares=102)),
        (resources({}, {"cpu": 0.5}), Limits(cpu_shares=512)),
        (resources({"cpu": "1m"}), Limits(cpu_quota_us=1000, cpu_shares=2)),
        (resources({"cpu": 0, "memory": 0}, {"memory": "1Gi"}), None),
        (resources(), None),
    ],
)
def test_the_kernel_s_numbers_are_those_of_kubernetes(given: Resources, wanted: Limits | None) -> None:
    assert limits_of(given) == wanted


@pytest.mark.parametrize(
    ("containers", "wanted"),
    [
        ([resources()], "BestEffort"),
        ([resources({"cpu": 1, "memory": "1Gi"}), resources({"cpu": 1, "memory": "1Gi"}, {"cpu": 1})], "Guaranteed"),
        ([resources({"cpu": 1, "memory": "1Gi"}), resources()], "Burstable"),
        ([resources({"cpu": 1, "memory": "1Gi"}, {"cpu": "1m"})], "Burstable"),
        ([resources({}, {"memory": "1Gi"})], "Burstable"),
    ],
)
def test_the_qos_class_is_that_of_kubernetes(containers: list[Resources], wanted: str) -> None:
    assert qos_class(containers) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
            "a request above its limit (got requests.cpu: 2, limits.cpu: 1;",
        ),
        ("resources: {limits: {memory: 1Mi}, requests: {memory: 2M}}", "got requests.memory: 2M, limits.memory: 1Mi;"),
        (
            "resources: {limits: {cpu: much}}",
            "limits.cpu: not an amount of CPU (got much; want processors, such as 500m",
        ),
        ("resources: {limits: {cpu: true}}", "limits.cpu: not an amount of CPU"),
        ("resources: {limits: {memory: 0.5x}}", "limits.memory: not a quantity of bytes (got 0.5x;"),
        ("resources: {limits: {nvidia.com/gpu: 1}}", "limits.nvidia.com/gpu: unknown or unsupported key"),
        ("resources: {claims: [{name: x}]}", "claims: unknown or unsupported key"),
    ],
)
def test_mistakes_are_named(given: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(given)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_only_an_ignored_setting_is_warned_of() -> None:
    given = "resources: {limits: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, requests: {memory: 1Mi}}"
    found = read(given)
    assert [str(warning).partition("resources.")[2] for warning in found.warnings] == [
        "limits.ephemeral-storage: ignored: a container's files have a size of their own"
    ]
    assert found.pods[0].spec.has_limits
    assert not read(given, "redis").pods[0].spec.has_limits


OWN_V1 = "9:name=systemd:/\n4:memory:/jobs/7\n2:cpu,cpuacct:/\n0::/\n"
MOUNTS_V1 = """\
30 20 0:27 / /sys/fs/cgroup rw shared:1 - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:2 - cgroup cgroup rw,memory
32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
MOUNTS_V2 = "31 30 0:28 / /sys/fs/cgroup rw,nosuid shared:2 - cgroup2 cgroup2 rw,nsdelegate\n"


def hands_down(**groups: list[str]) -> Callable[[Path], Collection[str]]:
    return lambda directory: groups.get(directory.name, [])


def test_in_version_1_groups_are_below_the_lab_s_own() -> None:
    assert places(MOUNTS_V1, OWN_V1, hands_down(), root=True) == {
        "memory": CgroupPlace(1, Path("/sys/fs/cgroup/memory/jobs/7")),
        "cpu": CgroupPlace(1, Path("/sys/fs/cgroup/cpu,cpuacct")),
    }


def test_a_container_s_own_group_is_the_root_of_what_it_sees() -> None:
    mounts = MOUNTS_V1.replace("0:28 / ", "0:28 /docker/ab ")
    inside = places(mounts, OWN_V1.replace("/jobs/7", "/docker/ab/x"), hands_down(), root=True)
    assert inside["memory"] == CgroupPlace(1, Path("/sys/fs/cgroup/memory/x"))
    assert places(mounts, OWN_V1, hands_down(), root=True)["memory"] == CgroupPlace(1, Path("/sys/fs/cgroup/memory"))


def test_in_version_2_groups_are_below_the_root_where_it_hands_controllers_down() -> None:
    found = places(MOUNTS_V2, "0::/user.slice/session-1.scope\n", hands_down(cgroup=["cpu", "memory"]), root=True)
    assert found == dict.fromkeys(("memory", "cpu"), CgroupPlace(2, Path("/sys/fs/cgroup")))
    found = places(MOUNTS_V2, "0::/\n", hands_down(cgroup=["memory"]), root=True)
    assert found["cpu"] == "/sys/fs/cgroup/cgroup.subtree_control does not have cpu"
    assert found["memory"] == CgroupPlace(2, Path("/sys/fs/cgroup"))


def test_without_root_groups_are_below_the_one_that_systemd_delegates_to_the_user() -> None:
    service = "/user.slice/user-1000.slice/user@1000.service"
    handed = hands_down(**{"user@1000.service": ["memory", "cpu"], "cgroup": ["memory", "cpu"]})
    found = places(MOUNTS_V2, f"0::{service}/app.slice/terminal.scope\n", handed, root=False)
    assert found["memory"] == CgroupPlace(2, Path(f"/sys/fs/cgroup{service}"))
    found = places(MOUNTS_V2, "0::/user.slice/session-1.scope\n", handed, root=False)
    assert found["memory"] == "group /user.slice/session-1.scope is not delegated to its user by systemd"


def test_a_copy_of_the_tree_elsewhere_is_not_used() -> None:
    copy = "40 30 0:28 /a /tmp/a rw - cgroup cgroup rw,memory\n"
    assert places(f"{copy}{MOUNTS_V1}{copy}", OWN_V1, hands_down(), root=True) == places(
        MOUNTS_V1, OWN_V1, hands_down(), root=True
    )
    assert isinstance(places(copy, OWN_V1, hands_down(), root=True)["memory"], str)


def test_a_machine_without_control_groups_says_so() -> None:
    assert places("", "", hands_down(), root=True) == {
        "memory": "this machine has no memory controller mounted",
        "cpu": "this machine has no cpu controller mounted",
    }


def test_settings_are_those_of_each_version() -> None:
    limits = Limits(memory=64 * MIB, cpu_quota_us=50_000, cpu_shares=512)
    assert settings("memory", 1, limits) == [
        Setting("memory.limit_in_bytes", "67108864"),
        Setting("memory.memsw.limit_in_bytes", "67108864", needed=False),
    ]
    assert settings("memory", 2, limits) == [
        Setting("memory.max", "67108864"),
        Setting("memory.swap.max", "0", needed=False),
        Setting("memory.oom.group", "1", needed=False),
    ]
    assert settings("cpu", 1, limits) == [
        Setting("cpu.cfs_period_us", "100000"),
        Setting("cpu.cfs_quota_us", "50000"),
        Setting("cpu.shares", "512"),
    ]
    assert settings("cpu", 2, limits) == [Setting("cpu.max", "50000 100000"), Setting("cpu.weight", "20")]
    assert settings("memory", 1, Limits(cpu_shares=2)) == []
    assert settings("cpu", 2, Limits(memory=1)) == []


def test_kills_are_counted_in_both_files() -> None:
    assert kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n") == 3
    assert kills_in("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n") == 1
    assert kills_in("") == 0
