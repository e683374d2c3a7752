"""The start of a lab: phase by phase, each until nothing is missing.

"Ready" means: etcd answers → the network config is written → every agent is ready, its bridge included → every pod's
containers run and listen → services are programmed → every node's forwarding table equals etcd's leases.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from testbed.cni.runtime import CniFailed
from testbed.errors import TestbedError
from testbed.lab.log_keeper import LogKeeper
from testbed.lab.node import LabNode
from testbed.lab.sessions import missing_sessions
from testbed.pods.pod import NETNS_DIRECTORY, Pod
from testbed.pods.pod_network import bind_name
from testbed.supervisor.lab import Lab
from testbed.supervisor.unready_agents import UnreadyAgents

AGAIN_S = 2.0
"""Ready pods are checked again after this time while others are not ready: they may have crashed."""
PHASE_LIMIT_S = {"etcd": 20.0, "agents": 45.0, "pods": 90.0, "services": 20.0, "forwarding": 20.0}
USUAL_NODES = 50
"""The limits are for up to this many nodes; more get more time."""
POLL_S = 0.05
LATE_POLL_S = 0.5
GUARDS_EVERY_S = 3.0
NAMED = 3
"""Limit of names listed for the same reason."""
TRIES = 3
"""After so many refusals of all pods of a node its CNI plugins are not waited for."""
STARTERS = 4
"""Nodes created, and pods started, at the same time."""

Progress = Callable[[str, str, str], None]
"""Called with (phase, "start" | "waiting" | "done", what is missing or the result)."""


class LabNotReady(TestbedError):
    """A phase did not finish in time; the message names what is missing."""


class LabStart:
    """The start of one lab."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._state = lab.state
        self._progress = progress

    def run(self) -> None:
        """Bring everything up. Raises LabNotReady naming what is missing if a phase runs out of time."""
        LogKeeper(self._state.directory).start()
        try:
            for phase, work in (
                ("underlay", self._underlay),
                ("etcd", self._etcd),
                ("agents", self._agents),
                ("pods", self._pods),
                ("services", self._services),
                ("forwarding", self._forwarding),
            ):
                self._progress(phase, "start", "")
                self._progress(phase, "done", work())
        finally:
            self._state.settle()

    def _underlay(self) -> str:
        state, underlay = self._state, self._state.underlay
        # They load their modules while the underlay is built and etcd starts.
        state.warm_agents.prepare()
        state.warm_shims.prepare()
        underlay.start()
        for name, machine in underlay.machines.items():
            bind_name(NETNS_DIRECTORY, name, machine.pid)
        # Before there are pods: nginx resolves the names in its config once, at start.
        self._lab.services.want(state.cluster.services)
        self._lab.policies.want(state.cluster.network_policies)
        if state.cluster.dns:
            self._lab.names.start()
        switches = len(underlay.net.switches)
        kind = "Open vSwitch " if underlay.plan.open_vswitch else ""
        return f"{switches} {kind}{'switch' if switches == 1 else 'switches'}, {len(underlay.machines)} machines"

    def _etcd(self) -> str:
        self._state.start_etcd()
        etcd = self._state.registry.etcd
        self._await("etcd", lambda: [why for member in etcd.members if (why := member.why_not_healthy())])
        self._state.registry.prepare(self._state.cluster)
        return f"{etcd.endpoints}, network config written"

    def _agents(self) -> str:
        specs = self._state.cluster.nodes
        with ThreadPoolExecutor(STARTERS, "make node") as makers:
            made = list(makers.map(self._state.build_node, specs))
        self._state.nodes.add(made)
        pinned = [node for node in made if specs[node.name].subnet is not None]
        # A node that may take any subnet must not take one that is pinned to another node.
        free = [node for node in made if node not in pinned]
        for wave in (pinned, free):
            unready = UnreadyAgents([node for node in wave if node.expected], self._state.notices)
            self._await("agents", unready.reasons, unready.wait)
        return ", ".join(f"{node.name} {node.subnet}" for node in made if node.expected)

    def _pods(self) -> str:
        lab, state = self._lab, self._state
        state.configs.put(state.cluster.configs)
        lab.open("ConfigMap", lab.config_map_controller)
        lab.open("Secret", lab.secret_controller)
        for manifest in state.cluster.pods:
            lab.workloads.bare[manifest.key] = manifest
            state.pods.add(state.pods.make(manifest))
        lab.policies.start()
        state.pods.watch()
        state.link_watch.start()
        state.guard_rules.start(GUARDS_EVERY_S, lambda: ((one.name, one.guard) for one in state.nodes.values()))
        lab.names.follow()
        now = [pod for node in state.nodes.values() if node.expected for pod in state.pods.on(node.name)]
        self._start_all(now)
        for node in state.nodes.values():
            if node.expected:
                state.follow_node(node)
            else:
                threading.Thread(target=self._start_late, args=(node,), name=f"late {node.name}", daemon=True).start()
        lab.workloads.start(state.cluster.pod_owners)
        lab.open("Namespace", lab.namespace_controller)
        lab.open("NetworkPolicy", lab.policy_controller)
        lab.open("Pod", lab.pod_controller)
        for controller in lab.owner_controllers:
            lab.open(controller.kind, controller)
        waiting = UnreadyPods(now)
        made = [controller.all_why_not_ready for controller in lab.owner_controllers]

        def missing() -> list[str]:
            if refused := refused_by_plugins(state.pods):
                raise LabNotReady(f"pods: {refused}")
            return [*waiting.reasons(), *(why for look in made for why in look())]

        self._await("pods", missing)
        return f"{sum(pod.status().ready for pod in state.pods)} pods ready"

    def _services(self) -> str:
        services, names = self._lab.services, self._lab.names
        services.start()
        names.publish()
        self._lab.open("Service", self._lab.service_controller)
        self._await(
            "services",
            lambda: [*services.why_not_programmed(), *self._lab.policies.why_not_enforced(), *names.why_not_served()],
        )
        return ", ".join(f"{name} {one.spec.cluster_ip}" for name, one in services.numbered.items()) or "none"

    def _forwarding(self) -> str:
        state, overlay = self._state, self._state.overlay
        self._await("forwarding", state.missing_forwarding)
        if overlay.has_sessions:
            nodes = [node for node in state.nodes.values() if node.expected]
            self._await("forwarding", partial(missing_sessions, nodes))
        if not overlay.connects_nodes:
            return f"the {overlay.backend} backend leaves packets between nodes to other programs"
        return "every node's forwarding table equals etcd's leases"

    def _start_all(self, pods: Sequence[Pod]) -> None:
        # Addresses are assigned in file order, so that the example's stay the same; the rest may run in parallel.
        for pod in pods:
            pod.sandbox.reserve_address()
        with ThreadPoolExecutor(STARTERS, "start pod") as workers:
            list(workers.map(self._start_pod, pods))

    def _start_pod(self, pod: Pod) -> None:
        try:
            pod.start()
        except CniFailed:
            # As a pod that is applied: its reason is shown, and it is tried until the plugins succeed.
            self._lab.workloads.build_later(pod)

    def _start_late(self, node: LabNode) -> None:
        """Start the pods of a node whose agent runs by hand, once that agent is ready."""
        while node.why_not_ready() is not None:
            time.sleep(LATE_POLL_S)
        self._start_all(self._state.pods.on(node.name))
        self._state.follow_node(node)

    def _await(self, phase: str, missing: Callable[[], list[str]], pause: Callable[[float], None] = time.sleep) -> None:
        """Wait until `missing` is empty, with a `pause` of some seconds between checks. Raises LabNotReady."""
        longer = max(1.0, len(self._state.cluster.nodes) / USUAL_NODES)
        limit_s = self._lab.options.timeout_s or PHASE_LIMIT_S[phase] * longer
        deadline = time.monotonic() + limit_s
        reported = ""
        asked_at = time.monotonic()
        while still := missing():
            text = group_by_reason(still)
            asking_s = time.monotonic() - asked_at
            if time.monotonic() > deadline:
                raise LabNotReady(f"{phase}: not ready after {limit_s:g} s: {text}")
            if text != reported:
                self._progress(phase, "waiting", text)
                reported = text
            # Queries must not take the processor from nodes and pods that are still starting.
            pause(max(POLL_S, 3 * asking_s))
            asked_at = time.monotonic()


def refused_by_plugins(pods: Iterable[Pod]) -> str | None:
    """Return why waiting is pointless: a node whose CNI plugins refuse each of its pods for one reason, each time."""
    by_node: dict[str, set[str | None]] = {}
    for pod in pods:
        if not pod.manifest.spec.host_network:
            sandbox = pod.sandbox
            reason = sandbox.failure if sandbox.is_refused and sandbox.attempts >= TRIES else None
            by_node.setdefault(str(pod.manifest.spec.node_name), set()).add(reason)
    for node, reasons in by_node.items():
        (reason, *more) = reasons
        if reason is not None and not more:
            return f"{node}: every pod: {reason} ({TRIES} times)"
    return None


class UnreadyPods:
    """Checks pods that were not ready at the last check; all of them every AGAIN_S, and before reporting success."""

    def __init__(self, pods: Iterable[Pod], clock: Callable[[], float] = time.monotonic) -> None:
        self._pods = tuple(pods)
        self._waiting = self._pods
        self._clock = clock
        self._all_at = clock()

    def reasons(self) -> list[str]:
        """Return what each of them is missing; empty if every pod is ready."""
        if self._clock() >= self._all_at + AGAIN_S:
            self._all_at = self._clock()
            return self._look(everyone=True)
        return self._look() or self._look(everyone=True)

    def _look(self, *, everyone: bool = False) -> list[str]:
        statuses = [(pod, pod.status()) for pod in (self._pods if everyone else self._waiting)]
        # A pod that keeps crashing is ready for a moment each time.
        self._waiting = tuple(pod for pod, status in statuses if not status.ready or status.restarts)
        return [f"{status.name}: {status.why_not_ready}" for _, status in statuses if not status.ready]


def group_by_reason(reasons: Iterable[str]) -> str:
    """Join lines with the same reason, such as `node1: no answer yet`: `node1, node2, node3 and 9 more: …`."""
    by_reason: dict[str, list[str]] = {}
    for line in reasons:
        name, colon, reason = line.partition(": ")
        by_reason.setdefault(reason if colon else line, []).append(name if colon else "")
    return "; ".join(_together(names, reason) for reason, names in by_reason.items())


def _together(names: list[str], reason: str) -> str:
    shown = ", ".join(filter(None, names[:NAMED]))
    if not shown:
        return reason
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{shown}{more}: {reason}"
