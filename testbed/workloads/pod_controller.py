"""Pods applied by users: created, changed and removed by name."""

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from testbed.cluster.free_values import free_name
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.placement import Placed, place_all
from testbed.cluster.pod_checks import check_names
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.lab.underlay import LabUnderlay
from testbed.processes.threads import in_background
from testbed.workloads.controller import DELETED, Outcome, outcome_of
from testbed.workloads.workloads import Workloads


class PodController:
    """The controller of kind Pod."""

    def __init__(self, workloads: Workloads, nodes: Nodes, pods: Pods, underlay: LabUnderlay) -> None:
        self._workloads = workloads
        self._nodes = nodes
        self._pods = pods
        self._underlay = underlay
        self._turns: weakref.WeakValueDictionary[ObjectKey, threading.Lock] = weakref.WeakValueDictionary()
        """For each pod that threads update or wait to update: one thread at a time does."""
        self._chosen: dict[ObjectKey, str] = {}
        """Pod → the node that the last check found for it."""

    def wanted(self) -> Mapping[ObjectKey, PodManifest]:
        """Return pods without an owner, each on its node."""
        return dict(self._workloads.bare)

    def check(self, applied: Sequence[tuple[Source, PodManifest]]) -> Iterator[Problem]:
        """Check names, nodes, and free host ports."""
        yield from check_names(applied, None, list(self._nodes), self._underlay.machines)
        for source, pod in applied:
            owner = self._workloads.owner_of(pod.key)
            if owner is not None:
                other = free_name(pod.name, {one.name for _, one in applied})
                what = f"a pod of {owner} has this name (got {pod.name}; want another, such as {other})"
                yield source.problem(("metadata", "name"), what)
        kept = [pod if pod.spec.node_name else pod.on_node(self._node_of(pod.key)) for _, pod in applied]
        keys = {pod.key for pod in kept}
        others = [
            Placed(pod.node, pod.owner, pod.host_ports) for pod in self._workloads.seen_pods() if pod.key not in keys
        ]
        placed = place_all([pod.spec for pod in kept], self._workloads.seen_nodes(), others)
        self._chosen = {}
        for (source, pod), (node, why) in zip(applied, placed, strict=True):
            if node is not None:
                self._chosen[pod.key] = node
            elif pod.spec.node_name is None or pod.spec.node_name in self._nodes:
                yield source.problem(("spec",), f"no node takes this pod (got {why}; want a node with room)")

    def _node_of(self, key: ObjectKey) -> str | None:
        """Return the node that the pod is already on."""
        before = self._workloads.bare.get(key)
        return before.spec.node_name if before else None

    def warnings(self, applied: Sequence[tuple[Source, PodManifest]]) -> Iterator[Problem]:
        """Return none: possible mistakes are refused here."""
        return iter(())

    def outcome(self, wanted: PodManifest) -> Outcome:
        """Return what `put` would do."""
        return outcome_of(self._workloads.bare.get(wanted.key), self._placed(wanted))

    def put(self, wanted: PodManifest) -> Outcome:
        """Store this pod, for which `check` has just found a node.

        A change of more than labels and annotations recreates the pod. If the node has been deleted since, so is the
        pod.
        """
        with self._workloads.deciding:
            outcome = self.outcome(wanted)
            if outcome == "unchanged":
                return outcome
            if not self._workloads.is_open(node := self._chosen[wanted.key]):
                self._workloads.report_lost(wanted.key, node)
                return outcome
            self._workloads.bare[wanted.key] = self._placed(wanted)
        in_background(f"pod {wanted.key}", partial(self._bring_about, wanted.key))
        return outcome

    def _placed(self, wanted: PodManifest) -> PodManifest:
        return wanted.on_node(self._chosen[wanted.key])

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """End the pod and wait until it is gone; one with an owner is replaced. Raises KeyError."""
        pod = self._pods.get(key)
        with self._workloads.deciding:
            if pod is None and key not in self._workloads.bare:
                raise KeyError(key)
            bare = self._workloads.bare.pop(key, None)
        if bare is not None:
            if pod is not None and pod.leaves and grace_s is not None:
                # An `apply` is replacing it, and has its turn until it is gone.
                pod.shorten_grace(grace_s)
            self._bring_about(key, grace_s)
        elif pod is not None:
            self._workloads.end(pod, grace_s)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what the pod is missing; a completed one is ready."""
        pod, wanted = self._pods.get(key), self._workloads.bare.get(key)
        if wanted is None:
            return f"{DELETED}, or together with its node"
        if pod is None or pod.manifest != wanted:
            return "not created yet"
        status = pod.status()
        return "" if status.ready or status.phase == "Succeeded" else status.why_not_ready

    def _turn(self, key: ObjectKey) -> threading.Lock:
        with self._workloads.deciding:
            return self._turns.setdefault(key, threading.Lock())

    def _bring_about(self, key: ObjectKey, grace_s: float | None = None) -> None:
        # Named, since only those that use it keep it.
        turn = self._turn(key)
        with turn:
            while True:
                pod, wanted = self._pods.get(key), self._workloads.bare.get(key)
                if pod is not None and wanted is not None and not pod.status().terminating:
                    if pod.manifest == wanted:
                        return
                    if pod.manifest.spec == wanted.spec:
                        pod.relabel(wanted)
                        self._pods.changed.notify()
                        return
                if pod is not None:
                    self._workloads.end(pod, grace_s)
                    continue
                if wanted is not None:
                    self._workloads.launch(self._pods.make(wanted))
                return
