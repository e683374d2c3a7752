"""The lab's own state: `status`, `get` and `describe` as plain data, in the documented shapes.

`status` is the JSON that other programs rely on. `get` returns Kubernetes-shaped objects: metadata,
spec, status.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.node.subnet_env import LARGEST_BYTES
from testbed.cluster.device_names import OVERLAY_DEVICES
from testbed.control.answers.lab import Description, EtcdMemberStatus, MachineStatus, NodeStatus, PodLine, StatusAnswer
from testbed.errors import NoSubnetYet
from testbed.faults.verbs import explained_by
from testbed.lab.etcd import EtcdMember
from testbed.lab.machines import OverlayNode
from testbed.lab.node import HEALTH_PORT, AgentState, LabNode
from testbed.plain_files import read_plain
from testbed.pods.cni_network import CNI_EVENT
from testbed.pods.pod import Pod
from testbed.policies.show import isolated_by
from testbed.services import show as show_services
from testbed.supervisor.lab import Lab

Object = dict[str, Any]


BEHIND_THE_DEVICE = "by the overlay device; only the agent knows where to"
"""Of the kernel's routes where the agent is not ours."""


def lab_status(lab: Lab, states: Mapping[str, AgentState | None] | None = None) -> StatusAnswer:
    """Return the whole lab at a glance (`status -o json`); `states` are agents' answers that the caller already has."""
    known = {node.name: node.state() for node in lab.state.nodes.values()} if states is None else states
    nodes = [
        node_status(lab, node, state)
        for name, state in known.items()
        if (node := lab.state.nodes.get(name)) is not None
    ]
    pods = {pod: pod_status(pod) for pod in lab.state.pods}
    etcd = [_etcd_status(lab, member) for member in lab.state.registry.etcd.members]
    dns = lab.names.status()
    machines = [_machine_status(machine) for machine in list(lab.state.underlay.machines.values())]
    well = (
        all(node["agent"]["state"] == "ready" for node in nodes)
        and all(line["ready"] for pod, line in pods.items() if not pod.leaves)
        and all(member["healthy"] for member in etcd)
        and (dns is None or dns["healthy"])
        and all(machine["pid"] for machine in machines)
    )
    return {
        "lab": lab.state.name,
        "state": "starting" if not lab.state.settled else "ready" if well else "degraded",
        "since": lab.state.since,
        "cluster_file": lab.state.cluster_file,
        "rundir": str(lab.state.directory),
        "switch": lab.state.cluster.underlay.switch,
        "nodes": nodes,
        "pods": list(pods.values()),
        "services": show_services.service_status(lab.services),
        "dns": dns,
        "etcd": etcd,
        "machines": machines,
        "faults": explained_by(lab.state, lab.faults, None),
    }


def _etcd_status(lab: Lab, member: EtcdMember) -> EtcdMemberStatus:
    line = EtcdMemberStatus(name=member.name, endpoint=member.endpoint, healthy=member.healthy())
    if (existing := lab.state.registry.existing) is not None:
        line["cluster"], line["prefix"] = list(existing.endpoints), existing.claim.prefix
    return line


def _machine_status(machine: OverlayNode) -> MachineStatus:
    """Return a machine of the underlay, by the process that holds its namespaces."""
    holder = machine.holder
    return {"name": machine.name, "pid": holder.pid if holder.holds else None, "restarts": holder.restarts}


def node_status(lab: Lab, node: LabNode, state: AgentState | None) -> NodeStatus:
    """Return one node's line of the status; `state` is its agent's answer, None if there was none."""
    expected = len(lab.state.nodes) - 1 if lab.state.overlay.connects_nodes else 0
    line: NodeStatus = {
        "name": node.name,
        "address": str(node.address),
        "subnet": subnet_of(node, state),
        "drained": node.name in lab.workloads.leaving | lab.workloads.cordoned,
        "backend": lab.state.overlay.backend,
        "device": state["device"] if state else lab.state.overlay.device,
        "datapath": (state["datapath"] if state else None) if node.runs_our_agent else "other",
        "agent": {"state": agent_state(node, state), "pid": node.agent.pid, "restarts": node.agent.restarts},
        "peers": {"known": _peers_known(lab, node, state), "expected": expected},
        "warnings": warnings_of(state),
    }
    if node.name in lab.workloads.cordoned - lab.workloads.leaving:
        line["cordoned"] = True
    if node.ipv6_address:
        line["ipv6_address"], line["ipv6_subnet"] = str(node.ipv6_address), _ipv6_subnet(node)
    return line


def warnings_of(state: AgentState | None) -> list[str]:
    """Return the agent's warnings about what works now and will fail later."""
    return list(state.get("warnings", [])) if state else []


def _peers_known(lab: Lab, node: LabNode, state: AgentState | None) -> int:
    """Count the other nodes' subnets that it forwards to; on a dual-stack network each peer has one per family."""
    if node.runs_our_agent or not lab.state.overlay.connects_nodes:
        subnets = [str(entry["subnet"]) for entry in (state["forwarding"] if state else [])]
    else:
        subnets = [passage.subnet for passage in lab.state.seen_in_kernel(node) if passage.problem is None]
    return len([subnet for subnet in subnets if ":" not in subnet])


def agent_state(node: LabNode, state: AgentState | None) -> str:
    """Return ready, not ready, fenced, running (no answer), backoff …"""
    if not node.expected and state is None:
        return "by hand"
    if node.expected and node.agent.state != "running":
        return node.agent.state
    if not node.runs_our_agent:
        return "ready" if node.why_not_ready() is None else "not ready"
    if state is None:
        return "starting"
    return "fenced" if state["fenced"] else "ready" if state["ready"] else "not ready"


def subnet_of(node: LabNode, state: AgentState | None) -> str | None:
    """Return the node's subnet from its agent, else from its subnet.env."""
    if state and state["lease"]:
        # On a dual-stack network: both, joined.
        return str(state["lease"]["subnet"]).partition(" ")[0]
    try:
        return str(node.subnet)
    except (NoSubnetYet, OSError):
        return None


def _ipv6_subnet(node: LabNode) -> str | None:
    try:
        return str(node.ipv6_subnet or "") or None
    except (NoSubnetYet, OSError):
        return None


def pod_status(pod: Pod) -> PodLine:
    """Return one pod's line of the status."""
    status = pod.status()
    line: PodLine = {
        "name": status.name,
        "node": status.node,
        "address": status.address,
        "state": status.state,
        "ready": status.ready,
        "restarts": status.restarts,
    }
    if status.ipv6_address:
        line["ipv6_address"] = status.ipv6_address
    return line


def describe_node(lab: Lab, node: LabNode) -> Description:
    """Return everything about one node, as headings and values."""
    state = node.state() or {}
    device = state.get("device") or lab.state.overlay.device
    counters = state.get("counters") or {}
    drops = counters.get("drops", {})
    return {
        "Name": node.name,
        "Address": _joined(node.address, node.ipv6_address),
        "Subnet": _joined(subnet_of(node, state or None), _ipv6_subnet(node) if node.ipv6_address else None),
        "Agent": {
            "state": agent_state(node, state or None),
            "process": node.agent.pid,
            "restarts": node.agent.restarts,
            "why not ready": state.get("why_not_ready") or None,
            "command": shlex.join(node.agent_command()),
        },
        "Warnings": warnings_of(state) or "none",
        "Lease": state.get("lease"),
        "Overlay device": f"none: packets of the {lab.state.overlay.backend} backend leave by {node.name}-eth0"
        if device is None
        else _describe_device(node, device),
        **_ipv6_overlay_device(node, device),
        "Bridge": _describe_bridge(node),
        "subnet.env": _lines(node.run / "flannel" / "subnet.env"),
        "Forwarding table": {entry["subnet"]: entry["via"] for entry in state.get("forwarding", [])}
        if node.runs_our_agent
        else {one.subnet: one.problem or one.via or BEHIND_THE_DEVICE for one in lab.state.seen_in_kernel(node)},
        "Traffic": {key: value for key, value in counters.items() if key != "drops"},
        "Drops by reason": {reason: number for reason, number in drops.items() if number}
        or ("none" if counters else "not counted: the kernel forwards by its own routes"),
        "Pods": {pod.status().name: pod.status().address for pod in lab.state.pods if pod.status().node == node.name},
        "Look inside": [f"exec {node.name} -- ip route", f"shell {node.name}"],
        "Events": lab.state.events.about(f"node/{node.name}"),
        # The client replaces it with the line that works on the host.
        "nsenter": {"pid": node.pid, "health": f"http://127.0.0.1:{HEALTH_PORT}"},
    }


def _lines(file: Path) -> list[str] | None:
    """Return the lines of a file written by a node's agent; None if there is none."""
    try:
        return read_plain(file, LARGEST_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as failure:
        return [str(failure)]


def _describe_device(node: LabNode, name: str) -> Object | None:
    device = node.kernel.link(name)
    if device is None:
        return None
    return {
        "name": name,
        "flags": ",".join(sorted(device.flags)),
        "mtu": device.mtu,
        "address": _addresses_on(node, name),
    }


def _ipv6_overlay_device(node: LabNode, first: str | None) -> Object:
    """Return the IPv6 device of vxlan, and of wireguard in separate mode."""
    names = [link.name for link in node.kernel.links() if link.name.startswith(OVERLAY_DEVICES) and link.name != first]
    return {"Overlay device of IPv6": _describe_device(node, names[0])} if names and node.ipv6_address else {}


def _describe_bridge(node: LabNode) -> Object | None:
    bridge = node.kernel.link(node.bridge) if node.bridge else None
    if bridge is None:
        return None
    addresses = _addresses_on(node, bridge.name)
    more = {"IPv6": addresses[1:]} if addresses[1:] else {}
    return {
        "name": bridge.name,
        "--bip": addresses[0] if addresses else None,
        "mtu": bridge.mtu,
        "mac": bridge.mac,
        **more,
    }


def _addresses_on(node: LabNode, device: str) -> list[str]:
    """Return addresses without link-local ones."""
    ipv6 = node.kernel.ipv6_addresses(device) if node.ipv6_address is not None else frozenset()
    lasting = sorted(address for address in ipv6 if not address.ip.is_link_local)
    return [*map(str, sorted(node.kernel.addresses(device))), *map(str, lasting)]


def _joined(*parts: object) -> str | None:
    return ", ".join(str(part) for part in parts if part is not None) or None


def describe_pod(lab: Lab, name: str) -> Description:
    """Return everything about the pod of this name, as headings and values. Raises KeyError."""
    pod = lab.state.pods.named(name)
    if pod is None:
        raise KeyError(name)
    status = pod.status()
    return {
        "Name": status.name,
        "Node": f"{status.node}/{pod.node_address}",
        "Address": _joined(*status.addresses),
        "State": status.state,
        "Phase": status.phase,
        "Ready": status.ready,
        "Why not ready": status.why_not_ready or None,
        "Labels": pod.manifest.metadata.labels or None,
        "Network policies": isolated_by(lab.policies, pod.key) or None,
        "Controlled by": f"{owner}" if (owner := lab.workloads.owner_of(pod.key)) else None,
        "Started": status.started_at,
        "Pause process": pod.pause_pid,
        "Containers": {
            container.name: {
                "image": container.image,
                "state": container.state,
                "process": container.pid,
                "restarts": container.restarts,
                "last exit code": container.exit_code,
                "last reason": container.ended or None,
            }
            for container in status.containers
        },
        **({"CNI calls": calls} if (calls := pod.sandbox.plugin_calls) else {}),
        "Look inside": [f"exec {status.name} -- ip address", f"shell {status.name}"],
        "Events": lab.state.events.about(f"pod/{status.name}", without=CNI_EVENT),
    }
