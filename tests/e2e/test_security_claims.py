"""What docs/security.md says beside what pods cannot forge: loopback, routers, NAT, files, sockets, other labs."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.hostile import FORGED, FORGER, PERIOD_S, Hostile
from tests.e2e.lab import Lab

pytestmark = pytest.mark.slow

NODE_PORT, TRIES = 30080, 20
EAR = (
    "table ip {table} {{ counter heard {{ }}; "
    "chain c {{ type filter hook {hook} priority -310; {match} counter name heard; }}; }}"
)
FORWARDED_MARK = "udp dport 40001"


@pytest.fixture
def lab(two_nodes_handle: LabHandle) -> Iterator[LabHandle]:
    """Yield the shared lab, in which packets flow before and after."""
    two_nodes_handle.wait_ready()
    assert two_nodes_handle.ping("shell1", "shell2").lost == 0
    yield two_nodes_handle
    assert two_nodes_handle.ping("shell1", "shell2").lost == 0


class Ear:
    """Counts packets at one hook of a machine, with a table of its own."""

    def __init__(self, lab: LabHandle, place: str, hook: str, match: str, table: str = "ear") -> None:
        self._lab, self._place, self._table = lab, place, table
        lab.exec(place, "nft", EAR.format(table=table, hook=hook, match=match)).check()

    def count(self) -> int:
        """Return the count since it was made."""
        words = ("nft", "-j", "list", "counter", "ip", self._table, "heard")
        listed = json.loads(self._lab.exec(self._place, *words).check())
        count: int = listed["nftables"][-1]["counter"]["packets"]
        return count

    def remove(self) -> None:
        """Remove it without a trace."""
        self._lab.exec(self._place, "nft", "delete", "table", "ip", self._table).check()


def settings(lab: LabHandle, place: str, pattern: str) -> dict[str, str]:
    """Return kernel settings by name."""
    said = lab.exec(place, "sh", "-c", f"grep -H . {pattern}").check()
    return dict(line.split(":", 1) for line in said.splitlines())


@pytest.mark.parametrize("place", ["node1", "shell1"])
def test_no_interface_takes_loopback_addresses_from_outside_or_believes_a_router(lab: LabHandle, place: str) -> None:
    local = settings(lab, place, "/proc/sys/net/ipv4/conf/*/route_localnet")
    assert len(local) >= 4
    assert set(local.values()) == {"0"}, local
    ipv6 = "/proc/sys/net/ipv6/conf/*/{}"
    believes = settings(lab, place, ipv6.format("accept_ra"))
    off = settings(lab, place, ipv6.format("disable_ipv6"))
    # `all` and `default` are no interfaces: nothing is received there.
    believing = {
        name
        for path, value in believes.items()
        if (name := path.split("/")[-2]) not in ("all", "default")
        and value != "0"
        and off[path.replace("accept_ra", "disable_ipv6")] == "0"
    }
    assert believing <= {"lo"}


def test_a_neighbour_cannot_speak_to_what_listens_on_a_nodes_loopback(lab: LabHandle) -> None:
    """CVE-2020-8558: a packet for 127.0.0.1 that comes over a wire."""
    arrives = Ear(lab, "node1", "prerouting", "ip daddr 127.0.0.1 udp dport 40001 iifname node1-eth0")
    taken = Ear(lab, "node1", "input", "ip daddr 127.0.0.1 udp dport 40001 iifname node1-eth0", "taken")
    try:
        interface, gateway = "node2-eth0", Hostile(lab).mac_of("node1", "node1-eth0")
        program = FORGER.replace('"eth0"', f'"{interface}"')
        words = ("ip", Hostile(lab).nodes["node2"], "127.0.0.1", gateway, str(FORGED), str(PERIOD_S))
        lab.exec("node2", "python3", "-c", program, *words).check()
        assert arrives.count() == FORGED
        assert taken.count() == 0
    finally:
        arrives.remove()
        taken.remove()


def test_a_pod_that_advertises_itself_as_a_router_is_ignored(lab: LabHandle) -> None:
    """CVE-2020-10749: router advertisements from a pod."""
    advertised = "2001:db8:"
    # The tool works: a machine that listens to routers takes the address and the route.
    lab.script(
        "ip netns add believer; ip netns add liar; ip -n liar link add eth0 type veth peer name eth0 netns believer;"
        "ip netns exec believer sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 "
        "net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.eth0.accept_dad=0;"
        "ip -n liar link set eth0 up; ip -n believer link set eth0 up"
    ).check()
    try:
        lie = f"ip netns exec liar python3 -c {shlex.quote(FORGER)} router - - - 1 0"
        look = f"{lie}; ip -n believer -6 route; ip -n believer -6 address"
        lab.wait_until(lambda: advertised in lab.script(look).stdout, 10, "a believer believes")
    finally:
        lab.script("ip netns delete believer; ip netns delete liar").check()
    before = ipv6_of(lab)
    Hostile(lab).forge("router", "-", "-")
    assert ipv6_of(lab) == before
    assert advertised not in str(before)


def ipv6_of(lab: LabHandle) -> dict[str, str]:
    """Return addresses and routes of every machine that could have heard."""
    return {place: lab.exec(place, "sh", "-c", "ip -6 address; ip -6 route").check() for place in ("node1", "echo1")}


def test_a_node_port_is_the_nodes_alone(lab: LabHandle) -> None:
    """CVE-2019-9946: a pod's own port of the same number stays the pod's."""
    handle = Lab(lab.name)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "claims"},
        "spec": {
            "type": "NodePort",
            "selector": {"app": "echo"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}],
        },
    }
    serve = f"mkdir -p /tmp/own; cd /tmp/own; echo mine > hostname; timeout 60 python3 -m http.server {NODE_PORT}"
    lab.exec("shell2", "sh", "-c", f"({serve}) >/dev/null 2>&1 & echo").check()
    handle.must("apply", "-f", "-", "--wait", stdin=json.dumps(service))
    try:
        pod, node = Hostile(lab).pods["shell2"], Hostile(lab).nodes["node1"]
        lab.wait_until(lambda: answer(lab, node) in ("echo1", "echo2"), 30, "the node port answers")
        lab.wait_until(lambda: answer(lab, pod) == "mine", 10, "the pod answers")
        assert {answer(lab, pod) for _ in range(TRIES)} == {"mine"}
        assert {answer(lab, node) for _ in range(TRIES)} <= {"echo1", "echo2"}
    finally:
        handle.must("delete", "service", "claims")


def answer(lab: LabHandle, host: str) -> str:
    return lab.curl("shell1", f"http://{host}:{NODE_PORT}/hostname", timeout_s=2).body.strip()


def test_files_of_a_lab_are_private(lab: LabHandle) -> None:
    rundir = lab.record.rundir
    Lab(lab.name).must("kubeconfig")
    on_host = [path for path in rundir.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert {str(path.relative_to(rundir)) for path in on_host} == {"lab.json", "hosts", "api"}
    assert rundir.stat().st_mode & 0o7777 == 0o711
    assert (rundir / "api").stat().st_mode & 0o7777 == 0o711
    assert (rundir / "api" / "kubeconfig").stat().st_mode & 0o777 == 0o600
    control = rundir / "control.sock"
    assert control.is_socket()
    assert control.stat().st_mode & 0o777 == 0o600


def test_files_of_machines_and_pods_are_on_no_file_system_of_the_host(lab: LabHandle) -> None:
    files = lab.record.rundir / "nodes"
    assert list(files.iterdir()) == []
    assert files.stat().st_mode & 0o077 == 0
    listed = lab.script(f"find {files} -mindepth 1 -printf '%m %P\\n'").check().splitlines()
    modes = {name: int(mode, 8) for mode, name in (line.split() for line in listed)}
    assert {"etcd1/run/etcd/member/snap/db", "node1/run/tls/agent-node1.key", "node1/pods/shell1/shm"} <= set(modes)
    # Shared memory and emptyDir belong to containers, whatever their user; /run of a machine is its own, and what
    # flannel writes there is for other programs.
    theirs = r"\w+/run(/flannel(/subnet\.env)?|/docker_opts\.env)?|\w+/pods/[^/]+/(shm|volumes)(/.*)?"
    assert [name for name, mode in modes.items() if mode & 0o077 and not re.fullmatch(theirs, name)] == []


def test_no_machine_holds_files_of_the_lab_or_of_pods(lab: LabHandle) -> None:
    for node in ("node1", "node2"):
        mounts = lab.exec(node, "cat", "/proc/self/mountinfo").check()
        assert "/pods/" not in mounts
        assert "net:[" not in mounts, "names of network namespaces"


def test_a_pod_sees_no_socket_and_no_file_of_the_lab(lab: LabHandle) -> None:
    assert lab.exec("shell1", "find", "/", "-xdev", "-name", "*.sock").check() == ""
    assert "@" not in lab.exec("shell1", "ss", "-xlH").check(), "an abstract socket would be one that no file guards"
    assert lab.exec("shell1", "ls", "/run/testbed").exit_code != 0
    assert lab.exec("shell1", "ls", "/run/tls").exit_code != 0
    seen = lab.exec("shell1", "sh", "-c", "cat /proc/[0-9]*/cmdline").check()
    assert "etcd" not in seen
    assert "agent" not in seen


def test_a_pod_does_not_reach_another_lab(lab: LabHandle, new_lab: NewLab) -> None:
    hostile = Hostile(lab)
    text = (Path(__file__).parents[2] / "topologies" / "two_nodes.yaml").read_text()
    with new_lab(text.replace("192.168.8.0/24", "192.168.77.0/24")) as other:
        theirs = Hostile(other)
        heard = {node: Ear(other, node, "prerouting", FORWARDED_MARK) for node in theirs.nodes}
        sent = Ear(lab, "node1", "prerouting", FORWARDED_MARK)
        try:
            assert other.ping("shell1", "node2").lost == 0
            hostile.forge("plain", hostile.pods["shell1"], theirs.nodes["node2"])
            assert sent.count() == FORGED
            assert [ear.count() for ear in heard.values()] == [0, 0]
            theirs.forge("plain", theirs.pods["shell1"], theirs.nodes["node2"])
            assert heard["node2"].count() == FORGED, "from a pod of that lab they arrive"
        finally:
            sent.remove()
