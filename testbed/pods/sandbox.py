"""A pod's sandbox: a pause process that holds its namespaces, the network in them, and their name for `ip netns`.

The pause process is supervised like every other process. When it dies, the sandbox is built again with the same
address, which stays reserved meanwhile.
"""

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from testbed.cluster.manifest import PodManifest
from testbed.cni.runtime import CniFailed
from testbed.places import PAUSE
from testbed.plain_files import plain
from testbed.pods import pod_network
from testbed.pods.kept_logs import PAUSE_LOG
from testbed.pods.pod_network import PodAddresses, PodHost, PodNetwork
from testbed.processes import namespaces as ns
from testbed.processes.supervise import RestartPolicy, Supervised


class PodSandbox:
    """Of one pod, which excludes calls at the same time; its properties may be read from any thread."""

    def __init__(
        self,
        manifest: PodManifest,
        host: PodHost,
        network: PodNetwork,
        *,
        logs: Path,
        netns_directory: Path | None,
        before_link: Callable[[], None],
        report: Callable[[Literal["Normal", "Warning"], str, str], None],
        on_change: Callable[[], None],
    ) -> None:
        """Create nothing yet. Parameters as those of Pod; `on_change` is called when `failure` may have changed."""
        self.manifest = manifest
        """The pod's current one; only labels and annotations change."""
        self.failure = ""
        """Why the pod has no network; empty if it has one, or none was tried."""
        self.is_refused = False
        """Whether its CNI plugins failed the last time, and by what they say will fail again."""
        self.attempts = 0
        """How often namespaces and network were made, successfully or not."""
        self.pause: Supervised | None = None
        """The current pause process; None before the first start."""
        self._host = host
        self._network = network
        self._logs = logs
        self._netns_directory = netns_directory
        self._before_link = before_link
        self._report = report
        self._on_change = on_change
        self._addresses: PodAddresses | None = None
        self._undo = contextlib.ExitStack()
        """Removes the link and the name."""

    @property
    def pid(self) -> int | None:
        """Return the pause process, in the lab's PID namespace; None if there is none."""
        return self.pause.pid if self.pause is not None else None

    @property
    def address(self) -> str | None:
        """Return the pod's address; None before it has one."""
        return None if self._addresses is None else str(self._addresses.ipv4)

    @property
    def ipv6_address(self) -> str | None:
        """Return its IPv6 address, in addition, on a dual-stack network."""
        return None if self._addresses is None or self._addresses.ipv6 is None else str(self._addresses.ipv6)

    @property
    def host_end(self) -> str | None:
        """Return the name of the node's end of the pod's link; None while it has none, or it is not known."""
        return None if self._of_node else self._network.host_end(self.manifest)

    @property
    def plugin_calls(self) -> list[str]:
        """Return the last calls of CNI plugins for this pod, one line each."""
        return self._network.calls(self.manifest)

    @property
    def hostname(self) -> str:
        """Return the pod's; with the node's network comes the node's name, as in Kubernetes."""
        return self.manifest.spec.hostname or (self._host.name if self._of_node else self.manifest.key.name)

    @property
    def _of_node(self) -> bool:
        return self.manifest.spec.host_network

    def reserve_address(self) -> None:
        """Reserve the pod's addresses in its node's subnet, the current ones if it has some; nothing if plugins choose
        them.

        With hostNetwork they are the node's. Raises OSError with a message if the node has no subnet or no free
        address.
        """
        if self._of_node:
            self._addresses = PodAddresses(self._host.address, self._host.ipv6_address)
        else:
            self._addresses = self._network.reserve(self.manifest) or self._addresses

    def release_address(self) -> None:
        """Give the reserved addresses back."""
        self._network.release(self.manifest)

    def prepare(self, on_pause: Callable[[Supervised], None]) -> Supervised:
        """Return a new pause process, whose start makes the sandbox; `on_pause` receives its changes of state."""
        self.pause = Supervised(f"{self.manifest.key}/pause", self._build, RestartPolicy("Always"), on_pause)
        return self.pause

    def remove(self) -> None:
        """Remove link and name; the pause process has ended."""
        self._undo.close()

    def rebuild(self) -> bool:
        """Make the sandbox again, at once; return False if it was not started."""
        pause = self.pause
        if pause is None or (pause.pid is None and pause.state != "backoff"):
            return False
        # Without the delay that earlier failures have earned.
        pause.try_now()
        if pause.pid is not None:
            pause.kill()
        return True

    def repair_link(self) -> None:
        """Reconnect the pod's link to the bridge if it is no longer a port of it. Raises OSError."""
        self.follow_subnet()
        if self.pause is None or self.pid is None or self._of_node or self._addresses is None:
            return
        try:
            done = self._network.repair(self.manifest, self._addresses)
        except CniFailed as failure:
            self._report("Warning", "SandboxChanged", f"{failure}: the pod is rebuilt")
            self.pause.kill()
            return
        if done:
            self._report("Warning", "LinkMended", done)

    def follow_subnet(self) -> None:
        """Rebuild the pod with another address if the node's subnet has changed: another node may have the old one.

        (kubelet and dockerd leave such pods alone; they need a restart by hand.)
        """
        if self.pause is None or not self.pid or self._of_node or self._addresses is None:
            return
        if not self._network.is_current(self.manifest, self._addresses):
            message = f"{self._host.name} has another subnet now, and the pod had {self.address}: the pod is rebuilt"
            self._report("Warning", "SubnetChanged", message)
            self.pause.kill()

    def _build(self) -> subprocess.Popen[bytes]:
        """Create pause process, link and name; all or nothing. Raises OSError."""
        try:
            pause = self._try()
        except OSError as error:
            self.failure = str(error)
            self.is_refused = isinstance(error, CniFailed) and not error.may_pass
            self._on_change()
            raise
        else:
            self.failure, self.is_refused = "", False
        finally:
            self.attempts += 1
        return pause

    def _try(self) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as undo:
            self.reserve_address()
            pause = ns.in_new_thread(self._spawn_pause)
            undo.callback(_end, pause)
            if not self._of_node:
                self._link(pause.pid, undo)
            if self._netns_directory is not None:
                name = self.manifest.key.file_name
                undo.callback(pod_network.unbind_name, self._netns_directory, name)
                pod_network.bind_name(self._netns_directory, name, pause.pid)
            self._undo = undo.pop_all()
        return pause

    def _link(self, pause_pid: int, undo: contextlib.ExitStack) -> None:
        """Connect the pod; `_before_link` is called as soon as its addresses are known. Raises OSError."""
        chosen_by_plugins = self._addresses is None
        if not chosen_by_plugins:
            self._before_link()
        undo.callback(self._unlink, chosen_by_plugins)
        self._addresses = self._network.connect(self.manifest, pause_pid)
        if chosen_by_plugins:
            self._before_link()

    def _unlink(self, chosen_by_plugins: bool) -> None:
        self._network.disconnect(self.manifest)
        if chosen_by_plugins:
            # Another pod may get them next.
            self._addresses = None

    def _spawn_pause(self) -> subprocess.Popen[bytes]:
        """Start it in a new thread: the child inherits that thread's namespaces, and is our child all the same."""
        shared = self.manifest.spec.share_process_namespace
        with open(self._logs / PAUSE_LOG, "ab", opener=plain) as log:
            # The thread needs its own root to enter another mount namespace.
            ns.unshare(ns.CLONE_FS)
            ns.enter(self._host.pid, ns.CLONE_NEWNS | (ns.CLONE_NEWNET if self._of_node else 0))
            own = ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | (0 if self._of_node else ns.CLONE_NEWNET)
            ns.unshare(own | (ns.CLONE_NEWPID if shared else 0))
            ns.sethostname(self.hostname)
            # It keeps its capabilities: if containers have fewer, they cannot go through /proc/1/root to the node.
            return subprocess.Popen(
                [str(PAUSE), *([] if shared else ["--quiet"])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env={},
                start_new_session=True,
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that it is gone; its supervisor, if any, may have reaped it."""
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
