"""The lab's side of `testbed fault …`."""

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from testbed.cluster.underlay_plan import GATEWAY
from testbed.control.answers.faults import FaultAnswer, HealAnswer
from testbed.control.answers.lab import EndedAnswer
from testbed.control.programs import run_for_client
from testbed.control.questions import FAULT, FAULTS, HEAL, HEARTBEAT, RESOURCES
from testbed.control.server import AnyVerb, Request, Verb
from testbed.dns.names import Names
from testbed.errors import TestbedError
from testbed.faults.agent_faults import AgentFaults
from testbed.faults.catalogue import HEAL_LIMIT_S
from testbed.faults.certificate_faults import CertificateFaults
from testbed.faults.dns_faults import DnsFaults
from testbed.faults.etcd_faults import EtcdFaults
from testbed.faults.explain import Loss, Paths, explain
from testbed.faults.lab_recovery import LabRecovery
from testbed.faults.lease_faults import LeaseFaults
from testbed.faults.ledger import Ledger
from testbed.faults.link_faults import LinkFaults
from testbed.faults.node_faults import NodeFaults
from testbed.faults.partition_faults import PartitionFaults
from testbed.faults.resources import count_resources
from testbed.lab.events import Events
from testbed.lab.state import LabState
from testbed.pods.pod import Pod
from testbed.services.services import Services

HISTORY = "faults.jsonl"
"""File in the lab's directory."""


def ledger_of(state: LabState, names: Names, services: Services, build_later: Callable[[Pod], None]) -> Ledger:
    """Make the list of a lab's faults, which knows how each is injected.

    `build_later` retries a pod until it is built.
    """
    nodes, pods, underlay, registry, events = state.nodes, state.pods, state.underlay, state.registry, state.events
    groups = (
        CertificateFaults(nodes, registry.authority),
        AgentFaults(nodes),
        EtcdFaults(registry, lambda: state.cluster),
        LeaseFaults(nodes, registry),
        LinkFaults(underlay),
        PartitionFaults(underlay, nodes, lambda: registry.etcd),
        NodeFaults(nodes, pods, underlay, events, state.pin, build_later),
        DnsFaults(names),
    )
    injectors = {name: injector for group in groups for name, injector in group.injectors().items()}
    recovery = LabRecovery(state, names, services)
    return Ledger(injectors, state.directory / HISTORY, recovery, partial(_note_end, events))


def fault_verbs(state: LabState, ledger: Ledger) -> Sequence[AnyVerb]:
    """Return the verbs."""
    verbs = FaultVerbs(ledger, state.events)
    return (
        Verb(FAULT, verbs.inject),
        Verb(FAULTS, verbs.active, changes=False),
        Verb(HEAL, verbs.heal),
        Verb(HEARTBEAT, verbs.heartbeat),
        Verb(RESOURCES, lambda _: count_resources(state.nodes, state.pods, state.registry.etcd), changes=False),
    )


def explained_by(state: LabState, ledger: Ledger, losses: Iterable[Loss] | None) -> list[str]:
    """Return a sentence for each active fault that can explain one of the losses; None: whatever is lost."""
    active = ledger.active()
    return explain(active, losses, _paths(state)) if active else []


def _paths(state: LabState) -> Paths:
    plan = state.underlay.plan
    pods = {pod.name: str(pod.manifest.spec.node_name) for pod in state.pods}
    return Paths(
        machine_of={name: name for name in plan.machines} | pods,
        cables={frozenset(cable.ends) for cable in plan.cables},
        routers=frozenset(name for name, machine in plan.machines.items() if machine.forwards and name != GATEWAY),
        etcd=frozenset(member.name for member in state.registry.etcd.members),
        gateway=GATEWAY,
    )


class FaultVerbs:
    """Takes requests and returns JSON; each action is also an event of the lab."""

    def __init__(self, ledger: Ledger, events: Events) -> None:
        self._ledger = ledger
        self._events = events

    def inject(self, request: Request) -> FaultAnswer:
        """Inject a fault."""
        words = request.argument("words", list, [])
        lasts_s = request.argument("lasts_s", float)
        try:
            fault = self._ledger.inject([str(word) for word in words], lasts_s)
        except TestbedError as failure:
            raise failure.within("fault") from failure
        self._events.note("Warning", f"fault/{fault['number']}", "Injected", f"{fault['fault']}: {fault['did']}")
        return fault

    def active(self, _request: Request) -> list[FaultAnswer]:
        """Return the active faults."""
        return self._ledger.active()

    def heartbeat(self, request: Request) -> EndedAnswer:
        """Send numbered datagrams between these pods, and report them on the client's standard output
        until it leaves.
        """
        pods, period_s = request.argument("pods", dict, {}), request.argument("period_s", float, 0.1)
        words = [f"{name}={address}" for name, address in pods.items()]
        return run_for_client(request, [sys.executable, "-m", "testbed.faults.heartbeat", str(period_s), *words])

    def heal(self, request: Request) -> list[HealAnswer]:
        """Heal some or all; return when everything they broke is ready again, or after the limit."""
        numbers, limit_s = request.argument("numbers", list), request.argument("limit_s", float, HEAL_LIMIT_S)
        chosen = None if numbers is None else [int(number) for number in numbers]
        try:
            return self._ledger.heal(chosen, limit_s, request.client_left)
        except TestbedError as failure:
            raise failure.within("fault heal") from failure


def _note_end(events: Events, ended: HealAnswer) -> None:
    kind, reason = ("Normal", "Healed") if ended["healed"] else ("Warning", "NotHealed")
    subject = f"fault/{ended['number']}"
    events.note(kind, subject, reason, f"{ended['fault']}: {ended['did']}")
    if ended["missing"]:
        what = f"{ended['fault']}: not ready {ended['took_s']:.0f} s after its end: {'; '.join(ended['missing'])}"
        events.note("Warning", subject, "NotReady", what)
