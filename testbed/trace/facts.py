"""Facts from kernels and agents about the places of a packet; each is queried once per trace."""

import contextlib
import re
from collections.abc import Callable
from ipaddress import ip_network

from agent.errors import NetlinkError
from agent.kernel.sockets import port_holder
from agent.kernel.values import IPAddress, Link, Route
from testbed.capture.map import LAB, Map
from testbed.lab.forwarding import host_of
from testbed.lab.kernel_forwarding import Passage
from testbed.lab.node import AgentState, LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.underlay import LabUnderlay
from testbed.services.rules import TABLE, WORDS
from testbed.services.services import Services
from testbed.trace.lookups import Lookups
from testbed.trace.nft_trace import dropping_rule, nft
from testbed.trace.traced_packet import TracedPacket

STANDS_STILL = "it hangs or is suspended"
INTO_ITS_DEVICE = "another program's agent"
"""In place of a node's address, where only an agent that is not ours knows it."""


class Facts:
    """Facts about the running lab. Use as a context manager; a query about a place that is gone returns None."""

    def __init__(
        self,
        known: Map,
        nodes: Nodes,
        underlay: LabUnderlay,
        services: Services,
        another_probe: Callable[[], TracedPacket],
        in_kernel: Callable[[LabNode], list[Passage]],
    ) -> None:
        """`in_kernel` returns what a node's kernel does with packets for other nodes' subnets."""
        self._map = known
        self._nodes = nodes
        self._underlay = underlay
        self._services = services
        self._another_probe = another_probe
        self._in_kernel = in_kernel
        self._forwarding: dict[str, list[tuple[str, str]]] = {}
        self._lookups: dict[str, Lookups | None] = {}
        self._states: dict[str, AgentState | None] = {}
        self._routes: dict[tuple[str, IPAddress], Route | None] = {}

    def __enter__(self) -> "Facts":
        return self

    def __exit__(self, *_: object) -> None:
        for lookups in self._lookups.values():
            if lookups is not None:
                lookups.close()

    def route(self, place: str, destination: IPAddress) -> Route | None:
        """Return the table's entry by which a packet to the address leaves the place; None if there is none."""
        key = (place, destination)
        if key not in self._routes:
            self._routes[key] = None
            asked = self._ask(place)
            with contextlib.suppress(OSError, NetlinkError):
                self._routes[key] = asked.route_to(destination) if asked else None
        return self._routes[key]

    def main_route(self, place: str, destination: IPAddress) -> Route | None:
        """Return the main table's entry for the address; None if there is none."""
        asked = self._ask(place)
        with contextlib.suppress(OSError, NetlinkError):
            return asked.main_route_to(destination) if asked else None
        return None

    def unanswered(self, place: str, destination: IPAddress, route: Route) -> IPAddress | None:
        """Return the next hop of a route if its MAC address did not resolve; None if it did, or was not queried."""
        following = route.gateway or destination
        asked = self._ask(place)
        with contextlib.suppress(OSError, NetlinkError):
            if asked and route.device and asked.is_silent(following, route.device):
                return following
        return None

    def link(self, place: str, interface: str) -> Link | None:
        """Return an interface's state in the kernel."""
        asked = self._ask(place)
        with contextlib.suppress(OSError, NetlinkError):
            return asked.link(interface) if asked else None
        return None

    def pods_bridge(self, place: str) -> str | None:
        """Return the name of the bridge that a node's pods are attached to; None if there is none."""
        node = self._nodes.get(place)
        return None if node is None else node.bridge

    def bridge_of(self, place: str, interface: str) -> str | None:
        """Return the bridge of a port."""
        if place == LAB and self._underlay.open_vswitch is not None:
            switch = self._map.switch_ports.get(interface)
            return None if switch == interface else switch
        asked = self._ask(place)
        link = self.link(place, interface)
        if asked is None or link is None or not link.master:
            return None
        master = asked.links().get(link.master)
        return master.name if master else None

    def port_of(self, place: str, bridge: str, mac: str) -> str | None:
        """Return the port behind which a bridge knows a MAC address."""
        switches = self._underlay.open_vswitch
        if place == LAB and switches is not None:
            with contextlib.suppress(OSError, NetlinkError):
                return switches.port_of(bridge, mac)
            return None
        asked = self._ask(place)
        with contextlib.suppress(OSError, NetlinkError):
            return asked.bridge_port(bridge, mac) if asked else None
        return None

    def peer(self, place: str, destination: IPAddress) -> tuple[str, str] | None:
        """Return a node's forwarding entry for an inner address: subnet, and next hop."""
        for subnet, via in self._entries(place):
            if destination in ip_network(subnet):
                return subnet, via
        return None

    def subnet_of_node_at(self, place: str, node_address: IPAddress) -> str | None:
        """Return the subnet that `place` has for the node with that underlay address."""
        return next((subnet for subnet, via in self._entries(place) if host_of(via) == str(node_address)), None)

    def has_other_agent(self, place: str) -> bool:
        """Return whether the place is a node whose agent is not ours, so it does not report what it does."""
        node = self._nodes.get(place)
        return node is not None and not node.runs_our_agent

    def agent_runs(self, place: str) -> bool:
        """Return whether the node's agent is a process now."""
        node = self._nodes.get(place)
        return node is not None and node.agent.state == "running"

    def _entries(self, place: str) -> list[tuple[str, str]]:
        """Return subnets and next hops, from the agent, else from the kernel's tables."""
        if place not in self._forwarding:
            node = self._nodes.get(place)
            if node is not None and not node.runs_our_agent:
                found = [(one.subnet, one.via or INTO_ITS_DEVICE) for one in self._in_kernel(node)]
            else:
                found = [(entry["subnet"], entry["via"]) for entry in (self.state(place) or {}).get("forwarding", ())]
            self._forwarding[place] = found
        return self._forwarding[place]

    def state(self, place: str) -> AgentState | None:
        """Return a node's agent's own state; None for other places and for an agent that does not answer."""
        if place not in self._states:
            node = self._nodes.get(place)
            self._states[place] = node.state() if node else None
        return self._states[place]

    def owner(self, address: IPAddress) -> str | None:
        """Return the owner of an address."""
        return self._map.addresses.get(address)

    def service(self, place: str, address: IPAddress, port: int | None, protocol: str) -> str | None:
        """Return the service in a place's rules for that address and port, and the map that contains it."""
        keys = {
            "cluster-ips": f"{address} . {protocol} . {port}",
            "node-ports": f"{protocol} . {port}",
            "host-ports-at": f"{address} . {protocol} . {port}",
        }
        pid, family = self._map.pid(place), address.version
        for name, key in keys.items() if pid is not None else ():
            with contextlib.suppress(OSError, NetlinkError):
                chain = re.search(
                    rf"[{{,\s]{re.escape(key)} : goto ([^\s,]+)",
                    nft(pid or 0, ["list", "map", WORDS[family], TABLE, name]),
                )
                if chain:
                    return f"{self._service_of(chain[1])} (map {name}: {key})"
        return None

    def service_without_port(self, address: IPAddress, port: int | None, protocol: str) -> str | None:
        """Return the service of a cluster IP that has no such port, with those that it has: `nginx (80/TCP)`."""
        for service in self._services.numbered.values():
            if service.address_of(address.version) == address:
                ports = [f"{one.port}/{one.protocol}" for one in service.spec.ports]
                return None if f"{port}/{protocol.upper()}" in ports else f"{service.key} ({', '.join(ports)})"
        return None

    def _service_of(self, chain: str) -> str:
        """Convert `service-echo-tcp-80` to `echo`, using the existing services."""
        names = [key for key in self._services.numbered if f"-{key.file_name}-" in chain]
        return str(max(names, key=lambda key: len(key.file_name), default=chain))

    def silent_agent(self, place: str) -> str:
        """Explain why a node's agent does not answer."""
        holder = port_holder(self._map.overlay.port, self._map.pid(place) or "self")
        if holder is None:
            return "it is not running, its UDP port is closed"
        node = self._nodes.get(place)
        if node is not None and holder.pid == node.agent.pid:
            return STANDS_STILL
        return f"it is not running, and {holder} has its UDP port"

    def dropping_rule(self, place: str) -> str | None:
        """Return the packet filter's rule in the place that drops such a probe, found by sending another one."""
        pid = self._map.pid(place)
        if pid is None:
            return None
        with contextlib.suppress(OSError, NetlinkError), contextlib.closing(self._another_probe()) as probe:
            return dropping_rule(pid, probe.mark, self._map.overlay, probe.send)
        return None

    def _ask(self, place: str) -> Lookups | None:
        if place not in self._lookups:
            self._lookups[place] = None
            with contextlib.suppress(OSError, NetlinkError):
                self._lookups[place] = Lookups(self._map.pid(place))
        return self._lookups[place]
