"""Labs whose pods' networks CNI plugins make: Debian's, and some that fail on purpose."""

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.documents import ROOT
from tests.e2e.lab import Lab

pytestmark = pytest.mark.slow
DEBIANS = Path("/usr/lib/cni")
IPAM = {"type": "host-local", "ranges": [[{"subnet": "{subnet}"}]], "routes": [{"dst": "0.0.0.0/0"}]}
BRIDGE = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "mtu": "{mtu}", "ipam": IPAM}
BY_CAPABILITY = {**BRIDGE, "capabilities": {"ipRanges": True}, "ipam": {**IPAM, "ranges": []}}
PTP = {"type": "ptp", "mtu": "{mtu}", "ipam": IPAM}
SHIPPED = json.loads((ROOT / "docs" / "lab.conflist").read_text())["plugins"]
TUNING = {"type": "tuning", "sysctl": {"net.core.somaxconn": "511"}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
PODS = {"a": "node1", "b": "node2", "c": "node1"}
PROGRAM = "#!/bin/sh\n{}\nexec /usr/lib/cni/bridge\n"
GOOD = PROGRAM.format("")
AT_ADD = '[ "$CNI_COMMAND" = ADD ] && {{ {} ; }}'
NOTHING_DONE = """echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.0.46.9/24"}]}'; exit"""
FAILURES = {
    'echo \'{"code": 107, "msg": "no room", "details": "the pool is used up"}\'; exit 1': (
        "CNI ADD trial: code 107: no room; the pool is used up"
    ),
    "echo hello; exit 0": "CNI ADD trial: exit code 0, but its answer is not JSON (got hello)",
    "echo oh dear >&2; exit 3": "CNI ADD trial: exit code 3, and no CNI error (oh dear)",
    "sleep 1000": "CNI ADD trial: did not end within 1 s, and was killed",
    NOTHING_DONE: "CNI ADD: the plugins report success, but the pod has no eth0",
    "/usr/lib/cni/bridge > /dev/null; exit 4": "CNI ADD trial: exit code 4, and no CNI error (it printed nothing)",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory that a lab sees, unlike those below /tmp."""
    if not (DEBIANS / "bridge").exists():
        pytest.skip("no CNI plugins (scripts/install --tests installs them)")
    with tempfile.TemporaryDirectory(prefix="cni-", dir="/opt") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def documents(place: Path, *plugins: dict[str, Any], version: str = "1.0.0", **cni: object) -> list[dict[str, Any]]:
    """Write the conflist; return a lab with it and three pods, of which one has a host port."""
    file = place / "overlay.conflist"
    file.write_text(json.dumps({"cniVersion": version, "name": "overlay", "plugins": plugins}))
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": name, "image": "echo", "ports": ports(name)}]},
        }
        for name, node in PODS.items()
    ]
    spec = {"conflist": str(file), "plugins": [str(place), str(DEBIANS)], **cni}
    return [{"nodes": {"node1": {}, "node2": {}}, "cni": spec}, *pods]


def ports(name: str) -> list[dict[str, int]]:
    return [{"containerPort": 8080, **({"hostPort": 8088} if name == "b" else {})}]


def write(program: Path, text: str) -> None:
    """Replace a plugin, as an editor does."""
    draft = program.with_name(".draft")
    draft.write_text(text)
    draft.chmod(0o755)
    draft.rename(program)


def left(lab: LabHandle, node: str) -> dict[str, list[str]]:
    """Return what plugins have on a node: links, names of namespaces, addresses, cached results."""
    looks = {
        "links": "ip -o link show type veth | cut -d: -f2 | cut -d@ -f1",
        "namespaces": "ls /run/netns",
        "addresses": "ls /var/lib/cni/networks/overlay | grep '^10'",
        "results": "ls /var/lib/cni/results",
        "rules": "iptables-save -t nat | grep -e dport",
        "programs": "pgrep -x sleep",
    }
    found = {what: lab.exec(node, "sh", "-c", look).stdout.split() for what, look in looks.items()}
    found["links"] = [name for name in found["links"] if name != f"{node}-eth0"]
    return found


def calls(lab: LabHandle, pod: str) -> list[str]:
    """Return the plugins' calls as COMMAND PLUGIN."""
    return [line.partition(":")[0] for line in lab.describe("pods", pod)["CNI calls"]]


@pytest.mark.row("C39")
@pytest.mark.parametrize(
    "plugins",
    [(BRIDGE,), (BY_CAPABILITY,), (PTP,), (BRIDGE, TUNING, PORTMAP), SHIPPED],
    ids=["bridge", "capability", "ptp", "chain", "the page's"],
)
def test_pods_of_plugins_reach_each_other(place: Path, new_lab: NewLab, plugins: tuple[dict[str, Any], ...]) -> None:
    with new_lab(documents(place, *plugins)) as lab:
        assert [ping for ping in lab.ping_all() if ping.received != ping.sent] == []
        assert lab.check().problems == {}
        trace = lab.trace("a", "b")
        assert trace.answered, trace
        hops = Lab(lab.name).json("trace", "a", "b", "--svg", str(place / "way.svg"))["hops"]
        picture = (place / "way.svg").read_text()
        assert re.findall(r'data-step="(\d+)"', picture) == [str(hop["number"]) for hop in hops]
        assert "does not exist" not in picture
        names = [plugin["type"] for plugin in plugins]
        assert [name for name in calls(lab, "a") if name.startswith("ADD")] == [f"ADD {name}" for name in names]
        added = [one for one in lab.events() if one["object"] == "pod/a" and one["message"].startswith("ADD")]
        assert [one["message"].partition(":")[0] for one in added] == [f"ADD {name}" for name in names]
        assert all('"name": "overlay"' in one["message"] and "; answer {" in one["message"] for one in added)
        assert " mtu 1472 " in lab.exec("a", "ip", "link", "show", "eth0").stdout
        if TUNING in plugins:
            assert lab.exec("a", "cat", "/proc/sys/net/core/somaxconn").stdout == "511\n"
        if PORTMAP in plugins:
            url = f"http://{lab.nodes['node2'].address}:8088/hostname"
            assert lab.exec("node1", "curl", "-sm2", url).stdout.strip() == "b"
            assert left(lab, "node2")["rules"]
        for name in PODS:
            lab.delete(f"pod/{name}", grace_s=0.0)
        for node in ("node1", "node2"):
            assert {what: found for what, found in left(lab, node).items() if found} == {}
    assert not Path("/var/lib/cni/results").exists()


@pytest.mark.row("C39")
def test_services_policies_and_faults_work_on_plugins(place: Path, new_lab: NewLab) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "b"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "c"}}, "policyTypes": ["Ingress"]},
    }
    with new_lab([*documents(place, BRIDGE), service]) as lab:
        assert lab.curl("a", "http://web/hostname").body.strip() == "b"
        assert lab.ping("a", "c").received
        lab.apply([policy])
        lab.wait_until(lambda: not lab.ping("a", "c").received, 30, "the policy keeps a out, on one bridge")
        assert not lab.ping("b", "c").received
        assert lab.ping("c", "b").received
        lab.delete("networkpolicy/closed")
        lab.wait_until(lambda: lab.ping("a", "c").received, 30, "and lets it in again")
        with lab.fault("link down node2 s1"):
            assert not lab.ping("a", "b").received
        lab.wait_until(lambda: lab.ping("a", "b").received, 30, "the cable is back")


@pytest.mark.row("C40")
def test_a_plugin_that_fails_is_named_leaves_nothing_and_works_after_an_edit(place: Path, no_lab: Lab) -> None:
    program, file = place / "trial", place / "cluster.yaml"
    write(program, GOOD)
    file.write_text(yaml.safe_dump_all(documents(place, {**BRIDGE, "type": "trial"}, timeoutSeconds=1)))
    assert no_lab.up(str(file)).code == 0
    lab = no_lab.handle
    before = {what: len(found) for what, found in left(lab, "node2").items()}
    for what, reason in FAILURES.items():
        write(program, PROGRAM.format(AT_ADD.format(what)))
        answer = no_lab.testbed("restart", "pod", "b")
        assert (answer.code, answer.err.strip()) == (1, f"error: pod b: {reason}")
        assert lab.describe("pods", "b")["Why not ready"] == reason
        none = left(lab, "node2")
        assert {name: found for name, found in none.items() if found} == {}, what
        write(program, GOOD)
        started = time.monotonic()
        assert no_lab.testbed("restart", "pod", "b").code == 0
        assert time.monotonic() - started < 2
        assert lab.ping("a", "b").received
        assert {name: len(found) for name, found in left(lab, "node2").items()} == before


@pytest.mark.row("C40")
def test_up_waits_for_plugins_that_ask_for_another_try_and_ends_with_their_reason(place: Path, no_lab: Lab) -> None:
    reason = "CNI ADD trial: code 11: later"
    write(place / "trial", PROGRAM.format(AT_ADD.format("""echo '{"code": 11, "msg": "later"}'; exit 1""")))
    file = place / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(documents(place, {**BRIDGE, "type": "trial"})))
    answer = no_lab.up(str(file), "--timeout", "3")
    assert answer.code == 1
    said = answer.err.splitlines()[0]
    assert said.startswith("error: up: pods: not ready after 3 s: ")
    assert said.endswith(f": {reason}"), said
    assert said.count(reason) == 1
    write(place / "trial", GOOD)
    no_lab.handle.wait_until(lambda: no_lab.json("status")["pods"][0]["ready"], 15, "the next try succeeds")


STRICT = """#!/bin/sh
# Speaks 1.1.0 through Debian's bridge, which does not; keeps what it was asked.
echo "$CNI_COMMAND" >> /run/asked
case $CNI_COMMAND in
  VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.1.0"]}';;
  STATUS) cat > /run/status; [ ! -e /run/unavailable ] || { echo '{"code": 50, "msg": "not now"}'; exit 1; };;
  GC) cat > /run/valid;;
  *) [ ! $CNI_COMMAND = DEL ] || ! rm /run/stuck || { echo '{"code": 11, "msg": "later"}'; exit 1; }
     said=$(sed 's/1\\.1\\.0/1.0.0/' | /usr/lib/cni/bridge); code=$?
     echo "$said" | sed 's/1\\.0\\.0/1.1.0/'; exit $code;;
esac
"""


@pytest.mark.row("C41")
def test_status_check_and_gc_are_called_as_the_specification_says(place: Path, no_lab: Lab) -> None:
    write(place / "strict", STRICT)
    file = place / "cluster.yaml"
    file.write_text(yaml.safe_dump_all(documents(place, {**BRIDGE, "type": "strict"}, version="1.1.0")))
    assert no_lab.up(str(file)).code == 0
    lab = no_lab.handle

    def asked() -> list[str]:
        """Return the commands since the last time."""
        return lab.exec("node2", "sh", "-c", "cat /run/asked; rm -f /run/asked").stdout.split()

    assert asked() == ["VERSION", "STATUS", "ADD"]
    assert no_lab.testbed("restart", "pod", "b").code == 0
    assert asked() == ["DEL", "ADD"]
    lab.exec("node2", "touch", "/run/stuck")
    assert no_lab.testbed("restart", "pod", "b").code == 0
    assert asked() == ["DEL", "GC", "ADD"]
    assert json.loads(lab.exec("node2", "cat", "/run/valid").stdout)["cni.dev/valid-attachments"] == []
    lab.exec("node2", "touch", "/run/unavailable")
    write(place / "strict", STRICT.replace("  *) [", "  ADD) echo no; exit 1;;\n  *) ["))
    assert no_lab.testbed("restart", "pod", "b").code == 1
    answer = no_lab.testbed("restart", "pod", "b")
    assert (answer.code, answer.err.strip()) == (1, "error: pod b: CNI STATUS strict: code 50: not now")
    write(place / "strict", STRICT)
    lab.exec("node2", "rm", "/run/unavailable")
    assert no_lab.testbed("restart", "pod", "b").code == 0
    asked()
    link = no_lab.json("get", "pods", "b")["testbed"]["link"]
    lab.exec("node2", "ip", "link", "del", link)
    lab.wait_until(lambda: "CHECK strict" in calls(lab, "b"), 5, "a broken link is checked")
    lab.wait_until(lambda: lab.ping("a", "b").received, 15, "and the pod is built again")
    assert asked()[:3] == ["CHECK", "DEL", "ADD"]


def test_files_that_a_lab_cannot_use_are_named_before_up(place: Path, no_lab: Lab, tmp_path: Path) -> None:
    file = place / "cluster.yaml"
    wanted = documents(place, {"type": "bridge"}, {"type": "nosuch"})
    wanted[0]["nodes"]["node2"] = {"cni": {"conflist": str(tmp_path / "x.conflist"), "plugins": "/var/lib/cni/bin"}}
    file.write_text(yaml.safe_dump_all(wanted))
    answer = no_lab.up(str(file))
    assert answer.code == 3
    said = answer.err.splitlines()
    assert said[0] == f"error: cni.plugins: no such plugin (got nosuch; want a program in {place}, {DEBIANS})"
    assert "nodes.node2.cni.conflist: the lab has a /tmp of its own, without this file" in said[1]
    assert "nodes.node2.cni.plugins: the lab has a /var/lib of its own, without this file" in said[2]


@pytest.mark.row("C40")
def test_up_does_not_wait_for_plugins_that_refuse_every_pod_of_a_node(place: Path, no_lab: Lab) -> None:
    program, file = place / "trial", place / "cluster.yaml"
    what, reason = next(iter(FAILURES.items()))
    write(program, PROGRAM.format(AT_ADD.format(what)))
    file.write_text(yaml.safe_dump_all(documents(place, {**BRIDGE, "type": "trial"})))
    answer = no_lab.up(str(file))
    assert answer.code == 1
    assert re.search(rf"up: pods: node[12]: every pod: {re.escape(reason)} \(3 times\)\n", answer.err), answer
    # The lab is kept, and goes on trying.
    write(program, GOOD)
    no_lab.handle.wait_until(lambda: no_lab.json("status")["state"] == "ready", 30, "the repaired plugin is called")


@pytest.mark.row("C39")
def test_trace_names_the_plugins_bridge(place: Path, new_lab: NewLab) -> None:
    with new_lab(documents(place, BRIDGE)) as lab:
        lab.exec("node2", "ip", "link", "set", "cni0", "down")
        answer = lab.trace("a", "b").answer
        assert answer["lost_at"] is not None
        assert answer["lost_at"]["reason"] == "cni0 of node2 is down", answer["reasons"]
