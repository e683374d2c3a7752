"""Machines that share an etcd, without Mininet and without a lab: `testbed join`, `machines`, `leave`."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.pages import DOCS, missing, sessions
from tests.netns.agents import NETWORK, Underlay, run, wait_until
from tests.netns.machine import ETCD, FLAGS, Machine

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def underlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Underlay]:
    """Start an underlay with etcd and a network config."""
    with ExitStack() as undo:
        made = Underlay(tmp_path_factory.mktemp("join"), f"oj{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


@pytest.fixture(scope="module")
def two(underlay: Underlay) -> tuple[Machine, Machine]:
    """Start two machines that have joined."""
    both = Machine(underlay, "office", "192.168.8.21"), Machine(underlay, "cellar", "192.168.8.22")
    for machine in both:
        machine.join()
    return both


def succeeds(words: Sequence[str]) -> bool:
    return run(*words, check=False).returncode == 0


def test_pods_made_by_hand_on_two_machines_reach_each_other(two: tuple[Machine, Machine]) -> None:
    near, far = (machine.make_the_pod_that_join_shows() for machine in two)
    assert " mtu 1472 " in two[0].run("ip", "-n", "web", "link", "show", "eth0").stdout
    for machine, there in zip(two, (far, near), strict=True):
        words = (*machine.enter, "ip", "netns", "exec", "web", "ping", "-n", "-c1", "-W2", there)
        wait_until(partial(succeeds, words), 15, "the pod there answers")
    page = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).handle_request()"
    with subprocess.Popen(
        [*two[1].enter, "ip", "netns", "exec", "web", sys.executable, "-c", page],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        url = f"http://{far}:8080/pyproject.toml"
        curl = ["ip", "netns", "exec", "web", "curl", "-sS", "-m", "5", "--retry", "20", "--retry-connrefused", url]
        assert 'name = "overlay-testbed"' in two[0].run(*curl).stdout
        server.wait(10)


@pytest.mark.slow
def test_any_machine_sees_all_and_one_that_has_not_joined_too(two: tuple[Machine, Machine], underlay: Underlay) -> None:
    seen = two[0].machines()
    assert (seen["network"], seen["backend"], seen["joined"]) == ("10.0.0.0/16", "udp", True)
    assert {machine["public_ip"]: (machine["here"], machine["answers"]) for machine in seen["machines"]} == {
        "192.168.8.21": (True, True),
        "192.168.8.22": (False, True),
    }
    assert all(0 < machine["seconds_left"] <= 60 for machine in seen["machines"])
    outside = Machine(underlay, "laptop", "192.168.8.29")
    seen = outside.machines(ETCD)
    assert not seen["joined"]
    assert [machine["answers"] for machine in seen["machines"]] == [None, None]
    assert "this machine has not joined" in outside.testbed("machines", ETCD).stdout


@pytest.mark.slow
def test_a_machine_that_leaves_is_forgotten_and_keeps_nothing(underlay: Underlay) -> None:
    guest, other = Machine(underlay, "guest", "192.168.8.23"), Machine(underlay, "witness", "192.168.8.24")
    before = guest.run("ip", "-d", "address").stdout, guest.run("ip", "route").stdout
    other.join()
    guest.join()

    def of_guest() -> list[dict[str, Any]]:
        return [one for one in other.machines()["machines"] if one["public_ip"] == guest.address]

    wait_until(lambda: of_guest() and of_guest()[0]["answers"], 10, "the witness reaches it", of_guest)
    refused = guest.testbed("leave", *FLAGS, check=False)
    assert refused.returncode == 1
    assert "an agent runs here" in refused.stderr
    assert guest.interrupt() == 0
    assert f"sudo testbed leave {' '.join(FLAGS)}" in guest.said
    wait_until(lambda: of_guest() and of_guest()[0]["answers"] is False, 10, "it does not answer any more", of_guest)
    assert other.testbed("machines", *FLAGS, check=False).returncode == 1
    assert "removed: lease" in guest.testbed("leave", *FLAGS).stdout
    assert of_guest() == []
    assert guest.run("ip", "route").stdout == before[1]
    assert [line.split()[1] for line in guest.run("ip", "-o", "link").stdout.splitlines()] == [
        line.split()[1] for line in before[0].splitlines() if re.match(r"\d+:", line)
    ]
    assert guest.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.slow
def test_mistakes_are_reported_at_once_and_change_nothing(two: tuple[Machine, Machine], underlay: Underlay) -> None:
    again = two[0].testbed("join", *FLAGS, check=False)
    assert again.returncode == 3
    assert "machine: an agent runs here already (got an answer on port 8286; want it stopped" in again.stderr
    other_port = two[0].testbed("join", *FLAGS, "--healthz-port=8287", check=False)
    assert other_port.returncode == 3
    assert "machine: an agent runs here already (got process " in other_port.stderr
    assert "which has /coreos.com/network in etcd and writes /run/flannel/subnet.env" in other_port.stderr
    wrong = two[0].testbed("join", "--etcd-endpoint=x", "--iptables-resync=never", check=False)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 2, wrong.stderr
    assert "--etcd-endpoints" in wrong.stderr
    lost = Machine(underlay, "lost", "192.168.8.25")
    several = lost.testbed("join", "--etcd-endpoints=http://192.168.8.11:1", "--iface=eth7", check=False)
    assert several.returncode == 4
    assert [line.split(":")[0] for line in several.stderr.splitlines()] == ["error", "error"], several.stderr
    assert "192.168.8.11:1" in several.stderr
    assert "eth7" in several.stderr
    nothing_there = lost.testbed("machines", ETCD, "--etcd-prefix=/elsewhere", check=False)
    assert nothing_there.returncode == 4
    assert "/elsewhere/config" in nothing_there.stderr
    assert "docker0" not in lost.run("ip", "link").stdout
    underlay.write_config(NETWORK.replace("10.0.0.0/16", "192.168.0.0/16"))
    try:
        inside = lost.testbed("join", *FLAGS, check=False)
        assert inside.returncode == 3
        assert "is in the pod network" in inside.stderr
    finally:
        underlay.write_config()


@contextmanager
def flanneld_on(machine: Machine, *flags: str) -> Iterator[int]:
    """Yield a process that looks like a flanneld with these flags, and its id."""
    program = ("-c", "print('up', flush=True); import time; time.sleep(60)", *flags)
    command = ["bash", "-c", 'exec -a /opt/bin/flanneld "$0" "$@"', sys.executable, *program]
    with subprocess.Popen([*machine.enter, *command], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process.pid
        finally:
            process.kill()


def test_join_notices_a_flanneld_that_runs_here_for_the_same_network_or_file(underlay: Underlay) -> None:
    farm = Machine(underlay, "farm", "192.168.8.27")
    for flags in ((), ("--etcd-prefix=/other",), ("--subnet-file=/run/other.env",)):
        with flanneld_on(farm, *flags) as pid:
            refused = farm.testbed("join", *FLAGS, check=False)
        assert refused.returncode == 3
        assert f"error: machine: a flanneld runs here already (got process {pid}," in refused.stderr
    with flanneld_on(farm, "--etcd-prefix=/other", "--subnet-file=/run/other.env"):
        farm.join()
        farm.interrupt()


@pytest.mark.slow
def test_a_machine_without_a_bridge_answers_by_its_overlay_address(underlay: Underlay) -> None:
    """Its containers' bridge comes later, with dockerd."""
    bare, witness = Machine(underlay, "bare", "192.168.8.28"), Machine(underlay, "judge", "192.168.8.30")
    bare.join(*FLAGS, "--bridge=")
    witness.join()

    def of_bare() -> list[tuple[bool, bool]]:
        seen = witness.machines()["machines"]
        return [(one["answers"], one["gateway_answers"]) for one in seen if one["public_ip"] == bare.address]

    wait_until(lambda: of_bare() == [(True, False)], 10, "it answers, without a gateway", of_bare)
    said = witness.testbed("machines", *FLAGS, check=False).stdout
    assert "yes, without a bridge" in next(line for line in said.splitlines() if bare.address in line)
    bare.interrupt()
    wait_until(lambda: of_bare() == [(False, False)], 10, "it does not answer any more", of_bare)


def test_a_machine_with_dockerd_and_a_firewall_keeps_both(underlay: Underlay) -> None:
    shop = Machine(underlay, "shop", "192.168.8.26")
    for words in (
        "ip link add docker0 type bridge",
        "ip address add 172.17.0.1/16 dev docker0",
        "ip link add veth1 type veth peer name veth2",
        "ip link set veth1 master docker0 up",
        "iptables -P FORWARD DROP",
        "nft add table inet hostfw",
    ):
        shop.run(*words.split())
    shop.run("nft", "add chain inet hostfw f1 { type filter hook forward priority 10; policy drop; }")

    def kept() -> list[str]:
        return [shop.run(*words.split()).stdout for words in ("ip -o -4 address", "ip route", "nft list ruleset")]

    before = kept()
    refused = shop.testbed("join", *FLAGS, check=False)
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: --bridge: docker0 belongs to another program (got 172.17.0.1/16, 1 port;")
    assert "another --bridge=NAME" in refused.stderr
    assert kept() == before
    left = shop.testbed("leave", *FLAGS)
    assert left.stdout == "kept: docker0 (172.17.0.1/16, 1 port), made by another program\nnothing to remove\n"
    assert kept() == before

    shop.join(*FLAGS, "--bridge=pods0")
    assert "warning: forward: chain f1 of table inet hostfw (policy drop) drops packets between pods" in shop.said
    assert "overlay-agent: from pods of" in shop.run("iptables", "-S", "FORWARD").stdout
    assert "172.17.0.1/16" in shop.run("ip", "address", "show", "docker0").stdout
    shop.make_the_pod_that_join_shows()
    shop.interrupt()
    left = shop.testbed("leave", *FLAGS, "--bridge=pods0")
    assert left.stdout.count("removed: nft delete rule ip filter FORWARD") == 2
    assert "removed: ip link delete pods0" in left.stdout
    assert kept() == before


@pytest.mark.slow
def test_the_guide_shows_the_actual_output(tmp_path: Path) -> None:
    with ExitStack() as undo:
        underlay = Underlay(tmp_path, f"og{os.getpid()}-", undo)
        underlay.start_etcd()
        underlay.write_config(NETWORK.replace('"udp"', '"vxlan"'))
        text = (DOCS / "real-machines.md").read_text().split("## Join")[1].split("\n## ")[0]
        (join, says), (machines, listed), (ping, replies), (leave, gone) = sessions(text)
        office, cellar = (
            Machine(underlay, name, f"192.168.8.2{number}") for number, name in enumerate(("office", "cellar"), 1)
        )
        for machine in (office, cellar):
            machine.join(*shlex.split(join)[3:])
        assert missing(says, office.said) == []
        there = office.make_the_pod_that_join_shows()
        cellar.make_the_pod_that_join_shows()
        assert missing(listed, cellar.testbed(*shlex.split(machines)[1:]).stdout) == []
        assert missing(replies, cellar.run(*shlex.split(ping.replace("10.0.46.2", there))[1:]).stdout) == []
        cellar.interrupt()
        assert missing(gone, cellar.testbed(*shlex.split(leave)[2:]).stdout) == []
