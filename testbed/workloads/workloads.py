"""The desired workloads of the lab, and the one place that starts and ends pods.

    controllers (apply, delete, scale) ──> desired pods and their owners ──┐
    pods_changed ────────────────────────────────────────────────────────┴─> reconcile (pure) ──> start and end pods

Decisions are made in one thread, the subscriber of `pods_changed`. Starting and ending take time and have their own
threads; their results are the next change.
"""

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from typing import NamedTuple

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey, Owner
from testbed.cluster.placement import SeenNode, TakenPort, host_ports
from testbed.cluster.pod_template import PodOwner, PodTemplate, generated_name, pod_of
from testbed.cluster.replica_set import ReplicaSet
from testbed.lab.clock import now
from testbed.lab.events import Events
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod import Pod
from testbed.pods.pod_state import PodStatus, has_completed
from testbed.processes.threads import in_background, start_when_possible
from testbed.workloads.progress import Progress, Unplaced, deployment_numbers, progress_of
from testbed.workloads.reconcile import WantedObjects, reconcile
from testbed.workloads.seen import (
    Action,
    CannotPlace,
    CreatePod,
    DeletePod,
    KeptSet,
    PodsByOwner,
    SeenPod,
    by_owner,
)

ROUTES_LIMIT_S = 3.0
"""How long services may take to forget the pod; an event names any that takes longer."""
UNDER_WAY_S = 0.2
"""For requests in flight when the last node forgot the pod: time to arrive, and to be answered."""
STARTERS = 4
"""Pods built at the same time."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""As in Kubernetes: no vowels, to avoid words, and no ambiguous characters."""
SUFFIX_LENGTH = 5
REVISION_HASH = "controller-revision-hash"
"""The label of a DaemonSet's pods with their template."""


class Owned(NamedTuple):
    """Where a pod comes from that a template made."""

    owner: Owner
    template_hash: str
    number: int
    """Increases with every created pod."""


class Seen(NamedTuple):
    """One observation of the lab."""

    pods: PodsByOwner
    nodes: Sequence[SeenNode]


class Workloads:
    """Desired pods and their owners, and the actions for them."""

    def __init__(
        self, nodes: Nodes, pods: Pods, events: Events, why_not_written: Callable[[], Sequence[str]] = lambda: ()
    ) -> None:
        """`why_not_written` returns which nodes could not forget pods that are ending, and why, one line each."""
        self._nodes = nodes
        self._pods = pods
        self._events = events
        self._why_not_written = why_not_written
        self.deployments: dict[ObjectKey, Deployment] = {}
        """The desired ones. Changed only under `deciding`, like the two below."""
        self.sets: Mapping[ObjectKey, KeptSet] = {}
        """ReplicaSets: applied, or created for Deployments."""
        self.daemon_sets: dict[ObjectKey, DaemonSet] = {}
        """The desired ones."""
        self.created_at: dict[Owner, str] = {}
        """When each Deployment and DaemonSet was first applied."""
        self.bare: dict[ObjectKey, PodManifest] = {}
        """Desired pods without an owner, each on its node. Changed only under `deciding`."""
        self.leaving: set[str] = set()
        """Nodes that are drained or about to be deleted."""
        self.cordoned: set[str] = set()
        """Nodes that accept no new pods and keep their existing ones."""
        self.closed: set[str] = set()
        """Nodes that are being added or removed: they accept no pod."""
        self.deciding = threading.RLock()
        self._owned: dict[ObjectKey, Owned] = {}
        self._numbers = count(1)
        self._random = random.Random()
        self._starters = ThreadPoolExecutor(STARTERS, "start pod")
        self._lanes: weakref.WeakKeyDictionary[Pod, threading.Lock] = weakref.WeakKeyDictionary()
        """For each pod: it is not started while it is being ended."""
        self._wake: threading.Timer | None = None
        """Decides again when a pod has been ready for long enough."""
        self.unplaced: Mapping[Owner, Unplaced] = {}
        """ReplicaSet or DaemonSet → why no node accepts another of its pods."""
        self._progress: Mapping[ObjectKey, Progress] = {}
        """Each Deployment's progress at the last decision."""

    def start(self, wanted: Iterable[PodOwner]) -> None:
        """Want these, and decide about everything from now on."""
        with self.deciding:
            for one in wanted:
                self.want(one)
        self._pods.changed.subscribe("workloads", self.decide)

    def want(self, wanted: PodOwner) -> None:
        """Set it as desired, or change it. Call it under `deciding`."""
        if isinstance(wanted, ReplicaSet):
            before = self.sets.get(wanted.key)
            kept = KeptSet(wanted, now()) if before is None else replace(before, wanted=wanted)
            self.sets = {**self.sets, wanted.key: kept}
            return
        if isinstance(wanted, Deployment):
            self.deployments[wanted.key] = wanted
        elif isinstance(wanted, DaemonSet):
            self.daemon_sets[wanted.key] = wanted
        self.created_at.setdefault(wanted.owner, now())

    def forget(self, owner: Owner, grace_s: float | None) -> None:
        """Remove it, end all its pods and return when they are gone. Raises KeyError."""
        with self.deciding:
            pods = self.pods_of(owner)
            if owner.kind == "ReplicaSet":
                gone = {self.sets[owner.key].key}
            elif owner.kind == "Deployment":
                del self.deployments[owner.key]
                gone = {one.key for one in self.sets_of(owner.key)}
            else:
                del self.daemon_sets[owner.key]
                gone = set()
            self.sets = {key: one for key, one in self.sets.items() if key not in gone}
            self.created_at.pop(owner, None)
            for pod in pods:
                _begin_end(pod, grace_s)
        self.look()
        for pod in pods:
            self.end_soon(pod, grace_s)
        for pod in pods:
            # Waits for the thread that ends it.
            self.end(pod, grace_s)

    def look(self) -> None:
        """Decide soon: the desired state changed."""
        self._pods.changed.notify()

    def owner_of(self, pod: ObjectKey) -> Owner | None:
        """Return the ReplicaSet or DaemonSet that a pod belongs to."""
        owned = self._owned.get(pod)
        return owned.owner if owned else None

    def created_at_of(self, owner: Owner) -> str | None:
        """Return when it was created; None if it does not exist."""
        if owner.kind == "ReplicaSet":
            kept = self.sets.get(owner.key)
            return kept.created_at if kept else None
        return self.created_at.get(owner)

    def owners(self) -> list[PodOwner]:
        """Return everything that makes pods of a template."""
        sets = [one.wanted for one in self.sets.values()]
        return [*list(self.deployments.values()), *sets, *list(self.daemon_sets.values())]

    def sets_of(self, deployment: ObjectKey) -> list[KeptSet]:
        """Return the ReplicaSets of a Deployment, newest revision first."""
        own = [one for one in self.sets.values() if one.deployment == deployment]
        return sorted(own, key=lambda one: -one.revision)

    def pods_of(self, owner: Owner) -> list[Pod]:
        """Return its pods, of a Deployment those of all its ReplicaSets; those that are ending included."""
        owners = {owner, *(one.wanted.owner for one in self.sets_of(owner.key) if owner.kind == "Deployment")}
        return [pod for pod in self._pods if self.owner_of(pod.key) in owners]

    def seen_pods(self) -> list[SeenPod]:
        """Return every pod of the lab as it is now."""
        seen = []
        for pod in self._pods:
            owned = self._owned.get(pod.key)
            status = pod.status()
            seen.append(
                SeenPod(
                    pod.key,
                    owned.owner if owned else None,
                    owned.template_hash if owned else "",
                    status.node,
                    status.ready,
                    status.terminating,
                    owned.number if owned else 0,
                    self._held_ports(pod, status),
                    status.ready and self._missing_s(pod, owned) <= 0,
                )
            )
        for key, manifest in list(self.bare.items()):
            if self._pods.get(key) is None:
                # Applied a moment ago: it uses its resources already.
                node, ports = manifest.spec.node_name or "", host_ports(manifest.spec)
                seen.append(SeenPod(key, None, "", node, False, False, 0, ports))
        return seen

    def _held_ports(self, pod: Pod, status: PodStatus) -> frozenset[TakenPort]:
        """Return the host ports that no other pod on its node may have: none once it has completed."""
        node = self._nodes.get(status.node)
        # CNI plugins keep theirs until it is deleted; containers that ended with their sandbox or node run again.
        may_be_freed = (node is None or node.cni is None) and status.pause_pid is not None and not status.terminating
        if may_be_freed and has_completed(pod.manifest.spec.restart_policy, status.phase):
            return frozenset()
        return host_ports(pod.manifest.spec)

    def seen_nodes(self) -> list[SeenNode]:
        """Return every node of the lab as it is now."""
        return [
            SeenNode(
                node.name,
                open=node.expected,
                leaving=node.name in self.leaving,
                cordoned=node.name in self.cordoned,
                labels=node.labels,
            )
            for node in self._nodes.values()
            if node.name not in self.closed
        ]

    def close(self, node: str) -> None:
        """Let the node accept no pod; decisions in progress have ended."""
        with self.deciding:
            self.closed.add(node)

    def is_open(self, node: str) -> bool:
        """Return whether the node exists and is not being added or removed. Ask it under `deciding`."""
        return node in self._nodes and node not in self.closed

    def report_lost(self, pod: ObjectKey, node: str) -> None:
        """Report that a pod without an owner is deleted together with its node."""
        self._events.note("Warning", f"pod/{pod}", "NodeDeleted", f"{node} is deleted, and the pod has no controller")

    def decide(self) -> None:
        """Take the next actions for everything that creates pods."""
        ending, waiting = self._decide()
        # Not under `deciding`: while no thread can be started, a pod must still be deletable.
        for pod in ending:
            self.end_soon(pod)
        self._wake_up(waiting)

    def _decide(self) -> tuple[list[Pod], list[SeenPod]]:
        """Return pods that are to be ended, and those that are ready and not available yet."""
        with self.deciding:
            if not self.deployments and not self.sets and not self.daemon_sets and not self._owned:
                return [], []
            wanted = WantedObjects(self.deployments, self.sets, self.daemon_sets)
            pods, nodes = self.seen_pods(), self.seen_nodes()
            decision = reconcile(wanted, pods, nodes, now())
            seen = Seen(by_owner(pods), nodes)
            self.sets = decision.sets
            for one in decision.scaled:
                self._events.note("Normal", f"deployment/{one.deployment}", "ScalingReplicaSet", str(one))
            ending = [pod for action in decision.actions if (pod := self._act(action)) is not None]
            self._report_unplaced([action for action in decision.actions if isinstance(action, CannotPlace)])
            self._owned = {key: owned for key, owned in self._owned.items() if self._pods.get(key) is not None}
            self._progress = {key: self.progress(one, seen) for key, one in self.deployments.items()}
            return ending, [pod for pod in pods if pod.ready and not pod.available]

    def seen(self) -> Seen:
        """Return every pod, by owner, and every node as they are now."""
        return Seen(by_owner(self.seen_pods()), self.seen_nodes())

    def progress(self, deployment: Deployment, seen: Seen) -> Progress:
        """Return how far a Deployment is."""
        sets = self.sets_of(deployment.key)
        numbers = deployment_numbers(deployment, sets, seen.pods, seen.nodes)
        return progress_of(deployment, sets, numbers, self.unplaced, self._progress.get(deployment.key), time.time())

    def _act(self, action: Action) -> Pod | None:
        """Carry out the action; return the pod that is to be ended."""
        if isinstance(action, CreatePod):
            self._create(action.owner, action.node)
        elif isinstance(action, DeletePod) and (pod := self._pods.get(action.pod)) is not None:
            owner = self.owner_of(action.pod)
            self._events.note("Normal", f"{owner}", "SuccessfulDelete", f"Deleted pod: {action.pod} ({action.why})")
            pod.mark_terminating()
            return pod
        return None

    def _missing_s(self, pod: Pod, owned: Owned | None) -> float:
        """Return for how many more seconds a ready pod must be ready to count as available."""
        wanted = self._wanted(owned.owner) if owned else None
        if wanted is None or not wanted.spec.min_ready_seconds:
            return 0.0
        since = self._pods.times(pod).ready
        seconds = time.monotonic() - since.monotonic if since is not None and since.holds else 0.0
        return wanted.spec.min_ready_seconds - seconds

    def _wanted(self, owner: Owner) -> ReplicaSet | DaemonSet | None:
        if owner.kind == "DaemonSet":
            return self.daemon_sets.get(owner.key)
        kept = self.sets.get(owner.key)
        return kept.wanted if kept else None

    def _wake_up(self, ready: Iterable[SeenPod]) -> None:
        """Decide again when the next of these, which are ready, becomes available."""
        pods = [pod for one in ready if (pod := self._pods.get(one.key)) is not None]
        missing = [self._missing_s(pod, self._owned.get(pod.key)) for pod in pods]
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if missing:
            self._wake = threading.Timer(min(missing), self._pods.changed.notify)
            self._wake.daemon = True
            start_when_possible(self._wake)

    def launch(self, pod: Pod) -> None:
        """Register the pod, and build it soon; retry while it is desired."""
        self._pods.add(pod)
        self._starters.submit(self._build, pod, FIRST_RETRY_S)

    def build_later(self, pod: Pod) -> None:
        """Build a registered pod, whose first try failed, after a pause; retry while it is desired."""
        self._try_again(pod, FIRST_RETRY_S)

    def end_soon(self, pod: Pod, grace_s: float | None = None) -> None:
        """End the pod, with its grace period, in a new thread."""
        _begin_end(pod, grace_s)
        in_background(f"end {pod.name}", partial(self._finish_end, pod, grace_s))

    def end(self, pod: Pod, grace_s: float | None = None) -> None:
        """End the pod; return when it is gone. A second call waits for the first, whose grace period it may shorten."""
        _begin_end(pod, grace_s)
        self._finish_end(pod, grace_s)

    def _finish_end(self, pod: Pod, grace_s: float | None) -> None:
        with self._lane(pod):
            if self._pods.get(pod.key) is pod:
                self._end(pod, grace_s)

    def _end(self, pod: Pod, grace_s: float | None) -> None:
        """End it in the order that loses no request: no node sends to it any more, then TERM, then the grace."""
        # Notify in any case: the pod's own report reaches the pod watch first, and we must not wait for that.
        late = self._pods.changed.notify_and_wait(ROUTES_LIMIT_S)
        users = [f"{name} may still send to the pod after {ROUTES_LIMIT_S:g} s" for name in late]
        users += [f"a node may still send to the pod ({why})" for why in self._why_not_written()]
        for user in users:
            self._events.note("Warning", f"pod/{pod.name}", "StillUsed", f"{user}; it is terminated anyway")
        if grace_s is None or grace_s > 0:
            time.sleep(UNDER_WAY_S)
        pod.delete(grace_s)
        self._pods.forget(pod)

    def _create(self, owner: Owner, node: str) -> None:
        wanted = self._wanted(owner)
        if wanted is None:
            return
        while True:
            key = ObjectKey(owner.key.namespace, generated_name(owner.key.name, self._suffix()))
            if self._pods.get(key) is None:
                break
        template, template_hash = _labelled(wanted)
        self._owned[key] = Owned(owner, template_hash, next(self._numbers))
        self._events.note("Normal", f"{owner}", "SuccessfulCreate", f"Created pod: {key} ({node})")
        self.launch(self._pods.make(pod_of(template, key, node)))

    def _suffix(self) -> str:
        return "".join(self._random.choices(SUFFIX_LETTERS, k=SUFFIX_LENGTH))

    def _build(self, pod: Pod, retry_s: float) -> None:
        with self._lane(pod):
            if self._pods.get(pod.key) is not pod or pod.status().terminating:
                return
            try:
                pod.start()
                return
            except OSError as failure:
                self._events.note("Warning", f"pod/{pod.name}", "FailedCreate", str(failure))
        self._try_again(pod, retry_s)

    def _try_again(self, pod: Pod, retry_s: float) -> None:
        again = threading.Timer(retry_s, self._starters.submit, (self._build, pod, min(LONGEST_RETRY_S, 2 * retry_s)))
        again.daemon = True
        start_when_possible(again)

    def _lane(self, pod: Pod) -> threading.Lock:
        with self.deciding:
            return self._lanes.setdefault(pod, threading.Lock())

    def _report_unplaced(self, found: Sequence[CannotPlace]) -> None:
        latest: dict[Owner, Unplaced] = {}
        for owner, why in {action.owner: action.why for action in found}.items():
            before = self.unplaced.get(owner)
            if before is None or before.why != why:
                self._events.note("Warning", f"{owner}", "FailedScheduling", f"no node accepts another pod: {why}")
            latest[owner] = Unplaced(why, before.since if before else time.time())
        self.unplaced = latest


def _labelled(wanted: ReplicaSet | DaemonSet) -> tuple[PodTemplate, str]:
    """Return the template with the labels that its pods have besides, and its hash."""
    template = wanted.spec.template
    if isinstance(wanted, ReplicaSet):
        return template, wanted.template_hash
    template_hash = template.hash
    return template.with_labels({REVISION_HASH: template_hash}), template_hash


def _begin_end(pod: Pod, grace_s: float | None) -> None:
    if pod.leaves and grace_s is not None:
        pod.shorten_grace(grace_s)
    pod.mark_terminating()
