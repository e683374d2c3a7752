"""Checks a lab until it is ready again after faults have ended: cheap checks first, packets last."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from agent.errors import AgentError
from testbed.cluster.underlay_plan import GATEWAY
from testbed.dns.names import Names
from testbed.errors import EtcdFailed, TestbedError
from testbed.faults.catalogue import FaultRequest
from testbed.faults.recovery import NotReady, Touched, awaited
from testbed.lab.ping import PingSender, PingTarget, ping_pairs
from testbed.lab.sessions import missing_sessions
from testbed.lab.state import LabState
from testbed.services.services import Services

ASKERS = 4
"""Nodes queried at the same time."""
SUCCEEDED = "Succeeded"
STEADY_S = 10
"""A restarted container counts as stable after this time."""


class LabRecovery:
    """Checks one lab."""

    def __init__(self, state: LabState, names: Names, services: Services) -> None:
        self._state = state
        self._names = names
        self._services = services

    def before(self, request: FaultRequest) -> Touched:
        """Return what the new fault may break: a pod that crashes anyway is not attributed to it."""
        words = [word for value in request.values for word in (value if isinstance(value, tuple) else (str(value),))]
        machines = {word for word in words if word in self._state.underlay.machines}
        group = request.kind.name.split()[0]
        if group == "etcd":
            # The word may be leader or follower, and members depend on each other.
            machines |= {member.name for member in self._state.registry.etcd.members}
        if group == "dns":
            machines.add(GATEWAY)
        return Touched(frozenset(machines), frozenset([*(one.subject for one in self._pods()), *self._crashing()]))

    def missing(self, ended: Sequence[Touched], *, others: bool) -> list[str]:
        """Return what the end of these faults has not restored yet, one line each."""
        # Each depends on those before it, and costs more.
        stages: tuple[Callable[[], Iterator[NotReady]], ...] = (self._parts, self._leases, self._tables, self._paths)
        try:
            for look in stages:
                if waiting := awaited(list(look()), ended, others=others):
                    return [str(one) for one in waiting]
        except (OSError, TestbedError, AgentError, RuntimeError) as failure:
            # Something is just restarting, or a pod uses every process that the machine allows.
            return [str(failure)]
        return []

    def _parts(self) -> Iterator[NotReady]:
        for member in self._state.registry.etcd.members:
            if why := member.why_not_healthy():
                yield NotReady("etcd", member.name, why)
        nodes = [node for node in self._state.nodes.values() if node.expected]
        with ThreadPoolExecutor(ASKERS, "ask node") as askers:
            for node, missing in zip(nodes, askers.map(lambda one: one.why_not_ready(), nodes), strict=True):
                if missing:
                    yield NotReady(node.name, node.name, missing)
        yield from self._pods()
        for why in self._names.why_not_served():
            yield NotReady("names", GATEWAY, why)
        for why in self._services.why_not_programmed():
            yield NotReady("services", None, why)

    def _pods(self) -> Iterator[NotReady]:
        for pod in self._state.pods:
            status = pod.status()
            # A container that ended with its node may look like a completed one.
            has_done_its_work = status.phase == SUCCEEDED and not status.terminating
            if not status.ready and not pod.leaves and not has_done_its_work:
                yield NotReady(f"pod {pod.name}", status.node, status.why_not_ready or status.state)

    def _crashing(self) -> Iterator[str]:
        """Yield recently restarted pods: one that keeps crashing is ready for a moment each time."""
        now = datetime.now(UTC)
        for pod in self._state.pods:
            restarted = [one.started_at for one in pod.status().containers if one.restarts and one.started_at]
            if any((now - datetime.fromisoformat(at)).total_seconds() < STEADY_S for at in restarted):
                yield f"pod {pod.name}"

    def _leases(self) -> Iterator[NotReady]:
        try:
            held = {lease.attrs.public_ip for lease in self._state.registry.leases()}
        except EtcdFailed as failure:
            yield NotReady("etcd", None, str(failure))
            return
        for node in self._state.nodes.values():
            if node.expected and node.address not in held:
                yield NotReady(node.name, node.name, "it holds no lease")

    def _tables(self) -> Iterator[NotReady]:
        for line in self._state.missing_forwarding():
            name = line.partition("'")[0]
            yield NotReady("forwarding", name if name in self._state.nodes else None, line)

    def _paths(self) -> Iterator[NotReady]:
        """Yield nodes that do not reach the gateway: the spanning tree may hold back a reconnected cable
        for seconds.
        """
        state = self._state
        nodes = [node for node in state.nodes.values() if node.expected]
        names = [*(node.name for node in nodes), *(member.name for member in state.registry.etcd.members)]
        gateway = PingTarget(GATEWAY, state.underlay.address_of(GATEWAY))
        pairs = [(PingSender(name, state.underlay.machines[name].pid), gateway) for name in names]
        for one in ping_pairs(pairs):
            if not one.received:
                yield NotReady(one.source, one.source, f"no reply from {GATEWAY} to {one.address} on the underlay")
        for line in missing_sessions(nodes) if state.overlay.has_sessions else ():
            yield NotReady("sessions", None, line)
