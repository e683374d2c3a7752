"""A pod: its sandbox, its volumes, and its containers, which run while the sandbox does.

When the pause process dies, the pod is not ready and its containers are ended; then they start in the new sandbox.
"""

import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal, NamedTuple

from testbed.cgroups.groups import Groups
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.pods.container_document import ContainerPlace
from testbed.pods.kept_logs import LIVING, keep_end
from testbed.pods.pod_config import Lookup, no_configs
from testbed.pods.pod_container import PodContainer
from testbed.pods.pod_network import PodHost, PodNetwork
from testbed.pods.pod_state import PodStatus, container_status, pod_phase, pod_state, rfc3339, why_not_ready
from testbed.pods.sandbox import PodSandbox
from testbed.pods.volumes import PodVolumes
from testbed.processes.supervise import Supervised
from testbed.processes.threads import in_background, start_when_possible
from testbed.processes.warm_parent import WarmParent

__all__ = ["OnEvent", "Pod", "PodHost", "PodStatus"]

NETNS_DIRECTORY = Path("/run/netns")  # Of the lab, whose /run is its own.
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 10.0
"""Between attempts to start a container for the first time."""
REFILL_EVERY_S = 2.0
"""Between attempts to write files of volumes."""
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
        uid_of: Callable[[ObjectKey, str], str] = lambda key, created_at: "",
    ) -> None:
        """Create nothing yet.

        `netns_directory` None: `ip netns` does not show the pod. `on_change` is called from any thread when `status`
        may have changed. `resolv_conf` is every container's /etc/resolv.conf; with an empty one it resolves only its
        own name. `warm_shims` creates containers' shims; without it each is a new interpreter. `before_link` is called
        when the pod has its address and no link yet; while it raises OSError the pod is not created. `lookup` finds
        ConfigMaps and Secrets; call `follow_configs` after they change.
        `groups` keep containers to their limits. `uid_of` returns the id of a pod created at a time.
        """
        self.manifest = spec
        self.key = spec.key
        self.name = str(spec.key)
        """Its unique name in the lab."""
        self._host = host
        self._on_event = on_event
        self._on_change = on_change
        self._resolv_conf = resolv_conf
        self._warm_shims = warm_shims
        self._lookup = lookup
        self._groups = groups
        self._directory = host.rundir / "pods" / self.key.file_name
        self.created_at = rfc3339(time.time())
        self.uid = uid_of(self.key, self.created_at)
        self._volumes = PodVolumes(self._directory, spec, lookup, self.uid)
        self._unmounted = ""
        """Why volumes of ConfigMaps and Secrets have no files yet; containers wait for them."""
        self._mount_trouble = ""
        """The same, and why files could not be changed, as it was reported last."""
        self._refill: threading.Timer | None = None
        """Writes files again that could not be written."""
        self._logs = host.logs / LIVING / self.key.file_name
        self.containers = self._make_containers()
        self.init_containers = self._make_containers(initial=True)
        self.sandbox = PodSandbox(
            spec,
            host,
            network,
            logs=self._logs,
            netns_directory=netns_directory,
            before_link=before_link,
            report=self._report,
            on_change=on_change,
        )
        self._turn = threading.RLock()
        self._starting = threading.Lock()
        """One thread at a time starts it; not `_turn`, which the pause process's reports acquire."""
        self._stopping = threading.Lock()
        """One thread at a time stops it."""
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
        return self.sandbox.pid

    @property
    def address(self) -> str | None:
        """Return the pod's address; None before it has one."""
        return self.sandbox.address

    @property
    def ipv6_address(self) -> str | None:
        """Return its IPv6 address, in addition, on a dual-stack network."""
        return self.sandbox.ipv6_address

    @property
    def node_address(self) -> IPv4Address:
        """Return its node's own address."""
        return self._host.address

    @property
    def host_end(self) -> str | None:
        """Return the name of the node's end of the pod's link; None while it has none, or it is not known."""
        return self.sandbox.host_end

    @property
    def leaves(self) -> bool:
        """Return whether it is being deleted, unlike a pod whose node lost its power."""
        return self._leaves

    def start(self) -> None:
        """Build the pod; return once every container's first process was started or failed to start.

        Twice is harmless, and a pod that is being deleted stays ended. Raises OSError with a message if the pod cannot
        be built at all; then only its reservation is left.
        """
        with self._starting:
            self._start()

    def _start(self) -> None:
        with self._turn:
            pause = self.sandbox.pause
            if self._leaves or (pause is not None and pause.state in ("running", "backoff")):
                return
            if self._terminating:
                # After a stop it is a new pod: restarts start at zero, and completed containers run again.
                self.containers = self._make_containers()
                self.init_containers = self._make_containers(initial=True)
            self._terminating = False
            self._unmounted = self._mount_trouble = ""
            self.deleted_at = None
            self._started_at = time.time()
            self._logs.mkdir(parents=True, exist_ok=True)
            self._volumes.mount()
            pause = self.sandbox.prepare(self._pause_changed)
        # Outside the lock, like later starts: the callback acquires it.
        pause.start()

    def stop(self, grace_s: float | None = None) -> None:
        """End the pod: TERM, then KILL after the grace period; remove link, volumes and namespaces, keep the address
        reserved.

        Without `grace_s` the manifest's terminationGracePeriodSeconds. Safe to call twice, and `start` works again.
        """
        grace = float(self.manifest.spec.termination_grace_period_seconds) if grace_s is None else grace_s
        if not self._stopping.acquire(blocking=False):
            # Another stop may be waiting for a longer grace period.
            self.shorten_grace(grace)
            self._stopping.acquire()
        try:
            self._stop(grace)
        finally:
            self._stopping.release()

    def _stop(self, grace_s: float) -> None:
        self._terminate()
        with self._turn:
            self._stop_containers(grace_s)
        if self.sandbox.pause is not None:
            # Outside the lock: its watching thread may be waiting for it.
            self.sandbox.pause.stop(grace_s=1.0)
        with self._turn:
            self.sandbox.remove()
        self._volumes.remove()

    def rebuild(self) -> None:
        """Make its namespaces, network and containers again, at once. Raises OSError as `start`."""
        if not self.sandbox.rebuild():
            self.start()

    def relabel(self, manifest: PodManifest) -> None:
        """Take labels and annotations from another manifest of this pod, without a restart; its files follow."""
        with self._turn:
            self.manifest = self.sandbox.manifest = manifest
            for container in (*self.init_containers.values(), *self.containers.values()):
                container.relabel(manifest)
        self.follow_configs()
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
        self.sandbox.release_address()
        self._report("Normal", "Killing", f"pod {self.name} is gone")

    def repair_link(self) -> None:
        """Reconnect the pod's link to the bridge, or rebuild the pod in its node's new subnet. Raises OSError."""
        # Checked without the lock too: a stop holds it for the whole grace period, and the caller serves other pods.
        if self._terminating:
            return
        with self._turn:
            if not self._terminating:
                self.sandbox.repair_link()

    def follow_configs(self) -> None:
        """Update files of volumes, and start containers that waited for a ConfigMap or Secret."""
        if self._terminating:
            # See `repair_link`.
            return
        with self._turn:
            place, waited = self._place, self._unmounted
            if place is None or self._terminating or not self._fill_volumes():
                return
            if waited:
                self._start_next(place)
            for container in (*self.init_containers.values(), *self.containers.values()):
                try:
                    container.follow_configs()
                except OSError as failure:
                    self._start_later(container, place, failure, FIRST_RETRY_S)

    def _fill_volumes(self) -> bool:
        """Write files of ConfigMaps, Secrets and its fields; return False, with an event, if a volume has none yet."""
        filled = self._volumes.fill(self.manifest)
        why, trouble = "; ".join(filled.missing), "; ".join(dict.fromkeys([*filled.missing, *filled.failed]))
        if trouble and trouble != self._mount_trouble:
            self._report("Warning", "FailedMount", trouble)
        self._mount_trouble = trouble
        if why != self._unmounted:
            self._unmounted = why
            self._on_change()
        if filled.failed:
            self._refill_later()
        return not why

    def _refill_later(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
        self._refill = threading.Timer(REFILL_EVERY_S, self.follow_configs)
        self._refill.daemon = True
        start_when_possible(self._refill)

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
            or (self.sandbox.failure if not sandbox else "")
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
        in_background(f"init {self.name}", self._go_on)

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

    def _pause_changed(self, pause: Supervised) -> None:
        self._act_on_pause(pause)
        self._on_change()

    def _act_on_pause(self, pause: Supervised) -> None:
        with self._turn:
            if self._terminating or pause is not self.sandbox.pause:
                return
            if pause.state == "running" and pause.pid is not None and self.address is not None:
                self._place = place = ContainerPlace(
                    pause.pid,
                    self._host.pid,
                    self.sandbox.hostname,
                    self.address,
                    self._resolv_conf,
                    self.ipv6_address,
                    str(self._host.address),
                    self.uid,
                )
                self._start_next(place)
                # The subnet may have changed while the sandbox was created.
                self.sandbox.follow_subnet()
            elif pause.state == "backoff":
                self._report("Warning", "SandboxChanged", "the pause process died; the pod is rebuilt")
                self._stop_containers(grace_s=0.0)
                # They run again in the new namespaces.
                self._place, self.init_containers = None, self._make_containers(initial=True)
                self.sandbox.remove()

    def _start_container(self, container: PodContainer, place: ContainerPlace, retry_s: float = FIRST_RETRY_S) -> None:
        try:
            container.start(place)
        except OSError as failure:
            self._start_later(container, place, failure, retry_s)

    def _start_later(self, container: PodContainer, place: ContainerPlace, failure: OSError, retry_s: float) -> None:
        self._report("Warning", "Failed", f"container {container.name} cannot be started: {failure}")
        again = threading.Timer(retry_s, self._start_again, (container, place, min(LONGEST_RETRY_S, 2 * retry_s)))
        again.daemon = True
        start_when_possible(again)

    def _start_again(self, container: PodContainer, place: ContainerPlace, retry_s: float) -> None:
        """Start a container that could not be started, unless the pod has other ones or another place by now."""
        with self._turn:
            is_ours = container in (*self.init_containers.values(), *self.containers.values())
            if is_ours and place is self._place and not self._terminating and not container.is_supervised:
                self._start_container(container, place, retry_s)

    def _stop_containers(self, grace_s: float) -> None:
        every = (*self.init_containers.values(), *self.containers.values())
        stops = [threading.Thread(target=each.stop, args=(grace_s,)) for each in every]
        for thread in stops:
            start_when_possible(thread)
        for thread in stops:
            thread.join()

    def _report(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self._on_event(kind, f"pod/{self.name}", reason, message)
