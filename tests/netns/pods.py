"""A node for pods, without Mininet and without an agent: namespaces, a bridge and a mount tree like those of a lab."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from testbed.cgroups.groups import Groups
from testbed.cluster.image_names import ImageRule
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import key_of
from testbed.host.named_programs import OURS
from testbed.lab.pod_guard import PodGuard
from testbed.places import PAUSE
from testbed.pods.ipam import Ipam
from testbed.pods.pod import Pod
from testbed.pods.pod_config import Lookup, no_configs
from testbed.pods.pod_network import BridgeNetwork
from testbed.processes import namespaces as ns
from testbed.processes import supervise
from testbed.processes.process_ends import ProcessEnds
from testbed.supervisor.lab_init import make_mounts_private
from tests.netns.wishes import bridge

T = TypeVar("T")
BRIDGE_MAC = "02:42:0a:00:2e:01"
DEFAULT_CAPABILITIES = 0x00000000A80425FB
"""The bits of Docker's and containerd's default set, as /proc/PID/status shows them."""


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for a condition; fails the test with `what` when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    late = False
    while not condition():
        if late:
            pytest.fail(f"not within {timeout_s:g} s: {what}")
        late = time.monotonic() > deadline
        time.sleep(0.01)


class OwnMounts:
    """A mount namespace of this program's own, as a lab's supervisor has one; the same for all tests.

    Containers are started again from the thread that has seen them end, so that thread must be in there too.
    """

    _namespace: int | None = None
    _process_ends = ProcessEnds()

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()

    def outside(self, work: Callable[[], T]) -> T:
        """Do something in the host's mount namespace."""

        def visit() -> T:
            self._move(self._home)
            return work()

        return ns.in_new_thread(visit)

    def __enter__(self) -> Self:
        self._home, self._directory = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), os.getcwd()
        if OwnMounts._namespace is None:
            ns.unshare(ns.CLONE_NEWNS)
            ns.make_mounts_private()
            OwnMounts._namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._move(OwnMounts._namespace)
        self._patch.setattr(supervise, "PROCESS_ENDS", OwnMounts._process_ends)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patch.undo()
        self._move(self._home)
        os.close(self._home)

    def _move(self, namespace: int) -> None:
        ns.unshare(ns.CLONE_FS)
        ns.setns(namespace, ns.CLONE_NEWNS)
        os.chdir(self._directory)


class PodNode:
    """A testbed.pods.pod.PodHost: a sleeping process that holds network and mount namespaces, and docker0 in them."""

    name = "node1"
    address = IPv4Address("127.0.0.1")
    bridge = "docker0"
    subnet = IPv4Network("10.0.46.0/24")
    gateway = IPv4Address("10.0.46.1")
    ipv6_address = None
    ipv6_subnet = None
    overlay_mtu = 1472

    def __init__(self, rundir: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root: makes namespaces")
        if not PAUSE.exists():
            pytest.skip(f"{PAUSE} is not built (scripts/install builds it)")
        self.rundir = rundir
        self.logs = rundir / "logs"
        self.ipam = Ipam(rundir / "addresses")
        self.events: list[tuple[str, str]] = []
        """Object and reason of each."""
        self.messages: list[tuple[str, str, str]] = []
        """The same with the message."""
        self.lookup: Lookup = no_configs
        """Finds ConfigMaps and Secrets."""
        self.images: tuple[ImageRule, ...] = ()
        """As of `--images`."""
        self.groups: Groups | None = None
        """Keep containers to their limits."""
        self.made: list[Pod] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.mounts = undo.enter_context(OwnMounts())
            holder = ns.in_new_thread(self._hold)
            undo.callback(holder.wait)
            undo.callback(holder.kill)
            self.pid = holder.pid
            self.kernel = undo.enter_context(Kernel(SilentJournal(), holder.pid))
            self.kernel.set_up("lo", "test")
            self.kernel.converge(bridge(self.bridge, mtu=self.overlay_mtu, mac=BRIDGE_MAC))
            self.kernel.ensure_addresses(self.bridge, [IPv4Interface("10.0.46.1/24")], "test")
            self.kernel.set_up(self.bridge, "test")
            self.guard = PodGuard(holder.pid, SilentJournal(), self.bridge, [], dns=False)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _hold(self) -> "subprocess.Popen[bytes]":
        ns.unshare(ns.CLONE_NEWNS | ns.CLONE_NEWNET)
        make_mounts_private(self.rundir, OURS)
        return subprocess.Popen(["sleep", "infinity"], cwd="/")

    def _note(self, _kind: str, thing: str, reason: str, message: str) -> None:
        self.events.append((thing, reason))
        self.messages.append((thing, reason, message))

    def pod(self, name: str, *containers: Mapping[str, Any], **spec: object) -> Pod:
        """Return a pod of this node, not started; it is deleted when the node goes.

        `shop/web`: in another namespace.
        """
        key = key_of(name)
        manifest = PodManifest.model_validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": key._asdict(), "spec": {"containers": containers, **spec}},
            context=self.images,
        )
        made = Pod(
            manifest,
            self,
            BridgeNetwork(self, self.ipam),
            self._note,
            netns_directory=None,
            lookup=self.lookup,
            groups=self.groups,
            uid_of=lambda key, _: f"uid-of-{key.name}",
        )
        self._undo.callback(made.delete, 0.0)
        self.made.append(made)
        return made


def shell(name: str, script: str, **more: object) -> dict[str, object]:
    """Return a container that runs a shell script."""
    return {"name": name, "image": "shell", "command": ["sh", "-c", script], **more}


SLEEP = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
"""Ends at once on TERM, also as PID 1, where the default action does not count."""


def execute(made: Pod, container: str, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell script in a container as `testbed exec` does."""
    return run(made.exec_argv(container, ["sh", "-c", script]))


def run(argv: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end with its output as text."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


def output(made: Pod, container: str, script: str) -> str:
    """Return what a script prints in a container; fails the test when it fails."""
    result = execute(made, container, script)
    if result.returncode != 0:
        pytest.fail(f"{script}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def started(made: Pod) -> Pod:
    """Return the pod, started and ready."""
    made.start()
    wait_until(lambda: made.status().ready, f"pod ready: {made.status()}")
    return made


def catches_term(pid: int | None) -> bool:
    """Return whether a process has a handler for TERM by now: until then the kernel drops TERM for a PID 1."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def host_mounts() -> list[str]:
    """Return the host's mount table; without the names of network namespaces, which come and go with other programs."""
    lines = Path("/proc/1/mountinfo").read_text().splitlines()
    return [line for line in lines if "/run/netns" not in line]


def ended(pid: int) -> bool:
    """Return whether there is no such process any more, or only its zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
