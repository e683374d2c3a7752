from pathlib import Path

import pytest

from testbed.command.doctor import (
    PROGRAMS,
    Check,
    error_line,
    packages_check,
    pinned_packages,
    program_checks,
    required_failures,
    root_check,
    tun_check,
)

ROOT = Path(__file__).resolve().parents[2]


def failed(name: str, needed_for: str = "") -> Check:
    return Check(name, False, "none", "one", "buy it", needed_for)


def test_only_what_every_lab_needs_is_required() -> None:
    found = (failed("nft"), failed("vxlan", "the vxlan backend"), root_check(0))
    assert [check.name for check in required_failures(found)] == ["nft"]


def test_what_a_cluster_uses_is_required_too() -> None:
    found = (failed("nginx", "image nginx"), failed("java", "image tomcat"))
    assert [check.name for check in required_failures(found, also=["image nginx"])] == ["nginx"]


def test_a_failure_says_what_was_found_and_how_to_get_it() -> None:
    assert error_line(failed("nft")) == "environment: nft (got none; want one: buy it)"


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


def test_every_program_that_is_looked_for_is_installed_by_us() -> None:
    install = (ROOT / "scripts" / "install").read_text(encoding="utf-8")
    assert [package for _, package, _ in PROGRAMS if f"    {package}:" not in install] == []


def test_a_newer_protobuf_is_a_failure() -> None:
    check = packages_check([("protobuf", "3.20.3")], lambda name: "4.21.0")
    assert (check.ok, check.found) == (False, "protobuf 4.21.0 instead of 3.20.3")


def test_a_project_that_is_not_installed_is_a_failure() -> None:
    assert not packages_check([], lambda name: None).ok


def test_every_pin_is_in_the_lock_at_the_same_version() -> None:
    lock = (ROOT / "scripts" / "requirements.lock").read_text(encoding="utf-8").lower().replace("-", "_").splitlines()
    pins = [f"{name}=={wanted}".lower().replace("-", "_") for name, wanted in pinned_packages()]
    assert pins != []
    assert [pin for pin in pins if pin not in lock] == []
