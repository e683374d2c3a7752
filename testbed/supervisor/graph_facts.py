"""The facts for a picture of a running lab: machines, switches, cables, interfaces with their counters, nodes, pods.

The answer of the control socket's verb `graph`, as plain data; docs/reference.md has its fields. `testbed graph` and
`testbed ui` draw it, `testbed.graph.model` reads it.
"""

from collections.abc import Mapping
from pathlib import Path

from agent.errors import AgentError
from agent.kernel.kernel import Kernel
from agent.netconfig.backend_options import UDP_PORT
from testbed.cluster.underlay_plan import GATEWAY, MachinePlan
from testbed.control.answers.graph import (
    CableFacts,
    DeviceFacts,
    GraphAnswer,
    InterfaceCounters,
    InterfaceFacts,
    MachineFacts,
    MachineKind,
    NodeFacts,
    SwitchFacts,
)
from testbed.control.answers.lab import EtcdMemberStatus, NodeStatus
from testbed.lab.clock import now
from testbed.lab.machines import OverlayNode
from testbed.lab.node import AgentState, LabNode
from testbed.lab.pods import Pods
from testbed.lab.state import LabState
from testbed.lab.underlay import LabUnderlay
from testbed.supervisor import status
from testbed.supervisor.lab import Lab

NO_PACKETS = InterfaceCounters(rx_bytes=0, rx_packets=0, rx_dropped=0, tx_bytes=0, tx_packets=0, tx_dropped=0)


def graph_facts(lab: Lab) -> GraphAnswer:
    """Return everything that the picture of a lab shows. Unreadable parts (a node that is just dying) are omitted."""
    state = lab.state
    states = {node.name: node.state() for node in state.nodes.values()}
    whole = status.lab_status(lab, states)
    etcd = {member["name"]: member for member in whole["etcd"]}
    machines = state.underlay.machines
    return {
        "lab": state.name,
        "state": whole["state"],
        "at": now(),
        "network": str(state.network.network),
        "port": getattr(state.network.backend, "port", UDP_PORT),
        "machines": [
            _machine(state, plan, machines[plan.name], etcd)
            for plan in state.underlay.plan.machines.values()
            if plan.name in machines
        ],
        "switches": _switches(state.underlay),
        "cables": _cables(state.underlay),
        "nodes": [
            _node(node, line, states[line["name"]] or {})
            for line in whole["nodes"]
            if (node := state.nodes.get(line["name"])) is not None
        ],
        "pods": [{**line, "host_end": _host_end(state.pods, line["name"])} for line in whole["pods"]],
        "services": whole["services"],
    }


def _machine(
    state: LabState, plan: MachinePlan, machine: OverlayNode, etcd: Mapping[str, EtcdMemberStatus]
) -> MachineFacts:
    kind: MachineKind = "router"
    if plan.name == GATEWAY:
        kind = "gateway"
    elif plan.name in state.nodes:
        kind = "node"
    elif plan.name in etcd:
        kind = "etcd"
    addresses = {port.interface: str(port.address) for port in plan.ports}
    facts: MachineFacts = {
        "name": plan.name,
        "kind": kind,
        "healthy": kind != "etcd" or etcd[plan.name]["healthy"],
        "interfaces": interfaces(machine.kernel, machine.pid, addresses),
    }
    if kind == "etcd" and "cluster" in etcd[plan.name]:
        facts["cluster"] = etcd[plan.name]["cluster"]
    return facts


def _switches(underlay: LabUnderlay) -> list[SwitchFacts]:
    found = {one["name"]: one for one in interfaces(underlay.kernel, None, {})}
    return [
        {
            "name": switch.name,
            "up": switch.name in found and found[switch.name]["up"],
            "interfaces": [
                found[port.name] for port in switch.intfList() if port.name in found and port.name != switch.name
            ],
        }
        for switch in underlay.net.switches
    ]


def _cables(underlay: LabUnderlay) -> list[CableFacts]:
    plan = underlay.plan
    waiting: dict[frozenset[str], list[int]] = {}
    for number, cable in enumerate(plan.cables):
        waiting.setdefault(frozenset(cable.ends), []).append(number)
    found: list[CableFacts] = []
    for link in list(underlay.net.links):
        numbers = waiting.get(frozenset({link.intf1.node.name, link.intf2.node.name}))
        if not numbers:
            continue
        number = numbers.pop(0)
        shaping = plan.cables[number].shaping
        found.append(
            {
                "ends": [{"machine": end.node.name, "interface": end.name} for end in (link.intf1, link.intf2)],
                "spare": number in plan.spare,
                "bandwidth_mbit": shaping.bandwidth,
                "delay": shaping.delay,
                "loss_percent": shaping.loss,
            }
        )
    return found


def _host_end(pods: Pods, name: str) -> str | None:
    """Return the node's end of a pod's link; None for a pod with its node's network, or without a known link."""
    pod = pods.named(name)
    return None if pod is None else pod.host_end


def _node(node: LabNode, line: NodeStatus, state: AgentState) -> NodeFacts:
    counters = dict(state.get("counters") or {})
    return {
        **line,
        "bridge_name": node.bridge,
        "bridge": _device(node, node.bridge) if node.bridge else None,
        "overlay": _device(node, line["device"]) if line["device"] else None,
        "why_not_ready": state.get("why_not_ready") or [],
        "forwarding": state.get("forwarding"),
        "drops": counters.pop("drops", {}),
        "traffic": counters,
    }


def _device(node: LabNode, name: str) -> DeviceFacts | None:
    """Return one device of a node with its first address; None while it does not exist."""
    try:
        link = node.kernel.link(name)
        addresses = sorted(node.kernel.addresses(name)) if link else []
    except AgentError:
        return None
    if link is None:
        return None
    address = str(addresses[0]) if addresses else None
    return {"name": name, "kind": link.kind, "address": address, "mtu": link.mtu, "up": link.up}


def interfaces(kernel: Kernel, pid: int | None, addresses: dict[str, str]) -> list[InterfaceFacts]:
    """Return every interface of a network namespace except loopback, with its traffic; `pid` None: our own."""
    try:
        links = kernel.links()
        counters = _counters(Path("/proc/self/net/dev" if pid is None else f"/proc/{pid}/net/dev").read_text())
    except (AgentError, OSError):
        return []
    names = {link.index: link.name for link in links}
    return [
        {
            "name": link.name,
            "kind": link.kind,
            "address": addresses.get(link.name),
            "up": link.up,
            "carrier": link.carrier,
            "mtu": link.mtu,
            "master": names.get(link.master) if link.master else None,
            **counters.get(link.name, NO_PACKETS),
        }
        for link in links
        if "LOOPBACK" not in link.flags
    ]


def _counters(text: str) -> dict[str, InterfaceCounters]:
    """Return the table of /proc/net/dev by interface."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        # After the interface's name (kernel: net/core/net-procfs.c).
        columns = [int(number) for number in numbers.split()]
        found[name.strip()] = InterfaceCounters(
            rx_bytes=columns[0],
            rx_packets=columns[1],
            rx_dropped=columns[3],
            tx_bytes=columns[8],
            tx_packets=columns[9],
            tx_dropped=columns[11],
        )
    return found
