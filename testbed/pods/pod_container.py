"""One container of a pod: its start, its supervision, its facts."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from testbed.cgroups.groups import Groups
from testbed.cluster.images import Program, RecipeError, program
from testbed.cluster.manifest import Container, PodManifest
from testbed.cluster.resources import limits_of
from testbed.errors import TestbedError
from testbed.plain_files import plain, replace_plain
from testbed.pods.container_document import ContainerPlace, field_values, run_document
from testbed.pods.container_probes import ContainerProbes, ProbeTarget
from testbed.pods.hooks import Hooks
from testbed.pods.listening import ListeningSockets, can_ask, open_ports
from testbed.pods.log_runs import LogPart, LogRuns
from testbed.pods.pod_config import Lookup, MissingConfig, no_configs, values_of
from testbed.pods.pod_state import ContainerFacts, shell_exit_code
from testbed.pods.prober import Failure
from testbed.processes.supervise import RestartPolicy, Supervised
from testbed.processes.threads import start_when_possible
from testbed.processes.warm_parent import ForkedProcess, WarmParent

SHIM = Path(__file__).with_name("container.py")
SHIM_PARENT = Path(__file__).with_name("container_parent.py")
DOES_NOTHING = ("/bin/true",)
"""The command of a stand-in for an init container."""
SETUP_TIMEOUT_S = 20.0
"""A container whose root does not exist by then has failed; a loaded machine needs 0.5 s."""
END_TIMEOUT_S = 2.0
SHIM_GRACE_S = 2.0
"""Time for the shim to exit after its container's last process ended."""

ShimProcess = subprocess.Popen[bytes] | ForkedProcess
Report = Callable[[Literal["Normal", "Warning"], str, str], None]
"""Called with a Kubernetes event's type, reason and message."""


def parent_of_shims() -> WarmParent:
    """Return the parent of containers' shims, which has imported their modules."""
    return WarmParent([sys.executable, "-I", "-S", str(SHIM_PARENT)], {})


class ContainerNotRunning(TestbedError):
    """The container has no process now; it may have one later."""


def end_processes_in(mount_namespace: int) -> None:
    """Kill every process in the descriptor's mount namespace, until there is none.

    A container has its own mount namespace, which its processes may not leave, so this finds them all, whatever their
    parent. The open descriptor keeps the namespace's number from being reused.
    """
    wanted = os.fstat(mount_namespace)
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        found = False
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                found |= _kill_if_in(int(entry), wanted)
        if not found:
            return
        time.sleep(0.001)


def _kill_if_in(pid: int, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        # A pidfd first, so that the checked process is the one killed.
        process = os.pidfd_open(pid)
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt")
            if (namespace.st_dev, namespace.st_ino) == (wanted.st_dev, wanted.st_ino):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return True
        finally:
            os.close(process)
    return False


class PodContainer:
    """One container: started in its pod's namespaces, restarted by the pod's policy."""

    def __init__(
        self,
        pod: PodManifest,
        container: Container,
        directory: Path,
        log: Path,
        report: Report,
        on_change: Callable[[], None] = lambda: None,
        warm_shims: WarmParent | None = None,
        lookup: Lookup = no_configs,
        groups: Groups | None = None,
        *,
        initial: bool = False,
    ) -> None:
        """`directory` is the pod's own, `log` the file for stdout and stderr, `warm_shims` creates shims quickly.

        `lookup` finds ConfigMaps and Secrets, `groups` keep it to its limits. `initial`: it must succeed before the
        others start.
        """
        self.name = container.name
        self.image = container.image
        self.log = log
        self._runs = LogRuns(log)
        self.document = directory / f"{container.name}.json"
        """The document of the running container; `exec` takes its environment and rights from it."""
        self._pod = pod
        self._container = container
        self._initial = initial
        self._program = program(container)
        self._directory = directory
        self._report = report
        self._on_change = on_change
        self._warm_shims = warm_shims
        self._lookup = lookup
        self._limits = None if container.stand_in or groups is None else limits_of(container.resources)
        self._groups = groups or Groups({}, {})
        self._group = f"pod-{pod.key.file_name}_{container.name}"
        """No file of a control group's has such a name."""
        self._kills_before: int | None = None
        """In its group, for want of memory, when this run began; None once its end was noted."""
        self._out_of_memory = False
        self._hook_failure = ""
        """Why postStart of the last run failed."""
        self._hooks = Hooks(container, report, self.exec_argv)
        self._missing = ""
        """The ConfigMap, Secret or key that its variables wait for."""
        self._tries_without_it = 0
        """Its supervisor's failed attempts, counted as restarts."""
        self._probes = ContainerProbes(pod.name, container, report, on_change, self._end_run)
        self._place: ContainerPlace | None = None
        self._supervised: Supervised | None = None
        self._restarts_before = 0
        self._exit_code: int | None = None
        self._message = ""
        self._pid: int | None = None
        self._mount_namespace: int | None = None
        """The running container's mount namespace; held to find its processes."""
        self._holding = threading.Lock()
        self._listening: ListeningSockets | None = None
        self._asking = threading.Lock()
        self._last_resort: threading.Timer | None = None
        """Kills a run that does not end after a probe or its postStart has failed."""
        self._latest_end = math.inf
        """Monotonic time at which a stop kills what is left, whatever its own grace period."""
        self._got_term = False

    @property
    def pid(self) -> int | None:
        """Return the container's own first process in the lab's PID namespace; None if it is not running."""
        supervised = self._supervised
        return self._pid if supervised is not None and supervised.state == "running" else None

    @property
    def is_supervised(self) -> bool:
        """Return whether it was started, so that its supervisor decides what follows."""
        return self._supervised is not None

    def start(self, place: ContainerPlace) -> None:
        """Run in that place from now on; a completed container stays ended if its policy says so. Raises OSError."""
        before = self._supervised
        if before is not None:
            if before.state == "exited":
                return
            self._restarts_before += before.restarts - self._tries_without_it + 1
            self._tries_without_it = 0
        self._place = place
        wanted = self._pod.spec.restart_policy
        policy = RestartPolicy("OnFailure" if self._initial and wanted == "Always" else wanted)
        self._supervised = Supervised(f"{self._pod.name}/{self.name}", self._launch, policy, self._changed)
        try:
            self._supervised.start()
        except MissingConfig:
            # Nothing runs yet; `follow_configs` starts it.
            self._supervised, self._tries_without_it = None, 0
            self._on_change()
        except OSError as failure:
            # Its supervisor repeats only what it has started once.
            self._supervised = None
            self._message = self._message or str(failure)
            raise

    def relabel(self, pod: PodManifest) -> None:
        """Use the labels and annotations of this manifest of its pod from the next run on."""
        self._pod = pod

    def follow_configs(self) -> None:
        """Start it now if a ConfigMap or Secret was missing until now."""
        place, supervised = self._place, self._supervised
        if not self._missing or place is None:
            return
        if supervised is None:
            self.start(place)
        else:
            supervised.try_now()

    def shorten_grace(self, end: float) -> None:
        """Let a stop kill what still runs at this monotonic time; it may be under way or begin later."""
        self._latest_end = min(self._latest_end, end)
        timer = threading.Timer(max(0.0, end - time.monotonic()), self._end_grace)
        timer.daemon = True
        start_when_possible(timer)

    def _end_grace(self) -> None:
        self._hooks.cut_pre_stop()
        # Before TERM a killed container would be started again.
        if self._got_term:
            self._kill_processes()

    def stop(self, grace_s: float) -> None:
        """End every process of the container: preStop, TERM to the first one, KILL to all after the grace period."""
        place, self._place = self._place, None
        self._probes.stop()
        if place is not None and self.pid is not None:
            grace_s = self._hooks.run_pre_stop(place, grace_s)
        if self._supervised is not None and self._supervised.state != "exited":
            # From now on `shorten_grace` kills; an end that it set before is seen here.
            self._got_term = True
            grace_s = max(0.0, min(grace_s, self._latest_end - time.monotonic()))
            # Killing the processes and not the shim lets the shim reap them and report the exit code.
            timer = threading.Timer(grace_s, self._kill_processes)
            start_when_possible(timer)
            self._supervised.stop(grace_s + SHIM_GRACE_S)
            timer.cancel()
        self._end_leftovers()
        if self._limits is not None:
            self._groups.remove(self._group)
        with self._asking:
            self._stop_asking()

    def log_before(self) -> LogPart | None:
        """Return the previous run's output; while a container waits for its next run, the last one's."""
        return self._runs.before()

    @property
    def succeeded(self) -> bool:
        """Return whether it has succeeded and stays ended."""
        return self._supervised is not None and self._supervised.state == "exited" and self._exit_code == 0

    def _post_start_failed(self, place: ContainerPlace, failure: Failure) -> None:
        if self._place is place:
            self._hook_failure = f"postStart: {failure}"
            self._end_run()

    def facts(self, pause_pid: int | None) -> ContainerFacts:
        """Return the current facts; queries the kernel if the container has a port."""
        supervised = self._supervised
        if supervised is None:
            return ContainerFacts(
                "pending",
                restarts=self._restarts_before,
                message=self._missing or self._message,
                config_error=bool(self._missing),
            )
        return ContainerFacts(
            state=supervised.state,
            restarts=self._restarts_before + supervised.restarts - self._tries_without_it,
            exit_code=self._exit_code,
            started_at=supervised.started_at,
            out_of_memory=self._out_of_memory,
            message=self._missing or self._message or self._hook_failure,
            config_error=bool(self._missing),
            pid=self.pid,
            listens=self._serves(pause_pid),
            probed=self._probes.decides or not self._probes.started,
            in_post_start=self._hooks.in_post_start,
        )

    def _serves(self, pause_pid: int | None) -> bool:
        """Report readiness by its readiness probe; without one, by its image's open port."""
        if not self._probes.started:
            return False
        if self._probes.decides:
            return self._probes.ready
        return self._program.port is None or self._listens(pause_pid, self._program.port)

    def _listens(self, pause_pid: int | None, port: int) -> bool:
        place = self._place
        if pause_pid is None or place is None:
            return False
        if not can_ask():
            return port in open_ports(pause_pid)
        with self._asking:
            try:
                if self._listening is None or self._listening.pid != pause_pid:
                    self._stop_asking()
                    self._listening = ListeningSockets(pause_pid)
                addresses = [one for one in (place.address, place.ipv6_address) if one is not None]
                return any(self._listening.on(address, port) for address in addresses)
            except OSError:
                # The pod is about to be deleted.
                self._stop_asking()
                return False

    def _stop_asking(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    def exec_argv(self, argv: Sequence[str], tty: bool) -> list[str]:
        """Return the command that runs `argv` in the container, for Popen in the lab. Raises ContainerNotRunning."""
        pid = self.pid
        if pid is None:
            raise ContainerNotRunning(f"container {self.name} of pod {self._pod.name} is not running")
        return [*_shim(), "--exec", str(self.document), str(pid), *(["--tty"] if tty else []), "--", *argv]

    def _launch(self) -> ShimProcess:
        self._end_leftovers()
        self._pid = None
        place = self._place
        if place is None:
            raise OSError(f"pod {self._pod.name} has no namespaces")
        image = self._find_program(place)
        if self._initial and self._container.stand_in:
            image = dataclasses.replace(image, argv=DOES_NOTHING)
        cgroups = self._make_group()
        self._kills_before = self._groups.out_of_memory_kills(self._group) if cgroups else 0
        text = run_document(self._pod, self._container, image, place, self._directory, self.log, cgroups)
        # Readable only by root: env may contain what the manifest's author calls a secret.
        replace_plain(self.document, text.encode())
        self._runs.begin()
        self._hook_failure = ""
        lab_end, shim_end = socket.socketpair()
        with lab_end, shim_end, open(self.document, "rb", opener=plain) as document:
            process = self._start_shim((document.fileno(), shim_end.fileno()))
            shim_end.close()
            self._converse(lab_end, process)
        return process

    def _find_program(self, place: ContainerPlace) -> Program:
        """Return the program, with the current values of ConfigMaps and Secrets. Raises MissingConfig."""
        try:
            fields = field_values(self._pod, self._container, place)
            found = program(self._container, values_of(self._pod, self._container, fields, self._lookup))
        except MissingConfig as failure:
            why = str(failure)
        except RecipeError as failure:
            # A recipe's message about a value may reveal a secret.
            why = f"{failure.variable}: the image does not accept its value"
        else:
            self._missing, self._program = "", found
            return found
        if why != self._missing:
            self._missing = why
            self._report("Warning", "Failed", f"Error: {why}")
        self._tries_without_it += 1
        raise MissingConfig(why)

    def _make_group(self) -> list[Path]:
        """Create the control group that keeps it to its limits. Raises OSError."""
        try:
            return [] if self._limits is None else self._groups.make(self._group, self._limits)
        except OSError as failure:
            self._message = f"control group: {failure}"
            raise

    def _start_shim(self, inherited: tuple[int, int]) -> ShimProcess:
        words = [*_shim(), "--run", *map(str, inherited)]
        forked = self._warm_shims.start(words, {}, self.log, inherited) if self._warm_shims is not None else None
        if forked is not None:
            return forked
        with open(self.log, "ab", opener=plain) as log:
            return subprocess.Popen(
                words,
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd="/",
                env={},
                start_new_session=True,
            )

    def _converse(self, lab_end: socket.socket, process: ShimProcess) -> None:
        """Follow the start up to the exec: get the pid, open the mount namespace, receive a failure."""
        lab_end.settimeout(SETUP_TIMEOUT_S)
        try:
            with lab_end.makefile("rb") as lines:
                for line in lines:
                    message: Mapping[str, object] = json.loads(line)
                    if isinstance(pid := message.get("pid"), int):
                        self._mount_namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                        self._pid = pid
                        lab_end.sendall(b"g")
                        continue
                    # Kept until now: a crash loop shows why the last attempt failed.
                    self._message = str(message.get("error", ""))
                    if self._message:
                        self._pid = None
                    return
        except (TimeoutError, OSError, ValueError):
            # It ended early, or hangs: its supervisor sees the end, with the exit code.
            process.kill()
        self._pid = None

    def _changed(self, supervised: Supervised) -> None:
        self._note_change(supervised)
        self._on_change()

    def _note_change(self, supervised: Supervised) -> None:
        if supervised.state == "running":
            place = self._place
            if not self._message and place is not None:
                self._report("Normal", "Started", f"started container {self.name}")
                self._probes.start(ProbeTarget(place.address, place.node_pid, self.exec_argv))
                self._hooks.start_post_start(place, self._on_change, partial(self._post_start_failed, place))
            return
        self._probes.stop()
        self._hooks.end_run()
        if self._last_resort is not None:
            # It must not affect the next run.
            self._last_resort.cancel()
        self._pid = None
        self._exit_code = shell_exit_code(supervised.exit_code)
        self._end_leftovers()
        if supervised.state == "backoff":
            self._runs.end()
        if self._missing:
            return
        self._note_memory()
        ended = f"container {self.name} ended with exit code {self._exit_code}"
        if supervised.state == "backoff":
            self._report("Warning", "BackOff", f"{ended}{': ' if self._message else ''}{self._message}; restarting")
        elif supervised.state == "exited":
            self._report("Normal" if self._exit_code == 0 else "Warning", "Exited", ended)

    def _note_memory(self) -> None:
        """Find out whether this run was killed at its memory limit."""
        before, self._kills_before = self._kills_before, None
        if before is None:
            return
        kills = self._groups.out_of_memory_kills(self._group) - before
        self._out_of_memory = kills > 0 and self._exit_code != 0
        if self._out_of_memory:
            limit = self._container.resources.limits.memory
            what = f"container {self.name} used more than its memory limit of {limit}; the kernel killed it"
            self._report("Warning", "OOMKilling", what)

    def _end_run(self) -> None:
        """End this run as a stop would, preStop first; the restart policy decides what follows."""
        supervised, place, pid = self._supervised, self._place, self.pid
        self._probes.stop()
        if supervised is None or place is None or pid is None:
            return
        grace_s = self._hooks.run_pre_stop(place, float(self._pod.spec.termination_grace_period_seconds))
        if self._place is not place or self.pid != pid:
            # Meanwhile the run has ended, or a stop ends it.
            return
        if self._last_resort is not None:
            self._last_resort.cancel()
        self._last_resort = threading.Timer(grace_s, self._kill_processes)
        self._last_resort.daemon = True
        start_when_possible(self._last_resort)
        supervised.kill(signal.SIGTERM)

    def _end_leftovers(self) -> None:
        """End what the first process left: orphans in a shared PID namespace, and everything if our shim was killed."""
        with self._holding:
            descriptor, self._mount_namespace = self._mount_namespace, None
            if descriptor is not None:
                end_processes_in(descriptor)
                os.close(descriptor)

    def _kill_processes(self) -> None:
        with self._holding:
            if self._mount_namespace is not None:
                end_processes_in(self._mount_namespace)


def _shim() -> list[str]:
    return [sys.executable, "-I", "-S", str(SHIM)]
