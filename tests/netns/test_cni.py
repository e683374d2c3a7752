"""Debian's CNI plugins, called by podman, beside the agent on two machines; and two bridges with one address."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.documents import ROOT, blocks
from tests.e2e.pages import missing
from tests.e2e.typed import commands_of
from tests.netns.agents import Underlay, wait_until
from tests.netns.dockerd import ControlGroups, image, own_etc
from tests.netns.machine import FLAGS, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]
PLUGINS = Path("/usr/lib/cni")
PODMAN = "/usr/bin/podman"
CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni", "/run/cni-plugins"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
STORAGE_CONF = '[storage]\ndriver = "vfs"\nrunroot = "/run/storage"\ngraphroot = "/run/images"\n'
WEB = "podman run -d --name web --network overlay -p 8080:80 busybox httpd -f -p 80 -h /etc"


class PodmanHost:
    """A machine with podman, whose networks are CNI's; what it keeps is in the machine's own mounts."""

    def __init__(self, underlay: Underlay, name: str, address: str) -> None:
        self.machine = Machine(underlay, name, address)
        self._groups = ControlGroups()
        underlay.undo.callback(self._end)
        own_etc(self.machine)
        self.machine.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
        self.machine.run("mkdir", "-p", "/run/cni-plugins", "/etc/cni/net.d", "/etc/containers")
        self.machine.run("cp", str(ROOT / "tests" / "netns" / "flannel_plugin.py"), "/run/cni-plugins/flannel")
        for file, text in (("containers.conf", CONTAINERS_CONF), ("storage.conf", STORAGE_CONF)):
            self.machine.run("sh", "-c", f"printf '%s' '{text}' > /etc/containers/{file}")
        subprocess.run(
            [*self.machine.enter, PODMAN, "import", "-q", "-", "busybox"],
            input=image(),
            check=True,
            capture_output=True,
        )

    def _end(self) -> None:
        self.machine.run(PODMAN, "rm", "--all", "--force", "--time=0", check=False)
        self._groups.remove()

    def bash(self, command: str) -> str:
        """Return what a line of a page prints."""
        own = f'[ "$1" = run ] && set -- run --cgroup-parent=/{self._groups.name} "${{@:2}}"'
        return self.machine.bash(f'podman() {{ {own}; {PODMAN} "$@"; }}\n{command}')

    def use(self, conflist: str) -> None:
        """Put one of docs/*.conflist in place, as the page says."""
        if conflist == "flannel":
            self.bash("cp docs/10-overlay.conflist /etc/cni/net.d/")
        else:
            self.bash(by_hand())

    def web(self) -> str:
        """Start a container with a page, and return its address."""
        begun = self.bash(WEB)
        said = self.bash("podman exec web ip -4 -o address show eth0")
        found = re.search(r"inet ([0-9.]+)/24", said)
        assert found, f"{begun}\n{said}\n{self.bash('podman inspect web')}"
        return found[1]

    def reads_from(self, place: str) -> bool:
        """Return whether a new container here gets the page there."""
        return "localhost" in self.bash(f"podman run --rm --network overlay busybox wget -q -O - http://{place}/hosts")

    def ready(self) -> str:
        return self.machine.run("curl", "-s", "127.0.0.1:8286/readyz", check=False).stdout


def by_hand() -> str:
    """Return the commands of the block that writes the file by hand."""
    block = list(blocks(ROOT / "docs" / "cni.md"))[2]
    return "\n".join(typed.command for typed in commands_of(block))


def two_hosts(underlay: Underlay) -> tuple[PodmanHost, PodmanHost]:
    if not shutil.which(PODMAN) or not (PLUGINS / "bridge").exists():
        pytest.skip("no podman or no CNI plugins (scripts/install --tests installs both)")
    underlay.start_etcd()
    underlay.write_config()
    return PodmanHost(underlay, "office", "192.168.8.21"), PodmanHost(underlay, "cellar", "192.168.8.22")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[PodmanHost, PodmanHost]]:
    """Start two machines that have not joined."""
    with ExitStack() as undo:
        yield two_hosts(Underlay(tmp_path, f"cn{os.getpid()}-", undo))


@pytest.mark.row("C36")
@pytest.mark.parametrize("conflist", ["flannel", "bridge"])
@pytest.mark.parametrize("bridge", ["--bridge=", "--bridge=cni0"])
def test_pods_of_two_machines_talk_and_published_ports_answer(
    hosts: tuple[PodmanHost, PodmanHost], conflist: str, bridge: str
) -> None:
    for host in hosts:
        host.machine.join(*FLAGS, bridge)
        host.use(conflist)
    addresses = [host.web() for host in hosts]
    for near, far, address in ((*hosts, addresses[1]), (*hosts[::-1], addresses[0])):
        wait_until(partial(near.reads_from, address), 15, "a pod reads from the other machine's")
        assert near.reads_from(f"{far.machine.address}:8080")
        assert " mtu 1472 " in near.bash("podman exec web ip link show eth0")
        assert near.ready() == "agent is ready\n"
        assert near.machine.run("ip", "-br", "-4", "address", "show", "type", "bridge").stdout.split()[0] == "cni0"


@pytest.mark.row("C36")
def test_an_address_on_two_bridges_is_named_and_one_of_them_works(hosts: tuple[PodmanHost, PodmanHost]) -> None:
    office, cellar = hosts
    office.machine.join()
    cellar.machine.join(*FLAGS, "--bridge=")
    office.use("flannel")
    cellar.use("flannel")
    office.web()
    there = cellar.web()
    reason = "two bridges have an address for pods"
    wait_until(lambda: reason in office.ready(), 30, "the agent names the second bridge", office.ready)
    assert "want --bridge=cni0, or --bridge= if another program makes it" in office.ready()
    assert office.machine.interrupt() == 0
    refused = office.machine.testbed("join", *FLAGS, check=False)
    assert refused.returncode == 3
    assert reason in refused.stderr
    office.bash("ip link delete docker0")
    office.machine.join(*FLAGS, "--bridge=cni0")
    wait_until(partial(office.reads_from, there), 15, "its pods reach the other's")
    assert office.ready() == "agent is ready\n"


@pytest.mark.row("C36")
def test_join_refuses_a_bridge_of_plugins_that_were_first_before_any_change(
    hosts: tuple[PodmanHost, PodmanHost],
) -> None:
    office, _ = hosts
    office.machine.join(*FLAGS, "--bridge=")
    office.use("bridge")
    office.web()
    office.machine.interrupt()
    looks = ("ip -o -4 address", "ip route", "nft --stateless list ruleset")
    before = [office.machine.run(*words.split()).stdout for words in looks]
    refused = office.machine.testbed("join", *FLAGS, check=False)
    assert refused.returncode == 3
    assert "error: --bridge: two bridges have an address for pods" in refused.stderr
    assert "(got cni0 with 10.0." in refused.stderr
    assert [office.machine.run(*words.split()).stdout for words in looks] == before


def test_the_page_shows_the_actual_output(hosts: tuple[PodmanHost, PodmanHost]) -> None:
    office, cellar = hosts
    join, copy, written, here, there = blocks(ROOT / "docs" / "cni.md")
    previous = "FLANNEL_NETWORK=10.0.0.0/16\\nFLANNEL_SUBNET=10.0.46.1/24\\n"
    office.machine.run("sh", "-c", f"mkdir /run/flannel && printf '{previous}' > /run/flannel/subnet.env")
    (typed,) = commands_of(join)
    for host in hosts:
        host.machine.start(typed.command.removeprefix("sudo "), "Ctrl-C stops the agent")
    assert missing(typed.shown, office.machine.said) == []
    assert cellar.bash(commands_of(copy)[0].command) == ""
    said = office.bash(by_hand())
    assert missing(commands_of(written)[1].shown, said) == [], said
    for block, host in ((here, office), (there, cellar)):
        for typed in commands_of(block):
            said = host.bash(typed.command)
            assert missing(typed.shown, said) == [], said
