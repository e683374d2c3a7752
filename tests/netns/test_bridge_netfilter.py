"""br_netfilter comes with its settings at 1 in every network namespace; where a lab loads it, they become 0 there."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.host.bridge_netfilter import CALLS, SETTINGS, other_network_namespaces, switch_off_in
from tests.e2e.lab import fresh_name

pytestmark = pytest.mark.root


@pytest.fixture
def named() -> Iterator[Path]:
    """Yield a network namespace that a name holds and no process."""
    name = fresh_name("beside")
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield Path("/run/netns", name)
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def held() -> Iterator[Path]:
    """Yield a network namespace that two processes hold and no name."""
    script = "sleep 1000 & echo made; wait"
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        yield Path(f"/proc/{process.pid}/ns/net")
        process.kill()


def test_every_other_namespace_is_found_once(named: Path, held: Path) -> None:
    found = [path.stat().st_ino for path in other_network_namespaces()]
    assert len(found) == len(set(found))
    assert {named.stat().st_ino, held.stat().st_ino} <= set(found)
    assert os.stat("/proc/self/ns/net").st_ino not in found


@pytest.mark.skipif(not SETTINGS.is_dir(), reason="this kernel has no br_netfilter now")
def test_the_settings_of_that_namespace_alone_are_switched_off(named: Path) -> None:
    def values(*prefix: str) -> list[str]:
        command = [*prefix, "cat", *(str(SETTINGS / name) for name in CALLS)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    there, here = ("ip", "netns", "exec", named.name), values()
    assert values(*there) == ["1", "1", "1"]
    switch_off_in(named, SETTINGS)
    assert values(*there) == ["0", "0", "0"]
    assert values() == here


def test_a_namespace_that_has_ended_meanwhile_is_not_switched_off(tmp_path: Path) -> None:
    switch_off_in(tmp_path / "gone", SETTINGS)
    (tmp_path / "no namespace").touch()
    switch_off_in(tmp_path / "no namespace", SETTINGS)
