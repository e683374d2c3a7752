"""The state of a pod and its containers, in Kubernetes' words. Pure: facts in, values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from testbed.processes.supervise import State

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
CONFIG_ERROR = "CreateContainerConfigError"
TCP_LISTEN = "0A"  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """A supervisor's facts about one container."""

    state: State
    restarts: int = 0
    exit_code: int | None = None
    """Of the last run that ended; 128 + n after signal n."""
    started_at: float | None = None
    """Seconds since the epoch at the last start."""
    message: str = ""
    """Why the last run could not start; empty if it did."""
    out_of_memory: bool = False
    """Whether the last run that ended was killed at its memory limit."""
    config_error: bool = False
    """Whether it waits for a ConfigMap, a Secret or a key, named in `message`."""
    pid: int | None = None
    listens: bool = True
    """Whether it serves: by its readiness probe, else whether the container's port, if any, is open."""
    probed: bool = False
    """Whether a readiness probe decides that."""
    in_post_start: bool = False
    """Whether its postStart handler has not succeeded yet."""


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container as `get` and `describe` show it."""

    name: str
    image: str
    state: Literal["waiting", "running", "terminated"]
    reason: str
    """Kubernetes' word, e.g. `ContainerCreating`, `CrashLoopBackOff`, `Completed`, `Error`; empty while running."""
    message: str
    ready: bool
    restarts: int
    exit_code: int | None
    """Of the last run that ended."""
    ended: str
    """Kubernetes' word for that end: `Completed`, `Error`, `OOMKilled`; empty while none has."""
    started_at: str | None
    """RFC 3339, UTC; of the last start."""
    pid: int | None
    """The container's own first process in the lab's PID namespace; None if it is not running."""


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One pod as `get` and `describe` show it."""

    name: str
    node: str
    address: str | None
    """None if the pod never had one."""
    phase: Phase
    state: str
    """The word in kubectl's STATUS column."""
    ready: bool
    restarts: int
    containers: tuple[ContainerStatus, ...]
    started_at: str | None
    """RFC 3339, UTC."""
    why_not_ready: str
    """What is missing, in one line; empty if the pod is ready."""
    pause_pid: int | None
    terminating: bool = False
    """Its deletion was requested; it is no longer ready, and gets no new traffic."""
    ipv6_address: str | None = None
    """In addition to `address`, on a dual-stack network."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return all of them, IPv4 first."""
        return tuple(one for one in (self.address, self.ipv6_address) if one is not None)


@lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """Format seconds since the epoch as `2024-05-01T10:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shell_exit_code(returncode: int | None) -> int | None:
    """Convert Python's exit code (negative for a signal) to a shell's (128 + signal)."""
    return returncode if returncode is None or returncode >= 0 else 128 - returncode


def container_status(name: str, image: str, facts: ContainerFacts) -> ContainerStatus:
    """Return Kubernetes' three states and their reasons."""
    state: Literal["waiting", "running", "terminated"]
    ended = "" if facts.exit_code is None else "Completed" if facts.exit_code == 0 else "Error"
    ended = "OOMKilled" if facts.out_of_memory else ended
    if facts.state == "running" and facts.pid is not None:
        state, reason = "running", ""
    elif facts.config_error:
        state, reason = "waiting", CONFIG_ERROR
    elif facts.state == "backoff" or (facts.state == "running" and facts.exit_code is not None):
        # It waits for its next attempt, or its shim is busy with one.
        state, reason = "waiting", "CrashLoopBackOff"
    elif facts.state in ("exited", "stopped") and facts.exit_code is not None:
        state, reason = "terminated", ended
    else:
        state, reason = "waiting", "ContainerCreating"
    message = facts.message
    if state == "running" and facts.in_post_start:
        message = facts.message or "is running its postStart handler"
    elif state == "running" and not facts.listens:
        message = "is not ready by its readiness probe" if facts.probed else "does not listen on its port yet"
    return ContainerStatus(
        name=name,
        image=image,
        state=state,
        reason=reason,
        message=message,
        ready=state == "running" and facts.listens and not facts.in_post_start,
        restarts=facts.restarts,
        exit_code=facts.exit_code,
        ended=ended,
        started_at=None if facts.started_at is None else rfc3339(facts.started_at),
        pid=facts.pid if state == "running" else None,
    )


def pod_phase(containers: Sequence[ContainerStatus]) -> Phase:
    """Return the pod's phase (Kubernetes: pod lifecycle, "Pod phase")."""
    if all(container.state == "terminated" for container in containers):
        return "Succeeded" if all(container.exit_code == 0 for container in containers) else "Failed"
    if any(container.reason in ("ContainerCreating", CONFIG_ERROR) for container in containers):
        return "Pending"
    return "Running"


def has_completed(restart_policy: str, phase: Phase) -> bool:
    """Report whether a pod's containers have ended for good."""
    return restart_policy != "Always" and phase in ("Succeeded", "Failed")


def pod_state(containers: Sequence[ContainerStatus], *, terminating: bool, sandbox: bool) -> str:
    """Return the word in kubectl's STATUS column; `sandbox`: the pause process runs.

    As in kubectl's printPod, the first container with a reason decides, and a pod with a running container is not
    Completed.
    """
    if terminating:
        return "Terminating"
    phase = pod_phase(containers)
    if not sandbox and phase in ("Pending", "Running"):
        never_ran = all(container.started_at is None for container in containers)
        return "ContainerCreating" if never_ran else "NotReady"
    reason = next((container.reason for container in containers if container.reason), phase)
    running = any(container.state == "running" for container in containers)
    if reason == "Completed" and running:
        return "Running" if any(container.ready for container in containers) else "NotReady"
    return reason


def why_not_ready(containers: Sequence[ContainerStatus], *, sandbox: bool) -> str:
    """Describe what is missing in one line, empty if every container is ready."""
    if not sandbox:
        return "the pause process is not running"
    waiting = []
    for container in containers:
        if container.state == "running" and not container.ready:
            waiting.append(f"{container.name} {container.message}")
        elif not container.ready:
            detail = container.message or ("" if container.exit_code is None else f"exit code {container.exit_code}")
            waiting.append(f"{container.name}: {container.reason}{f' ({detail})' if detail else ''}")
    return "; ".join(waiting)


def listening_ports(socket_table: str) -> frozenset[int]:
    """Parse TCP ports in LISTEN state from /proc/net/tcp or tcp6, without those on loopback addresses."""
    ports = set()
    for line in socket_table.splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        # 32-bit words of the address in host order: 127.x ends in 7F, and ::1 is three zero words and 01000000.
        loopback = address[-2:] == "7F" if len(address) == 8 or address.startswith("0" * 16 + "FFFF0000") else False
        if fields[3] == TCP_LISTEN and not loopback and address != "0" * 24 + "01000000":
            ports.add(int(port, 16))
    return frozenset(ports)
