"""What shall run in the lab, and the one place that makes pods run and end while the lab lives.

    keepers (apply, delete, scale) ──> wanted pods and Deployments ──┐
    pods_changed ────────────────────────────────────────────────────┴─> reconcile (pure) ──> start and end pods

Decisions are taken in one thread, the subscriber of `pods_changed`. Starting and ending take time and have threads of
their own; what they bring about is the next change.
"""

import random
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

from testbed.cluster.deployment import Deployment
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.placement import SeenNode, host_ports
from testbed.lab.clock import now
from testbed.lab.events import Events
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod import Pod
from testbed.workloads.reconcile import CannotPlace, CreatePod, DeletePod, SeenPod, reconcile

ROUTES_LIMIT_S = 3.0
"""How long services may take to forget the pod; an event names one that takes longer."""
UNDER_WAY_S = 0.2
"""For requests that were on their way when the last node forgot the pod: to arrive, and to be answered."""
STARTERS = 4
"""Pods that are built at the same time."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 10.0
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""As in Kubernetes: no vowels, so that no words come about, and nothing that looks like something else."""
SUFFIX_LENGTH = 5


class Owned(NamedTuple):
    """Where a pod of a Deployment comes from."""

    deployment: ObjectKey
    template_hash: str
    number: int
    """Grows with every pod made."""


class Workloads:
    """Wanted pods and Deployments, and what is done about them."""

    def __init__(self, nodes: Nodes, pods: Pods, events: Events) -> None:
        self._nodes = nodes
        self._pods = pods
        self._events = events
        self.deployments: dict[ObjectKey, Deployment] = {}
        """As wanted. Changed under `deciding` only."""
        self.created_at: dict[ObjectKey, str] = {}
        """When each Deployment was wanted first."""
        self.bare: dict[ObjectKey, PodManifest] = {}
        """Wanted pods that belong to no Deployment, each on its node. Changed under `deciding` only."""
        self.leaving: set[str] = set()
        """Nodes that are drained or about to be deleted."""
        self.deciding = threading.RLock()
        self._owned: dict[ObjectKey, Owned] = {}
        self._numbers = count(1)
        self._random = random.Random()
        self._starters = ThreadPoolExecutor(STARTERS, "start pod")
        self._lanes: weakref.WeakKeyDictionary[Pod, threading.Lock] = weakref.WeakKeyDictionary()
        """Of each pod: it is not started while it is ended."""
        self.why_not_placed: dict[ObjectKey, str] = {}
        """Deployment → why no node takes another pod of it."""

    def start(self, deployments: Sequence[Deployment]) -> None:
        """Want these, and see to everything from now on."""
        with self.deciding:
            self.deployments |= {deployment.key: deployment for deployment in deployments}
            self.created_at |= dict.fromkeys(self.deployments, now())
        self._pods.changed.subscribe("workloads", self.decide)

    def owner_of(self, pod: ObjectKey) -> ObjectKey | None:
        """The Deployment that a pod belongs to."""
        owned = self._owned.get(pod)
        return owned.deployment if owned else None

    def pods_of(self, deployment: ObjectKey) -> list[Pod]:
        """Its pods, those that are ending included."""
        return [pod for pod in self._pods if self.owner_of(pod.key) == deployment]

    def seen_pods(self) -> list[SeenPod]:
        """Every pod of the lab as it is now."""
        seen = []
        for pod in self._pods:
            owned = self._owned.get(pod.key)
            status = pod.status()
            seen.append(
                SeenPod(
                    pod.key,
                    owned.deployment if owned else None,
                    owned.template_hash if owned else "",
                    status.node,
                    status.ready,
                    status.terminating,
                    owned.number if owned else 0,
                    host_ports(pod.manifest.spec),
                )
            )
        for key, manifest in self.bare.items():
            if self._pods.get(key) is None:
                # Wanted a moment ago: it takes its room already.
                node, ports = manifest.spec.node_name or "", host_ports(manifest.spec)
                seen.append(SeenPod(key, None, "", node, False, False, 0, ports))
        return seen

    def seen_nodes(self) -> list[SeenNode]:
        """Every node of the lab as it is now."""
        return [
            SeenNode(node.name, node.expected, node.name in self.leaving, node.labels) for node in self._nodes.values()
        ]

    def decide(self) -> None:
        """Do what is to be done now about Deployments."""
        with self.deciding:
            if not self.deployments and not self._owned:
                return
            actions = reconcile(list(self.deployments.values()), self.seen_pods(), self.seen_nodes())
            for action in actions:
                if isinstance(action, CreatePod):
                    self._create(self.deployments[action.deployment], action.node)
                elif isinstance(action, DeletePod) and (pod := self._pods.get(action.pod)) is not None:
                    owner = self.owner_of(action.pod)
                    self._event("Normal", f"deployment/{owner}", "PodDeleted", f"pod {action.pod} ends: {action.why}")
                    self.end_soon(pod)
            self._tell_what_cannot_be([action for action in actions if isinstance(action, CannotPlace)])
            self._owned = {key: owned for key, owned in self._owned.items() if self._pods.get(key) is not None}

    def launch(self, pod: Pod) -> None:
        """Let the pod be known, and build it soon; it is tried again and again while it is wanted."""
        self._pods.add(pod)
        self._starters.submit(self._build, pod, FIRST_RETRY_S)

    def end_soon(self, pod: Pod) -> None:
        """End the pod, with its grace, in a thread of its own."""
        pod.mark_terminating()
        threading.Thread(target=self.end, args=(pod,), name=f"end {pod.name}", daemon=True).start()

    def end(self, pod: Pod, grace_s: float | None = None) -> None:
        """End the pod; returns when it is gone. A second call waits for the first."""
        pod.mark_terminating()
        with self._lane(pod):
            if self._pods.get(pod.key) is pod:
                self._end(pod, grace_s)

    def _end(self, pod: Pod, grace_s: float | None) -> None:
        """In the order that loses no request: no node sends to it any more, then TERM, then the grace."""
        # Notified in any case: the pod's own word wakes the pod watch first, and we must not wait for that.
        for name in self._pods.changed.notify_and_wait(ROUTES_LIMIT_S):
            why = f"{name} may still send to the pod after {ROUTES_LIMIT_S:g} s; it is ended all the same"
            self._event("Warning", f"pod/{pod.name}", "StillUsed", why)
        if grace_s is None or grace_s > 0:
            time.sleep(UNDER_WAY_S)
        pod.delete(grace_s)
        self._pods.forget(pod)

    def _create(self, deployment: Deployment, node: str) -> None:
        prefix = f"{deployment.name}-{deployment.template_hash}"
        while self._pods.get(key := ObjectKey(deployment.metadata.namespace, f"{prefix}-{self._suffix()}")) is not None:
            pass
        self._owned[key] = Owned(deployment.key, deployment.template_hash, next(self._numbers))
        self._event("Normal", f"deployment/{deployment.key}", "PodCreated", f"pod {key} on {node}")
        self.launch(self._pods.make(deployment.pod(key.name, node)))

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
                self._event("Warning", f"pod/{pod.name}", "FailedCreate", str(failure))
        again = threading.Timer(retry_s, self._starters.submit, (self._build, pod, min(LONGEST_RETRY_S, 2 * retry_s)))
        again.daemon = True
        again.start()

    def _lane(self, pod: Pod) -> threading.Lock:
        with self.deciding:
            return self._lanes.setdefault(pod, threading.Lock())

    def _tell_what_cannot_be(self, found: Sequence[CannotPlace]) -> None:
        now = {action.deployment: action.why for action in found}
        for key, why in now.items():
            if self.why_not_placed.get(key) != why:
                self._event("Warning", f"deployment/{key}", "FailedScheduling", f"no node takes another pod: {why}")
        self.why_not_placed = now

    def _event(self, kind: str, subject: str, reason: str, message: str) -> None:
        self._events.note(kind, subject, reason, message)
