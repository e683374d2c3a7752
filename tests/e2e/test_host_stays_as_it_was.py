"""The host before, beside and after a lab whose pods and users have every right, and try to change the machine."""

import os
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.host.bridge_netfilter import SETTINGS
from testbed.places import TOPOLOGIES
from tests.e2e import host
from tests.e2e.lab import Lab, fresh_name
from tests.waiting import wait_until

PODS = textwrap.dedent("""\
    apiVersion: v1
    kind: Pod
    metadata: {name: ordinary}
    spec:
      nodeName: node1
      containers: [{name: main, image: shell, volumeMounts: [{name: all, mountPath: /host}]}]
      volumes: [{name: all, hostPath: {path: /}}]
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: mighty}
    spec:
      nodeName: node1
      shareProcessNamespace: true
      containers:
      - {name: main, image: shell, securityContext: {privileged: true}, volumeMounts: [{name: all, mountPath: /host}]}
      volumes: [{name: all, hostPath: {path: /}}]
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: mightier}
    spec:
      nodeName: node2
      hostNetwork: true
      containers: [{name: main, image: shell, securityContext: {privileged: true}}]
    """)
SERVICE = textwrap.dedent("""\
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}
    """)
"""For which the kernel filters on bridges: where that is a module, `up` loads it."""
SYSCTLS = {"vm.swappiness": "61", "kernel.core_pattern": "core.changed", "fs.lease-break-time": "44"}
TRIES = "; ".join(
    [
        *(f"sysctl -w {name}={value}" for name, value in SYSCTLS.items()),
        *(f"echo {value} > /host/proc/sys/{name.replace('.', '/')}" for name, value in SYSCTLS.items()),
        *(f"echo 7 > {root}{path}" for path in host.SETTINGS_IN_SYS for root in ("", "/host")),
        "echo 1 > /proc/sys/net/netfilter/nf_hooks_lwtunnel",
        'date -s "$(date)" && echo sets the clock',
        "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk && echo read a disk",
        "test -e /dev/vda && echo sees a disk; head -c1 /host/dev/zero | grep -q . && echo a device of a volume works",
        # What belongs to the namespace works, so that the others did not fail for want of rights.
        "sysctl -w net.ipv4.conf.lo.forwarding=0",
        "true",
    ]
)


@pytest.fixture
def other_namespace() -> Iterator[str]:
    """Yield a network namespace of the host's that is no lab's."""
    name = fresh_name("beside")
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def _as_it_was() -> Iterator[None]:
    """Put back what a lab that fails the test has changed."""
    paths = [*(f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS), *host.SETTINGS_IN_SYS]
    values = {path: Path(path).read_text() for path in paths if os.path.exists(path)}
    yield
    for path, value in values.items():
        Path(path).write_text(value)


def state(lab: Lab, namespace: str) -> dict[str, object]:
    """Return the host, and the settings of another namespace on it."""
    settings = ["ip", "netns", "exec", namespace, "sysctl", "-ae", "--pattern", "^net"]
    text = subprocess.run(settings, capture_output=True, text=True, check=True).stdout
    values = dict(line.partition(" = ")[::2] for line in text.splitlines())
    return host.everything(lab.name) | {f"sysctl {namespace} {name}": value for name, value in values.items()}


def filtering_in(namespace: str) -> set[str]:
    """Return what the kernel's filter on bridges is set to in that namespace; nothing where the kernel has none now."""
    read = ["ip", "netns", "exec", namespace, "sh", "-c", f"cat {SETTINGS}/bridge-nf-call-* 2>/dev/null || true"]
    return set(subprocess.run(read, capture_output=True, text=True, check=True).stdout.split())


def try_everything(lab: Lab) -> None:
    """Try it from each place where a user's program runs."""
    lab.must("apply", "-f", "-", "--wait", stdin=PODS)
    said = {
        place: lab.exec(place, "sh", "-c", TRIES) for place in ("shell1", "ordinary", "mighty", "mightier", "node1")
    }
    said["shell"] = lab.testbed("shell", stdin=TRIES)
    said["shell in a namespace"] = lab.testbed(
        "shell", stdin=f"ip netns exec node1 sh -c '{TRIES.split('; echo 7')[0]}'"
    )
    said["cli"] = lab.testbed("cli", stdin=f"node2 {TRIES.split('; echo 7')[0]}\n")
    allowed = {place for place, answer in said.items() if "net.ipv4.conf.lo.forwarding = 0" in answer.out}
    assert allowed >= {"mighty", "mightier", "node1", "shell"}
    for place, answer in said.items():
        assert "disk" not in answer.out, (place, answer)
        assert "device of a volume" not in answer.out, (place, answer)
        assert "vm.swappiness = " not in answer.out, (place, answer)
        assert "sets the clock" not in answer.out, (place, answer)


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    """Return two nodes and a Service."""
    file = tmp_path / "two_nodes_and_a_service.yaml"
    file.write_text((TOPOLOGIES / "two_nodes.yaml").read_text() + SERVICE)
    return str(file)


def beside(lab: Lab, before: dict[str, object], now: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what a running lab has changed beside its own directory and the module that it needs, which
    must be idle.
    """
    found = host.difference(before, now)
    own = (f"file /run/testbed/{lab.name}", "file /run/testbed/.br_netfilter")
    idle = {key: (None, b"0\n") for key in host.OF_BRIDGE_FILTERING} | {"module br_netfilter": (None, True)}
    return {key: pair for key, pair in found.items() if not key.startswith(own) and idle.get(key) != pair}


@pytest.mark.usefixtures("_as_it_was")
def test_the_host_is_the_same_whatever_is_tried_in_a_lab(no_lab: Lab, other_namespace: str, cluster: str) -> None:
    before, filtered = state(no_lab, other_namespace), filtering_in(other_namespace)
    assert no_lab.up(cluster).code == 0
    try_everything(no_lab)
    assert ", 0 lost" in no_lab.must("ping")
    assert filtering_in(other_namespace) == (filtered or {"0"})
    assert beside(no_lab, before, state(no_lab, other_namespace)) == {}
    assert no_lab.down().code == 0
    assert host.difference(before, state(no_lab, other_namespace)) == {}


@pytest.mark.parametrize("next_verb", ["up", "down"])
def test_the_host_is_as_it_was_after_the_next_verb_when_a_lab_was_killed(
    no_lab: Lab, other_namespace: str, cluster: str, next_verb: str
) -> None:
    before = state(no_lab, other_namespace)
    assert no_lab.up(cluster).code == 0
    first = no_lab.json("status")["pid"]
    seen = host.footprint(first)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not seen.remains(), timeout_s=60, what="the kernel has taken the killed lab away")
    other = Lab(fresh_name("next"))
    try:
        if next_verb == "up":
            # It needs no filter on bridges, and has nothing of it.
            assert other.up("two_nodes").code == 0
            assert host.OF_BRIDGE_FILTERING & (state(other, other_namespace).keys() - before.keys()) == set()
        assert other.down().code == 0
        assert not Path("/run/testbed", no_lab.name).exists()
    finally:
        other.down()
    assert host.difference(before, state(no_lab, other_namespace)) == {}
