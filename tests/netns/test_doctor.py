import os
import subprocess

import pytest

from testbed.host.doctor import checks, required_failures

pytestmark = pytest.mark.root


def host_state() -> tuple[str, str, list[str]]:
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True, timeout=60).stdout
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True, timeout=60).stdout
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        return links, rules, mounts.readlines()


def test_trying_the_kernel_leaves_the_host_as_it_was() -> None:
    before = host_state()
    found = {check.name: check for check in checks()}
    assert host_state() == before
    assert found["kernel: bridge"].found == "works"


def test_a_machine_that_runs_these_tests_misses_nothing() -> None:
    assert required_failures(checks(), also=["image nginx", "image tomcat"]) == ()


def test_up_tries_no_kernel_feature_that_it_does_not_need() -> None:
    tried = {check.name for check in checks(optional=False) if check.name.startswith("kernel: ")}
    assert tried == {"kernel: bridge", "kernel: veth", "kernel: tun", "kernel: nftables"}


def test_programs_in_system_directories_are_found_with_a_short_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "/usr/bin:/bin")
    assert {check.name: check.ok for check in checks(optional=False)}["nft"]
