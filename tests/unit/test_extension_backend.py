"""The extension backend: which programs are run, with which words, variables and input."""

import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.backends import extension
from agent.backends.base import Underlay
from agent.backends.extension import ExtensionBackend, ProgramFailed, expand, run_program
from agent.daemon.service_manager import SIGNALS
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import ExtensionOptions
from tests.waiting import wait_until

NETWORK = IPv4Network("10.0.0.0/16")
UNDERLAY = Underlay("eth0", IPv4Address("192.168.8.227"), 1500, IPv4Address("192.168.8.227"))


def lease(subnet: str, public_ip: str, data: object = None, kind: str = "extension") -> Lease:
    attrs = LeaseAttrs(IPv4Address(public_ip), backend_type=kind, backend_data=data)
    return Lease(Subnet(IPv4Network(subnet)), attrs, 1, 1)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Make a script that records its call in `log`, followed by more lines."""

    def make(more: str) -> str:
        path = tmp_path / "program"
        path.write_text(
            f'#!/bin/sh\necho "$* SUBNET=$SUBNET PUBLIC_IP=$PUBLIC_IP in=$(cat)" >>{tmp_path}/log\n{more}\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_arguments_stay_separate_and_variables_are_replaced_inside_them() -> None:
    assert expand(["a", "$SUBNET", "${SUBNET}-x", "$NOTHING"], {"SUBNET": "1 2"}) == ["a", "1 2", "1 2-x", ""]


def test_no_shell_interprets_the_arguments() -> None:
    assert run_program(["echo", "$(id);", "*"], {}) == "$(id); *"


def test_output_of_the_first_program_is_published(program: Callable[[str], str]) -> None:
    backend = ExtensionBackend(NETWORK, ExtensionOptions(pre_startup=(program("echo key; echo said >&2"),)), UNDERLAY)
    attrs = backend.lease_attrs()
    assert (attrs.backend_type, attrs.backend_data) == ("extension", "key\nsaid")
    assert backend.lease_attrs() == attrs
    assert '"BackendType":"extension","BackendData":"key\\nsaid"' in attrs.to_json()


def test_without_a_first_program_no_data_is_published() -> None:
    assert ExtensionBackend(NETWORK, ExtensionOptions(), UNDERLAY).lease_attrs().backend_data is None


def test_peers_that_come_change_and_go_are_reported(program: Callable[[str], str], tmp_path: Path) -> None:
    path = program("")
    options = ExtensionOptions(subnet_add=(path, "add", "$SUBNET"), subnet_remove=(path, "remove"))
    backend = ExtensionBackend(NETWORK, options, UNDERLAY)
    backend.start(lease("10.0.46.0/24", "192.168.8.227"))
    log = tmp_path / "log"

    def told(number: int) -> list[str]:
        wait_until(
            lambda: log.exists() and len(log.read_text().splitlines()) >= number, timeout_s=30, what="it is told"
        )
        return log.read_text().splitlines()

    try:
        backend.set_peers(
            [lease("10.0.90.0/24", "192.168.8.228", "key"), lease("10.0.91.0/24", "1.1.1.1", kind="vxlan")]
        )
        assert told(1) == ["add 10.0.90.0/24 SUBNET=10.0.90.0/24 PUBLIC_IP=192.168.8.228 in=key"]
        wait_until(lambda: len(backend.forwarding_table()) == 1, timeout_s=30, what="the peer is in force")
        backend.set_peers([lease("10.0.90.0/24", "192.168.8.229", "key2")])
        assert told(3)[1:] == [
            "remove SUBNET=10.0.90.0/24 PUBLIC_IP=192.168.8.228 in=key",
            "add 10.0.90.0/24 SUBNET=10.0.90.0/24 PUBLIC_IP=192.168.8.229 in=key2",
        ]
        backend.fence()
        assert told(4)[3:] == ["remove SUBNET=10.0.90.0/24 PUBLIC_IP=192.168.8.229 in=key2"]
    finally:
        backend.stop()


def test_a_program_that_fails_is_reported_and_run_again(
    program: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "RETRY_S", 0.05)
    path = program(f"test -e {tmp_path}/now || {{ echo no way; exit 3; }}")
    backend = ExtensionBackend(NETWORK, ExtensionOptions(subnet_add=(path,)), UNDERLAY)
    asked = threading.Event()
    backend.on_trouble = asked.set
    backend.start(lease("10.0.46.0/24", "192.168.8.227"))
    try:
        backend.set_peers([lease("10.0.90.0/24", "192.168.8.228")])
        assert asked.wait(30)
        with pytest.raises(ProgramFailed, match=r"10\.0\.90\.0/24: backend extension: .*: exited with 3: no way"):
            backend.converge()
        assert backend.forwarding_table() == ()
        (tmp_path / "now").touch()
        wait_until(lambda: len(backend.forwarding_table()) == 1, timeout_s=30, what="the program is run again")
        wait_until(lambda: not backend._failures, timeout_s=30, what="nothing fails any more")
        backend.converge()
    finally:
        backend.stop()


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProgramFailed, match="backend extension: /nowhere/x: cannot be run: No such file"):
        run_program(["/nowhere/x"], {})


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_a_word_that_no_program_can_be_given_is_reported(word: str) -> None:
    with pytest.raises(ProgramFailed, match="backend extension: echo: cannot be run: "):
        run_program(["echo", word], {})


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "LIMIT_S", 0.1)
    with pytest.raises(ProgramFailed, match="timed out after"):
        run_program(["sleep", "60"], {})


def test_a_program_has_no_blocked_signals() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        said = run_program(["grep", "SigBlk", "/proc/self/status"], {})
        assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ()), "the agent's own stay blocked"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert int(said.split()[1], 16) == 0


def test_programs_run_beside_a_connection_to_etcd() -> None:
    """grpc's threads must not begin again in the fork that becomes the program: one in 80 died of that."""
    connected = """
from agent.etcd.client import grpc
from agent.backends.extension import run_program
channel = grpc.insecure_channel("127.0.0.1:1")
channel.subscribe(lambda state: None, try_to_connect=True)
for _ in range(600):
    run_program(["true"], {})
"""
    done = subprocess.run([sys.executable, "-c", connected], capture_output=True, text=True, timeout=100, check=False)
    # Of a program that died run_program raises; grpc itself may say what it likes.
    assert done.returncode == 0, done.stderr
