"""A real dockerd with the options that the agent writes, on two machines: docker0, containers, published ports."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.documents import ROOT, blocks
from tests.e2e.pages import missing
from tests.e2e.typed import commands_of
from tests.netns.agents import Underlay, wait_until
from tests.netns.dockerd import DOCKER, Docker, need_dockerd
from tests.netns.machine import FLAGS, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]
OPTIONS = "--docker-opts-file=/run/docker_opts.env"
HTTPD = shlex.split("run -d --stop-timeout=1 --name=web -p 8080:80 busybox httpd -f -vv -p 80 -h /bin")
WGET = ("wget", "-q", "-O", "/dev/null")
ORDERS = ("the agent makes docker0", "dockerd makes docker0", "dockerd was first")


class Host:
    """A machine with dockerd, joined in one of three ways; `web` is a container with a page."""

    def __init__(self, underlay: Underlay, name: str, address: str) -> None:
        self.machine = Machine(underlay, name, address)
        self.docker = Docker(self.machine)
        underlay.undo.callback(self.docker.close)

    def set_up(self, order: str, forward: int) -> None:
        """Set it up; `forward` is the initial value of ip_forward, by which dockerd chooses FORWARD's policy."""
        self.machine.run("sysctl", "-q", f"net.ipv4.ip_forward={forward}")
        bridge = "--bridge=docker0" if order == "the agent makes docker0" else "--bridge="
        if order == "dockerd was first":
            self.docker.start("true")
            assert "172.17.0.1/16" in self.of_docker0()
            refused = self.machine.testbed("join", *FLAGS, check=False)
            assert refused.returncode == 3
            assert "docker0 belongs to another program (got 172.17.0.1/16" in refused.stderr
            self.docker.stop()
        self.machine.join(*FLAGS, bridge, OPTIONS)
        self.docker.start()
        self.docker.cli(*HTTPD)

    def of_docker0(self) -> str:
        return self.machine.run("ip", "-br", "-4", "address", "show", "docker0").stdout

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.machine.run("curl", "-s", "127.0.0.1:8286/state").stdout)
        return found

    def leased(self) -> str:
        """Return the subnet's first address, in the agent's own words."""
        return str(self.state()["lease"]["subnet"]).split("/")[0]

    def peers(self) -> list[object]:
        """Return the agent's forwarding table."""
        found: list[object] = self.state()["forwarding"]
        return found

    def ready(self) -> str:
        return self.machine.run("curl", "-s", "127.0.0.1:8286/readyz", check=False).stdout

    def reads_from(self, address: str, port: int = 80) -> bool:
        """Return whether a new container here gets the page there."""
        return self.docker.succeeds("run", "--rm", "busybox", *WGET, f"http://{address}:{port}/sh")

    def web_saw(self) -> str:
        return self.docker.cli("logs", "web")


def two_hosts(underlay: Underlay) -> tuple[Host, Host]:
    need_dockerd()
    underlay.start_etcd()
    underlay.write_config()
    return Host(underlay, "office", "192.168.8.21"), Host(underlay, "cellar", "192.168.8.22")


@pytest.fixture(scope="module", params=[(order, forward) for order in ORDERS for forward in (0, 1)], ids=str)
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Start two machines set up alike."""
    with ExitStack() as undo:
        both = two_hosts(Underlay(tmp_path_factory.mktemp("docker"), f"dk{os.getpid()}-", undo))
        for host in both:
            host.set_up(*request.param)
        wait_until(lambda: both[0].reads_from(both[1].docker.address("web")), 15, "the containers' nodes are peers")
        yield both


@pytest.mark.row("C35")
def test_docker0_and_containers_have_what_the_agent_wrote(hosts: tuple[Host, Host]) -> None:
    for host in hosts:
        gateway = host.leased()[:-1] + "1"
        assert f" {gateway}/24" in host.of_docker0()
        inside = host.docker.cli("exec", "web", "ip", "-o", "link", "show", "eth0")
        assert " mtu 1472 " in inside


@pytest.mark.row("C35")
def test_containers_of_two_machines_talk_by_their_own_addresses(hosts: tuple[Host, Host]) -> None:
    for near, far in (hosts, hosts[::-1]):
        before = far.web_saw()
        near.docker.cli("run", "-d", "--rm", "--name=client", "busybox", "sleep", "30")
        address = near.docker.address("client")
        near.docker.cli("exec", "client", *WGET, f"http://{far.docker.address('web')}/sh")
        near.docker.cli("kill", "client")
        seen = far.web_saw().removeprefix(before)
        assert f"{address}]" in seen or f"{address}:" in seen


@pytest.mark.row("C35")
def test_a_published_port_answers_another_machine_and_its_containers(hosts: tuple[Host, Host]) -> None:
    for near, far in (hosts, hosts[::-1]):
        assert near.reads_from(far.machine.address, 8080)
        near.machine.run("curl", "-sS", "-m", "5", "-o", "/dev/null", f"http://{far.machine.address}:8080/sh")


@pytest.mark.row("C35")
def test_a_container_in_the_network_of_another_shares_its_address_and_localhost(hosts: tuple[Host, Host]) -> None:
    for near, far in (hosts, hosts[::-1]):
        shared = ("run", "--rm", "--network=container:web", "busybox")
        assert near.docker.address("web") in near.docker.cli(*shared, "ip", "-o", "-4", "address")
        near.docker.cli(*shared, *WGET, "http://127.0.0.1/sh")
        near.docker.cli(*shared, *WGET, f"http://{far.docker.address('web')}/sh")


@pytest.mark.row("C35")
@pytest.mark.parametrize("order", ORDERS)
def test_another_subnet_reaches_containers_once_dockerd_has_the_new_options(order: str, tmp_path: Path) -> None:
    with ExitStack() as undo:
        underlay = Underlay(tmp_path, f"ds{os.getpid()}-", undo)
        moved, other = two_hosts(underlay)
        for host in (moved, other):
            host.set_up(order, 0)
        before = moved.leased()
        (key,) = [key for key in underlay.leases() if before in key]
        underlay.etcdctl("put", key, json.dumps({"PublicIP": "192.168.8.99", "PublicIPv6": None}))
        assert moved.machine.joined is not None
        assert moved.machine.joined.wait(20) == 1, "the agent has no subnet any more"
        # Its unit would start it again.
        if order == "the agent makes docker0":
            moved.machine.join(*FLAGS, "--bridge=docker0", OPTIONS)
        else:
            starts = moved.machine.start(shlex.join(["testbed", "join", *FLAGS, OPTIONS]), "waiting for")
            refusal = "docker0 belongs to another program"
            wait_until(lambda: refusal in moved.ready(), 30, "the agent says why it is not ready", moved.ready)
            assert starts.poll() is None
        after = moved.leased()
        assert after != before
        assert f"--bip={after[:-1]}1/24" in moved.machine.run("cat", "/run/docker_opts.env").stdout
        moved.docker.stop()
        moved.docker.start()
        moved.docker.cli("start", "web")
        wait_until(lambda: "agent is ready" in moved.ready(), 30, "the agent is ready", moved.ready)
        assert f" {after[:-1]}1/24" in moved.of_docker0()
        assert moved.docker.address("web").startswith(after[:-1])
        for near, far in ((moved, other), (other, moved)):
            address = far.docker.address("web")
            wait_until(partial(near.reads_from, address), 15, f"containers reach {address}")


def test_the_page_shows_the_actual_output(tmp_path: Path) -> None:
    join, look, here, there = blocks(ROOT / "docs" / "docker.md")
    with ExitStack() as undo:
        office, cellar = two_hosts(Underlay(tmp_path, f"dp{os.getpid()}-", undo))
        previous = "FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET=10.0.46.1/24\n"
        office.machine.run("sh", "-c", f"mkdir /run/flannel && printf '{previous}' > /run/flannel/subnet.env")
        (typed,) = commands_of(join)
        for host in (office, cellar):
            host.machine.start(typed.command.removeprefix("sudo "), "Ctrl-C stops the agent")
            host.docker.start()
        assert missing(typed.shown, office.machine.said) == []
        wait_until(lambda: len(office.peers()) == len(cellar.peers()) == 1, 30, "both know each other")
        for block, host in ((look, office), (here, office), (there, cellar)):
            for typed in commands_of(block):
                said = host.machine.bash(f'docker() {{ {DOCKER} "$@"; }}\n{typed.command}')
                assert missing(typed.shown, said) == [], said
