from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agent.errors import EnvironmentMissing
from testbed.host.doctor import (
    FEATURES,
    PROGRAMS,
    Feature,
    MachineCheck,
    error_line,
    forwarding_check,
    memory_check,
    missing_debian_packages,
    packages_check,
    program_checks,
    required_failures,
    room_check,
    root_check,
    tun_check,
    untried,
)
from testbed.host.packages import apt_lines, required_packages, unsatisfied
from testbed.places import PROJECT

ROOT = Path(__file__).resolve().parents[2]


def failed(name: str, needed_for: str = "") -> MachineCheck:
    return MachineCheck(name, False, "none", "one", "buy it", needed_for)


def test_only_what_every_lab_needs_is_required() -> None:
    found = (failed("nft"), failed("vxlan", "the vxlan backend"), root_check(0))
    assert [check.name for check in required_failures(found)] == ["nft"]


def test_requirements_of_a_cluster_are_checked_too() -> None:
    found = (failed("nginx", "image nginx"), failed("java", "image tomcat"))
    assert [check.name for check in required_failures(found, also=["image nginx"])] == ["nginx"]


def test_a_failure_says_what_was_found_and_how_to_get_it() -> None:
    assert error_line(failed("nft")) == "environment: nft (got none; want one: buy it)"


def test_chains_that_drop_what_a_joined_machine_forwards_are_named_and_no_lab_needs_them() -> None:
    named = "chain f1 of table inet hostfw (policy drop)"
    check = forwarding_check(lambda: [named])
    assert (check.ok, check.found, check.needed_for) == (False, named, "testbed join")
    assert "firewall-cmd" in check.remedy
    assert required_failures([check]) == ()
    assert forwarding_check(lambda: []).ok


def test_a_firewall_that_cannot_be_read_is_no_failure_of_the_machine() -> None:
    def refused() -> list[str]:
        raise EnvironmentMissing("needs root")

    check = forwarding_check(refused)
    assert (check.ok, check.found) == (True, "not checked: needs root")


@pytest.mark.row("B8")
def test_another_user_than_root_is_named() -> None:
    assert (root_check(1000).ok, root_check(1000).found) == (False, "uid 1000")


@pytest.mark.row("B8")
def test_a_missing_tun_device_is_a_failure(tmp_path: Path) -> None:
    check = tun_check(tmp_path / "tun")
    assert not check.ok
    assert check.found == f"{tmp_path}/tun: No such file or directory"
    assert "modprobe tun" in check.remedy


@pytest.mark.row("B8")
def test_a_missing_program_names_its_package() -> None:
    found = {check.name: check for check in program_checks(lambda name: None if name == "etcd" else f"/usr/bin/{name}")}
    assert not found["etcd"].ok
    assert "apt install etcd-server" in found["etcd"].remedy
    assert found["nft"].ok


def test_memory_and_space_are_reported_with_the_need_of_the_smallest_lab(tmp_path: Path) -> None:
    assert not memory_check(300).ok
    assert memory_check(8000).ok
    assert memory_check(8000).found == "8000 MiB free, enough for 171 nodes with two pods each"
    check = room_check(tmp_path)
    assert check.ok
    assert check.want == "18 MiB for records and logs of two_nodes"


def test_every_program_that_is_looked_for_is_installed_by_us() -> None:
    install = (ROOT / "scripts" / "install").read_text(encoding="utf-8")
    assert [package for _, package, _ in PROGRAMS if f"    {package}:" not in install] == []


def test_a_newer_protobuf_is_a_failure() -> None:
    check = packages_check([Requirement("protobuf>=3.20.3,<3.21")], lambda name: "4.21.0")
    assert (check.ok, check.found) == (False, "protobuf 4.21.0 instead of <3.21,>=3.20.3")


def test_a_missing_package_is_a_failure() -> None:
    check = packages_check([Requirement("click>=8.2"), Requirement("rich")], {"rich": "15.0"}.get)
    assert (check.ok, check.found) == (False, "click missing")


def test_a_prerelease_within_its_range_is_taken() -> None:
    assert packages_check([Requirement("mininet>=2.3.0.dev6,<2.4")], lambda name: "2.3.0.dev6").ok


def test_a_project_that_is_not_installed_is_a_failure() -> None:
    assert not packages_check([], lambda name: None).ok


def test_what_a_lab_needs_is_the_agents_and_the_extra_labs() -> None:
    names = {one.name for one in required_packages()}
    assert {"etcd3", "mininet", "click"} <= names
    assert names.isdisjoint({"matplotlib", "pytest", "ruff"})


def test_the_lock_has_a_version_within_the_range_of_every_package() -> None:
    lines = (ROOT / "scripts" / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    required = [Requirement(line) for line in metadata.requires(PROJECT) or []]
    assert len(required) > len(required_packages())
    assert unsatisfied(required, lambda name: locked.get(canonicalize_name(name))) == []


def test_the_line_for_debian_stops_the_services_that_come_along() -> None:
    assert apt_lines([]) == []
    assert apt_lines(["iproute2"]) == ["sudo apt-get install --no-install-recommends iproute2"]
    both = apt_lines(["etcd-server", "nginx-light"])
    assert both[1].startswith("sudo systemctl disable --now etcd nginx ")


def test_each_missing_debian_package_is_named_once_and_open_vswitch_is_not() -> None:
    found = program_checks(lambda name: None if name in ("knotd", "knotc", "etcd", "ovs-vswitchd") else "/bin/there")
    assert missing_debian_packages(found) == ["etcd-server", "knot"]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_kernel_feature_is_not_called_missing_where_its_program_is(feature: Feature) -> None:
    assert untried(feature, lambda program: f"/sbin/{program}") is None
    check = untried(feature, lambda program: None)
    assert check is not None
    assert check.found == f"not tried: the program {feature.command[0]} is missing"
    assert check.remedy in ("apt install iproute2", "apt install nftables")
