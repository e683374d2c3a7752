"""A kernel module that is loaded for labs goes with the last of them; the kernel is a directory here."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed.host import bridge_netfilter
from testbed.host.bridge_netfilter import CALLS, provide, put_back

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root loads modules")
LOADED = {name: "1" for name in CALLS}
"""What the kernel has after loading it: it would look into every packet on the host's bridges."""


class Machine:
    """A kernel that has br_netfilter as a module, and the directory of the labs."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "labs"
        self.root.mkdir()
        self.settings = directory / "bridge"
        self.in_use = False
        self.another_lab_runs = False
        self.ran: list[str] = []

    def run(self, command: Sequence[str]) -> str:
        self.ran.append(" ".join(command))
        if command[0] == "modprobe":
            self.load(LOADED)
        elif self.in_use:
            return "rmmod: ERROR: Module br_netfilter is in use by: xt_physdev"
        else:
            for file in self.settings.iterdir():
                file.unlink()
            self.settings.rmdir()
        return ""

    def load(self, values: dict[str, str]) -> None:
        self.settings.mkdir()
        for name, value in values.items():
            (self.settings / name).write_text(f"{value}\n")

    def provide(self) -> str:
        return provide(self.root, self.settings, self.run)

    def put_back(self) -> str:
        return put_back(self.root, self.settings, self.run, lambda: self.another_lab_runs)

    def values(self) -> set[str]:
        return {file.read_text().strip() for file in self.settings.iterdir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(autouse=True)
def _no_claims_left() -> None:
    """Remove the claims of the previous test."""
    while bridge_netfilter._claims:
        os.close(bridge_netfilter._claims.pop())


def test_the_module_comes_without_its_effect_on_the_host_and_goes_with_the_last_lab(machine: Machine) -> None:
    assert machine.provide() == ""
    assert machine.values() == {"0"}
    assert machine.put_back() == ""
    assert not machine.settings.exists()
    assert machine.ran == ["modprobe br_netfilter", "rmmod br_netfilter"]
    assert list(machine.root.iterdir()) == []


def test_it_is_kept_while_another_lab_runs_and_removed_after_that_one_was_killed(machine: Machine) -> None:
    machine.provide()
    machine.another_lab_runs = True
    assert machine.put_back() == ""
    assert machine.settings.exists()
    machine.another_lab_runs = False
    assert machine.put_back() == ""
    assert not machine.settings.exists()


def test_earlier_state_is_neither_changed_nor_removed(machine: Machine) -> None:
    machine.load(LOADED)
    assert machine.provide() == ""
    assert machine.put_back() == ""
    assert machine.values() == {"1"}
    assert machine.ran == []
    assert list(machine.root.iterdir()) == []


def test_it_is_kept_for_a_lab_that_another_process_is_starting(machine: Machine) -> None:
    machine.provide()
    program = "import sys; from pathlib import Path; from testbed.host.bridge_netfilter import provide; "
    program += "assert not provide(*map(Path, sys.argv[1:])); print('provided', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(machine.root), str(machine.settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"provided\n"
        assert machine.put_back() == ""
        assert machine.settings.exists()
        other.kill()
    assert machine.put_back() == ""
    assert not machine.settings.exists()


def test_a_program_that_relies_on_it_by_now_keeps_it_and_is_reported(machine: Machine) -> None:
    machine.provide()
    (machine.settings / CALLS[-1]).write_text("1\n")
    assert machine.put_back().startswith("kernel module br_netfilter stays loaded: net.bridge.bridge-nf-call-iptables ")
    assert machine.settings.exists()
    assert machine.put_back() == "", "it is no longer ours"


def test_one_that_cannot_be_removed_is_tried_again_the_next_time(machine: Machine) -> None:
    machine.provide()
    machine.in_use = True
    assert "in use by: xt_physdev" in machine.put_back()
    machine.in_use = False
    assert machine.put_back() == ""
    assert not machine.settings.exists()


def test_a_kernel_without_it_is_an_error_and_leaves_no_record(machine: Machine) -> None:
    fatal = "modprobe: FATAL: Module br_netfilter not found."
    missing = provide(machine.root, machine.settings, lambda _: fatal)
    what = "this kernel cannot filter on bridges, which Services and NetworkPolicies need"
    assert missing == f"environment: {what} (got {fatal}; want br_netfilter)"
    machine.put_back()
    assert list(machine.root.iterdir()) == []
