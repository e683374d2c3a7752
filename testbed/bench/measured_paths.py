"""Switches a lab's traffic to a path of `testbed.bench.plan`. Runs inside the lab."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Protocol

from agent.kernel.kernel import Kernel
from agent.kernel.values import (
    Route,
    VethPeer,
    VxlanSettings,
    Wanted,
    WantedAddresses,
    WantedForwarding,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
)
from testbed.bench.load_tools import Ends, processor_seconds
from testbed.cluster.overlay import with_backend
from testbed.errors import MeasurementFailed
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.state import LabState
from testbed.lab.waiting import wait_for
from testbed.pods.pod import Pod
from testbed.pods.pod_network import POD_END, pod_mac

AGENT_LIMIT_S = 20.0
SETTLE_S, SETTLE_LIMIT_S, IDLE = 0.25, 3.0, 0.03
"""How long agents must use less than this share of a processor, and the longest wait for it."""
USER_SPACE = frozenset({"native", "python"})
"""Data paths whose packets pass through the agents' processes."""


class MeasuredPath(Protocol):
    """One path between the lab's first two nodes."""

    def activate(self) -> None:
        """Switch traffic between `ends` to it. Raises MeasurementFailed with what is missing; AgentError."""

    def ends(self) -> Ends:
        """Return the measured endpoints."""

    def agent_pids(self) -> Sequence[int]:
        """Return the processes that its packets pass through; none if only the kernel carries them."""


class NoOverlay:
    """Traffic from node to node on the underlay."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes.values()[:2]

    def activate(self) -> None:
        """Do nothing: it always exists."""

    def ends(self) -> Ends:
        """Return the nodes themselves."""
        first, second = self._nodes
        return Ends(first.pid, second.pid, second.address)

    def agent_pids(self) -> Sequence[int]:
        """Return no process."""
        return ()


class AgentPath:
    """Traffic through our agents, with one backend and data path."""

    def __init__(self, state: LabState, pods: Sequence[Pod], backend: str, datapath: str) -> None:
        self._state = state
        self._pods = pods
        self._nodes = [state.nodes[pod.manifest.spec.node_name or ""] for pod in pods]
        self._backend = backend
        self._datapath = datapath if backend == "udp" else "auto"

    def activate(self) -> None:
        """Restart both agents with it, unless they already run with it, and wait until packets can flow."""
        if self._why_not_ready() is not None:
            self._configure()
            with ThreadPoolExecutor(len(self._nodes), "restart agent") as workers:
                list(workers.map(lambda node: node.agent.restart(), self._nodes))
            reason = wait_for(lambda: self._why_not_ready() or "", AGENT_LIMIT_S)
            if reason:
                raise MeasurementFailed(f"the agents are not ready after {AGENT_LIMIT_S:g} s: {reason}")
            self._settle()
        for pod, node in zip(self._pods, self._nodes, strict=True):
            why, mtu = "pods have the MTU of the overlay", node.overlay_mtu
            node.kernel.converge(Wanted(links=(WantedLink(str(pod.host_end), why, mtu=mtu),)))
            with Kernel(node.kernel.journal, pod.pause_pid) as inside:
                inside.converge(Wanted(links=(WantedLink(POD_END, why, mtu=mtu),)))

    def ends(self) -> Ends:
        """Return the pods."""
        first, second = self._pods
        return Ends(pause_pid(first), pause_pid(second), address_of(second))

    def agent_pids(self) -> Sequence[int]:
        """Return the agents, if packets pass through them."""
        states = [node.state() or {} for node in self._nodes]
        if not all(state.get("datapath") in USER_SPACE for state in states):
            return ()
        return [node.agent.pid for node in self._nodes if node.agent.pid is not None]

    def _settle(self) -> None:
        """Wait until the agents are idle: the rest of their start would count towards the first measurement."""
        pids = [node.agent.pid for node in self._nodes if node.agent.pid is not None]
        deadline = time.monotonic() + SETTLE_LIMIT_S
        spent, used = processor_seconds(pids), SETTLE_S
        while used > IDLE * SETTLE_S and time.monotonic() < deadline:
            time.sleep(SETTLE_S)
            before, spent = spent, processor_seconds(pids)
            used = spent - before

    def _configure(self) -> None:
        cluster = with_backend(self._state.cluster, self._backend)
        self._state.change_network(cluster.network_json)
        for node in self._nodes:
            node.datapath = self._datapath
            # Both nodes have it.
            node.offload = self._datapath == "kernel"

    def _why_not_ready(self) -> str | None:
        if self._state.overlay.backend != self._backend:
            return f"the backend is {self._state.overlay.backend}"
        for node in self._nodes:
            if node.datapath != self._datapath:
                return f"{node.name}: its agent was started with --datapath={node.datapath}"
            if (why := node.why_not_ready()) is not None:
                return f"{node.name}: {why}"
            moves = (node.state() or {}).get("datapath")
            if self._datapath != "auto" and moves != self._datapath:
                return f"{node.name}: {moves} moves its packets, not {self._datapath}"
        return "; ".join(self._state.missing_forwarding()) or None


VNI, VXLAN_PORT = 77, 4789  # a port of its own, so that an agent's vxlan device does not share our socket
VXLAN_HEADERS = 20 + 8 + 8 + 14  # bytes: outer IPv4, UDP, vxlan (RFC 7348), inner Ethernet
VXLAN_DEVICE = "bench-vxlan"


@dataclass(frozen=True, slots=True)
class ByHand:
    """What distinguishes the two paths that are built by hand."""

    network: IPv4Network
    bridge: str
    pod_end: str
    prefix: str
    """Prefix of the node's end of the pods' links."""
    headers: int
    """Bytes that headers take from the underlay's MTU."""


@dataclass(frozen=True, slots=True)
class VxlanSide:
    """One node's half of the hand-built overlay."""

    node: LabNode
    pod: Pod
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        """Return the bridge's address."""
        return self.subnet.network_address + 1

    @property
    def address(self) -> IPv4Address:
        """Return the pod's address."""
        return self.subnet.network_address + 2

    @property
    def vtep_mac(self) -> str:
        """Return the MAC of the vxlan device."""
        return pod_mac(self.subnet.network_address)

    @property
    def bridge_mac(self) -> str:
        """Return the MAC of the bridge."""
        return pod_mac(self.gateway)


class PlainVxlan:
    """Kernel vxlan set up by hand, beside the agents' overlay: a second link of the same two pods to a separate bridge,
    and routes from there to a vxlan device. Without learning or ARP.
    """

    WHY = "kernel vxlan for comparison"
    PARTS = ByHand(IPv4Network("10.77.0.0/16"), "bench-br", "eth1", "bench-", VXLAN_HEADERS)

    def __init__(self, nodes: Nodes, underlay_mtu: int, pods: Sequence[Pod]) -> None:
        """Take `underlay_mtu` in bytes."""
        subnets = self.PARTS.network.subnets(new_prefix=24)
        self._sides = [VxlanSide(nodes[pod.manifest.spec.node_name or ""], pod, next(subnets)) for pod in pods]
        self._mtu = underlay_mtu - self.PARTS.headers
        self._built = False

    def activate(self) -> None:
        """Build it, the first time."""
        if self._built:
            return
        first, second = self._sides
        for own, other in ((first, second), (second, first)):
            self._connect_nodes(own, other)
            self._connect_pod(own)
        self._built = True

    def ends(self) -> Ends:
        """Return the pods, by their second address."""
        first, second = self._sides
        return Ends(pause_pid(first.pod), pause_pid(second.pod), second.address)

    def agent_pids(self) -> Sequence[int]:
        """Return no process."""
        return ()

    def _connect_nodes(self, own: VxlanSide, other: VxlanSide) -> None:
        kernel, far = own.node.kernel, other.subnet.network_address
        underlay = kernel.link(f"{own.node.name}-eth0")
        if underlay is None:
            raise MeasurementFailed(f"{own.node.name} has no {own.node.name}-eth0")
        settings = VxlanSettings(VNI, underlay.index, own.node.address, VXLAN_PORT)
        link = WantedLink(
            VXLAN_DEVICE, self.WHY, kind="vxlan", settings=settings, mtu=self._mtu, mac=own.vtep_mac, up=True
        )
        address = IPv4Interface((own.subnet.network_address, 32))
        route = Route(other.subnet, VXLAN_DEVICE, gateway=far, onlink=True)
        kernel.converge(
            Wanted(
                links=(link,),
                addresses=(WantedAddresses(VXLAN_DEVICE, frozenset({address}), self.WHY),),
                neighbours=(WantedNeighbours(VXLAN_DEVICE, {far: other.vtep_mac}, self.WHY),),
                forwarding=(WantedForwarding(VXLAN_DEVICE, {other.vtep_mac: other.node.address}, self.WHY),),
                routes=(WantedRoute(route, self.WHY),),
            )
        )

    def _connect_pod(self, own: VxlanSide) -> None:
        kernel, pod_pid = own.node.kernel, pause_pid(own.pod)
        parts = self.PARTS
        near, mac = f"{parts.prefix}{own.pod.name}"[:15], pod_mac(own.address)
        why, prefix = self.WHY, own.subnet.prefixlen
        bridge = WantedLink(parts.bridge, why, kind="bridge", mtu=self._mtu, mac=own.bridge_mac, up=True)
        peer = VethPeer(parts.pod_end, self._mtu, mac, namespace_pid=pod_pid)
        port = WantedLink(near, why, kind="veth", settings=peer, mtu=self._mtu, master=parts.bridge, up=True)
        gateway = frozenset({IPv4Interface((own.gateway, prefix))})
        kernel.converge(
            Wanted(
                links=(bridge, port),
                addresses=(WantedAddresses(parts.bridge, gateway, why),),
                neighbours=(WantedNeighbours(parts.bridge, {own.address: mac}, why),),
            )
        )
        address = frozenset({IPv4Interface((own.address, prefix))})
        route = Route(parts.network, parts.pod_end, gateway=own.gateway)
        with Kernel(kernel.journal, pod_pid) as inside:
            inside.converge(
                Wanted(
                    links=(WantedLink(parts.pod_end, why, up=True),),
                    addresses=(WantedAddresses(parts.pod_end, address, why),),
                    neighbours=(WantedNeighbours(parts.pod_end, {own.gateway: own.bridge_mac}, why),),
                    routes=(WantedRoute(route, why),),
                )
            )


class PlainRoutes(PlainVxlan):
    """The same with only a route between the nodes: what the host-gw backend does, by hand."""

    WHY = "plain routes for comparison"
    PARTS = ByHand(IPv4Network("10.78.0.0/16"), "bench-routed", "eth2", "routed-", 0)

    def _connect_nodes(self, own: VxlanSide, other: VxlanSide) -> None:
        device = f"{own.node.name}-eth0"
        own.node.kernel.ensure_route(Route(other.subnet, device, gateway=other.node.address), self.WHY)


def pause_pid(pod: Pod) -> int:
    """Return a process in the pod's network namespace. Raises MeasurementFailed."""
    if pod.pause_pid is None:
        raise MeasurementFailed(f"pod {pod.name} has no namespaces (state {pod.status().state})")
    return pod.pause_pid


def address_of(pod: Pod) -> IPv4Address:
    """Return the pod's address. Raises MeasurementFailed."""
    address = pod.status().address
    if address is None:
        raise MeasurementFailed(f"pod {pod.name} has no address")
    return IPv4Address(address)
