"""A pod: a pause process that holds its namespaces, its link to the node's bridge, and its containers.

The pause process is supervised like every other process. When it dies, the pod is not ready, its containers are ended,
its link is removed and its address stays reserved; then the pod is rebuilt with the same address.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from testbed.cgroups.groups import Groups
from testbed.cluster.manifest import PodManifest
from testbed.cni.runtime import CniFailed
from testbed.places import PAUSE
from testbed.plain_files import plain
from testbed.pods import pod_network
from testbed.pods.container_document import ContainerPlace
from testbed.pods.kept_logs import LIVING, PAUSE_LOG, keep_end
from testbed.pods.pod_config import Lookup, no_configs
from testbed.pods.pod_container import PodContainer
from testbed.pods.pod_network import PodAddresses, PodHost, PodNetwork
from testbed.pods.pod_state import PodStatus, container_status, pod_phase, pod_state, rfc3339, why_not_ready
from testbed.pods.volumes import PodVolumes
from testbed.processes import namespaces as ns
from testbed.processes.supervise import RestartPolicy, Supervised
from testbed.processes.warm_parent import WarmParent

__all__ = ["OnEvent", "Pod", "PodHost", "PodStatus"]

NETNS_DIRECTORY = Path("/run/netns")  # Of the lab, whose /run is its own.
OnEvent = Callable[[Literal["Normal", "Warning"], str, str, str], None]
"""Called with a Kubernetes event's type, object (`pod/nginx`), reason and message, from any thread."""


class Waiting(NamedTuple):
    """What a pod waits for before its containers start."""

    state: str
    """As kubectl writes it: Init:0/2, Init:CrashLoopBackOff."""
    why: str


class Pod:
    """One pod on one node. Methods may be called from several threads; start and stop exclude each other."""

    def __init__(
        self,
        spec: PodManifest,
        host: PodHost,
        network: PodNetwork,
        on_event: OnEvent = lambda kind, thing, reason, message: None,
        netns_directory: Path | None = NETNS_DIRECTORY,
        on_change: Callable[[], None] = lambda: None,
        resolv_conf: str = "",
        warm_shims: WarmParent | None = None,
        before_link: Callable[[], None] = lambda: None,
        lookup: Lookup = no_configs,
        groups: Groups | None = None,
    ) -> None:
        """Create nothing yet.

        `netns_directory` None: `ip netns` does not show the pod. `on_change` is called from any thread when `status`
        may have changed. `resolv_conf` is every container's /etc/resolv.conf; with an empty one it resolves only its
        own name. `warm_shims` creates containers' shims; without it each is a new interpreter. `before_link` is called
        when the pod has its address and no link yet; while it raises OSError the pod is not created. `lookup` finds
        ConfigMaps and Secrets; call `follow_configs` after they change.
        `groups` keep containers to their limits.
        """
        self.manifest = spec
        self.key = spec.key
        self.name = str(spec.key)
        """Its unique name in the lab."""
        self._addresses: PodAddresses | None = None
        self._sandbox_failure = ""
        """Why the pod has no network; empty if it has one, or none was tried."""
        self.attempts = 0
        """How often its namespaces and network were made, successfully or not."""
        self._host = host
        self._network = network
        self._on_event = on_event
        self._on_change = on_change
        self._resolv_conf = resolv_conf
        self._warm_shims = warm_shims
        self._before_link = before_link
        self._lookup = lookup
        self._groups = groups
        self._netns_directory = netns_directory
        self._directory = host.rundir / "pods" / self.key.file_name
        self._volumes = PodVolumes(self._directory, spec, lookup)
        self._unmounted = ""
        """Why volumes of ConfigMaps and Secrets have no files yet; containers wait for them."""
        self._logs = host.logs / LIVING / self.key.file_name
        self.containers = self._make_containers()
        self.init_containers = self._make_containers(initial=True)
        self._pause: Supervised | None = None
        self._undo = contextlib.ExitStack()
        """Removes the link and the name of the running sandbox."""
        self._turn = threading.RLock()
        self._starting = threading.Lock()
        """One thread at a time starts it; not `_turn`, which the pause process's reports acquire."""
        self.created_at = rfc3339(time.time())
        self.deleted_at: str | None = None
        """When its deletion was requested; None before."""
        self._written: tuple[PodManifest, dict[str, Any]] | None = None
        self._terminating = False
        self._leaves = False
        self._place: ContainerPlace | None = None
        """Of the running sandbox."""
        self._begun: PodContainer | None = None
        """The init container that was started last, until all have ended."""
        self._started_at: float | None = None

    @property
    def pause_pid(self) -> int | None:
        """Return the process that holds the pod's namespaces, in the lab's PID namespace; None if there is none."""
        return self._pause.pid if self._pause is not None else None

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
        return None if self.manifest.spec.host_network else self._network.host_end(self.manifest)

    @property
    def plugin_calls(self) -> list[str]:
        """Return the last calls of CNI plugins for this pod, one line each."""
        return self._network.calls(self.manifest)

    @property
    def sandbox_failure(self) -> str:
        """Return why its namespaces and network could not be made the last time; empty if they could."""
        return self._sandbox_failure

    @property
    def leaves(self) -> bool:
        """Return whether it is being deleted, unlike a pod whose node lost its power."""
        return self._leaves

    def reserve_address(self) -> None:
        """Reserve the pod's addresses in its node's subnet, the current ones if it has some; nothing if plugins choose
        them.

        With hostNetwork they are the node's. Raises OSError with a message if the node has no subnet or no free
        address.
        """
        if self.manifest.spec.host_network:
            self._addresses = PodAddresses(self._host.address, self._host.ipv6_address)
        else:
            self._addresses = self._network.reserve(self.manifest) or self._addresses

    def start(self) -> None:
        """Build the pod; return once every container's first process was started or failed to start.

        Twice is harmless. Raises OSError with a message if the pod cannot be built at all; then only its reservation is
        left.
        """
        with self._starting:
            self._start()

    def _start(self) -> None:
        with self._turn:
            if self._pause is not None and self._pause.state in ("running", "backoff"):
                return
            if self._terminating:
                # After a stop it is a new pod: restarts start at zero, and completed containers run again.
                self.containers = self._make_containers()
                self.init_containers = self._make_containers(initial=True)
            self._terminating = self._leaves = False
            self._unmounted = ""
            self.deleted_at = None
            self._started_at = time.time()
            self._logs.mkdir(parents=True, exist_ok=True)
            self._volumes.mount()
            self._pause = Supervised(
                f"{self.name}/pause", self._build_sandbox, RestartPolicy("Always"), self._pause_changed
            )
        # Outside the lock, like later starts: the callback acquires it.
        self._pause.start()

    def stop(self, grace_s: float | None = None) -> None:
        """End the pod: TERM, then KILL after the grace period; remove link, volumes and namespaces, keep the address
        reserved.

        Without `grace_s` the manifest's terminationGracePeriodSeconds. Safe to call twice, and `start` works again.
        """
        grace = float(self.manifest.spec.termination_grace_period_seconds) if grace_s is None else grace_s
        self._terminate()
        with self._turn:
            self._stop_containers(grace)
        if self._pause is not None:
            # Outside the lock: its watching thread may be waiting for it.
            self._pause.stop(grace_s=1.0)
        with self._turn:
            self._undo.close()
        self._volumes.remove()

    def rebuild(self) -> None:
        """Make its namespaces, network and containers again, at once. Raises OSError as `start`."""
        if self._pause is not None and self.pause_pid is not None:
            # Without the delay that earlier failures have earned.
            self._pause.try_now()
            self._pause.kill()
        elif self._pause is not None and self._pause.state == "backoff":
            self._pause.try_now()
        else:
            self.start()

    def relabel(self, manifest: PodManifest) -> None:
        """Take labels and annotations from another manifest of this pod, without a restart."""
        self.manifest = manifest
        self._on_change()

    def written_manifest(self) -> dict[str, Any]:
        """Return the manifest as JSON, written once for each; not to be changed."""
        manifest, known = self.manifest, self._written
        if known is None or known[0] is not manifest:
            known = self._written = (manifest, manifest.to_manifest())
        return known[1]

    def mark_terminating(self) -> None:
        """Make the pod unready, whatever its containers report: it is about to be deleted."""
        self._leaves = True
        self.deleted_at = self.deleted_at or rfc3339(time.time())
        self._terminate()

    def shorten_grace(self, grace_s: float) -> None:
        """Leave no more than this time to a deletion that has begun."""
        end = time.monotonic() + grace_s
        for container in (*self.init_containers.values(), *self.containers.values()):
            container.shorten_grace(end)

    def _terminate(self) -> None:
        self._terminating = True
        self._on_change()

    def delete(self, grace_s: float | None = None) -> None:
        """Stop the pod and release its address. The end of the logs stays for a while."""
        self.stop(grace_s)
        keep_end(self._host.logs, self.key.file_name)
        self._network.release(self.manifest)
        self._report("Normal", "Killing", f"pod {self.name} is gone")

    def repair_link(self) -> None:
        """Reconnect the pod's link to the bridge if it is no longer a port of it.

        Raises OSError. If the node's subnet has changed, the pod is rebuilt with another address: the old one may
        belong to another node. (kubelet and dockerd leave such pods alone; they need a restart by hand.)
        """
        with self._turn:
            self._follow_subnet()
            linked = self.pause_pid is not None and not self.manifest.spec.host_network
            if linked and self._pause is not None and self._addresses is not None and not self._terminating:
                try:
                    done = self._network.repair(self.manifest, self._addresses)
                except CniFailed as failure:
                    self._report("Warning", "SandboxChanged", f"{failure}: the pod is rebuilt")
                    self._pause.kill()
                    return
                if done:
                    self._report("Warning", "LinkMended", done)

    def _follow_subnet(self) -> None:
        if self._pause is None or not self.pause_pid or self._terminating or self._addresses is None:
            return
        if not self.manifest.spec.host_network and not self._network.is_current(self.manifest, self._addresses):
            message = f"{self._host.name} now has {self._host.subnet}, which does not contain {self.address}"
            self._report("Warning", "SubnetChanged", f"{message}: the pod is rebuilt")
            self._pause.kill()

    def follow_configs(self) -> None:
        """Update volumes, and start containers that waited for a ConfigMap or Secret."""
        with self._turn:
            place, waited = self._place, self._unmounted
            if place is None or self._terminating or not self._fill_volumes():
                return
            if waited:
                self._start_next(place)
            for container in (*self.init_containers.values(), *self.containers.values()):
                container.follow_configs()

    def _fill_volumes(self) -> bool:
        """Write files of ConfigMaps and Secrets; return False, with an event, if a volume has none yet."""
        why = "; ".join(self._volumes.fill())
        if why and why != self._unmounted:
            self._report("Warning", "FailedMount", why)
        if why != self._unmounted:
            self._unmounted = why
            self._on_change()
        return not why

    def status(self) -> PodStatus:
        """Return the current status."""
        pause_pid = self.pause_pid
        containers = tuple(
            container_status(container.name, container.image, container.facts(pause_pid))
            for container in self.containers.values()
        )
        sandbox = pause_pid is not None
        waits_for = self._why_not_initialised(pause_pid)
        return PodStatus(
            name=self.name,
            node=self._host.name,
            address=self.address,
            phase=pod_phase(containers),
            state=(waits_for.state if waits_for and sandbox and not self._terminating else "")
            or pod_state(containers, terminating=self._terminating, sandbox=sandbox),
            ready=sandbox and not self._terminating and all(container.ready for container in containers),
            restarts=sum(container.restarts for container in containers),
            containers=containers,
            started_at=None if self._started_at is None else rfc3339(self._started_at),
            why_not_ready=self._unmounted
            or (self._sandbox_failure if not sandbox else "")
            or (waits_for.why if waits_for and sandbox else why_not_ready(containers, sandbox=sandbox)),
            pause_pid=pause_pid,
            terminating=self._terminating,
            ipv6_address=self.ipv6_address,
        )

    def is_privileged(self, container: str) -> bool:
        """Return whether a container has every capability that the lab can give."""
        return any(one.name == container and one.security_context.privileged for one in self.manifest.spec.containers)

    def exec_argv(self, container: str | None, argv: Sequence[str], tty: bool = False) -> list[str]:
        """Return the command that runs `argv` in a container (None: the first), for Popen in the lab.

        Standard input and output are passed through, with `tty` descriptor 0 becomes the controlling terminal; the exit
        code is the command's. Raises KeyError for an unknown container, and ContainerNotRunning.
        """
        name = next(iter(self.containers)) if container is None else container
        return self.containers[name].exec_argv(argv, tty)

    def _why_not_initialised(self, pause_pid: int | None) -> Waiting | None:
        """Return the state of the first init container that has not succeeded; None if all have."""
        every = list(self.init_containers.values())
        for number, container in enumerate(every):
            if not container.succeeded:
                one = container_status(container.name, container.image, container.facts(pause_pid))
                reason = one.reason if one.reason not in ("", "ContainerCreating") else f"{number}/{len(every)}"
                detail = one.message or ("" if one.exit_code is None else f"exit code {one.exit_code}")
                doing = one.reason or "running"
                why = f"init container {one.name}: {doing}{f' ({detail})' if detail else ''}"
                return Waiting(f"Init:{reason}", why)
        return None

    def _init_changed(self) -> None:
        self._on_change()
        # In a new thread: the caller may be the container's supervisor, which a stop waits for.
        threading.Thread(target=self._go_on, name=f"init {self.name}", daemon=True).start()

    def _go_on(self) -> None:
        """Start the next containers, if an init container has succeeded."""
        with self._turn:
            place = self._place
            if self._terminating or place is None or self._begun is None or not self._begun.succeeded:
                return
            self._start_next(place)

    def _start_next(self, place: ContainerPlace) -> None:
        """Start the first init container that has not succeeded; all containers if there is none.

        Do nothing while a volume has no files.
        """
        if not self._fill_volumes():
            return
        self._begun = next((one for one in self.init_containers.values() if not one.succeeded), None)
        for container in (self._begun,) if self._begun is not None else self.containers.values():
            self._start_container(container, place)

    def _make_containers(self, *, initial: bool = False) -> dict[str, PodContainer]:
        """Create the pod's containers, or (`initial`) those that must succeed before these start."""
        spec = self.manifest.spec
        return {
            container.name: PodContainer(
                self.manifest,
                container,
                self._directory,
                self._logs / f"{container.name}.log",
                self._report,
                self._init_changed if initial else self._on_change,
                self._warm_shims,
                self._lookup,
                self._groups,
                initial=initial,
            )
            for container in (spec.init_containers if initial else spec.containers)
        }

    def _build_sandbox(self) -> subprocess.Popen[bytes]:
        """Create pause process, link and name; all or nothing. Raises OSError."""
        try:
            pause = self._try_sandbox()
        except OSError as error:
            self._sandbox_failure = str(error)
            self._on_change()
            raise
        else:
            self._sandbox_failure = ""
        finally:
            self.attempts += 1
        return pause

    def _try_sandbox(self) -> subprocess.Popen[bytes]:
        with contextlib.ExitStack() as undo:
            self.reserve_address()
            pause = ns.in_new_thread(self._spawn_pause)
            undo.callback(_end, pause)
            if not self.manifest.spec.host_network:
                self._link(pause.pid, undo)
            if self._netns_directory is not None:
                undo.callback(pod_network.unbind_name, self._netns_directory, self.key.file_name)
                pod_network.bind_name(self._netns_directory, self.key.file_name, pause.pid)
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
        of_node = self.manifest.spec.host_network
        with open(self._logs / PAUSE_LOG, "ab", opener=plain) as log:
            # The thread needs its own root to enter another mount namespace.
            ns.unshare(ns.CLONE_FS)
            ns.enter(self._host.pid, ns.CLONE_NEWNS | (ns.CLONE_NEWNET if of_node else 0))
            own = ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | (0 if of_node else ns.CLONE_NEWNET)
            ns.unshare(own | (ns.CLONE_NEWPID if shared else 0))
            ns.sethostname(self._hostname)
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

    @property
    def _hostname(self) -> str:
        # With the node's network comes the node's name, as in Kubernetes.
        return self.manifest.spec.hostname or (self._host.name if self.manifest.spec.host_network else self.key.name)

    def _pause_changed(self, pause: Supervised) -> None:
        self._act_on_pause(pause)
        self._on_change()

    def _act_on_pause(self, pause: Supervised) -> None:
        with self._turn:
            if self._terminating or pause is not self._pause:
                return
            if pause.state == "running" and pause.pid is not None and self.address is not None:
                self._place = place = ContainerPlace(
                    pause.pid,
                    self._host.pid,
                    self._hostname,
                    self.address,
                    self._resolv_conf,
                    self.ipv6_address,
                    str(self._host.address),
                )
                self._start_next(place)
                # The subnet may have changed while the sandbox was created.
                self._follow_subnet()
            elif pause.state == "backoff":
                self._report("Warning", "SandboxChanged", "the pause process died; the pod is rebuilt")
                self._stop_containers(grace_s=0.0)
                # They run again in the new namespaces.
                self._place, self.init_containers = None, self._make_containers(initial=True)
                self._undo.close()

    def _start_container(self, container: PodContainer, place: ContainerPlace) -> None:
        try:
            container.start(place)
        except OSError as error:
            self._report("Warning", "Failed", f"container {container.name} cannot be started: {error}")

    def _stop_containers(self, grace_s: float) -> None:
        every = (*self.init_containers.values(), *self.containers.values())
        stops = [threading.Thread(target=each.stop, args=(grace_s,)) for each in every]
        for thread in stops:
            thread.start()
        for thread in stops:
            thread.join()

    def _report(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._on_event(kind, f"pod/{self.name}", reason, message)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that it is gone; its supervisor, if any, may have reaped it."""
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
