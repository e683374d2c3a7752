"""The map of a lab: its namespaces, its interfaces' names, and where each cable leads."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from agent.kernel.values import IPAddress
from agent.netconfig.backend_options import IpipOptions, UdpOptions, VxlanOptions, WireguardOptions
from agent.netconfig.config import NetworkConfig
from testbed.capture.headers import NO_OVERLAY, Encapsulation
from testbed.cluster.device_names import OVERLAY_DEVICES
from testbed.cluster.object_key import key_of
from testbed.lab.state import LabState
from testbed.lab.underlay import LabUnderlay
from testbed.pods.pod import Pod
from testbed.pods.pod_network import POD_END

End = tuple[str, str]
"""Place and interface."""
LAB = "the lab"
"""The lab's own namespace, which contains the switches."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace."""

    name: str
    pid: int | None
    """A process inside; None: the lab's own, which contains the switches."""


@dataclass(frozen=True, slots=True)
class Map:
    """A lab at one moment."""

    places: tuple[Place, ...]
    place_of: Mapping[str, str]
    """Pod, node or machine → the place of its packets; a pod with its node's network has the node's."""
    cables: Mapping[End, End]
    addresses: Mapping[IPAddress, str]
    """Address → place."""
    overlay: Encapsulation
    overlay_device: str
    """`flannel0`, or another backend's device; empty where packets leave by the uplink itself."""
    overlay_devices: frozenset[str]
    """The same, with a separate IPv6 device if there is one: `flannel.1`, `flannel-v6.1`."""
    switch_ports: Mapping[str, str]
    """Interface in the lab's namespace → its switch."""
    nodes: frozenset[str] = field(default_factory=frozenset)
    machines: frozenset[str] = field(default_factory=frozenset)
    """Nodes and all other machines of the underlay, without pods."""

    def in_namespace(self, name: str, namespace: str) -> str:
        """Return what a name means in a namespace, as it is called in the whole lab: its pod, or a machine; no other's
        pod.
        """
        pod = str(key_of(name, namespace))
        is_pod = pod in self.place_of or (name in self.place_of and name not in self.machines)
        return pod if is_pod else name

    def pid(self, place: str) -> int | None:
        """Return a process in the place; None for the lab's own."""
        return next((one.pid for one in self.places if one.name == place), None)

    def node_name(self, place: str, interface: str) -> str:
        """Return the interface's owner as people see it: in the lab's own namespace, the switch."""
        return self.switch_ports.get(interface, place) if place == LAB else place

    def where(self, place: str, interface: str) -> str:
        """Return `node1 uplink`, `nginx eth0`, `s1 s1-eth2`."""
        shown = "uplink" if place in self.nodes and interface == f"{place}-eth0" else interface
        return f"{self.node_name(place, interface)} {shown or '(gone)'}"

    def other_end(self, place: str, interface: str) -> tuple[str, str] | None:
        """Return the other end of an interface's cable: owner's name and interface."""
        end = self.cables.get((place, interface))
        return None if end is None else (self.node_name(*end), end[1])


def map_of(state: LabState) -> Map:
    """Draw the map of a lab in its current state."""
    places = [Place(LAB, None), *(Place(name, machine.pid) for name, machine in state.underlay.machines.items())]
    by_namespace = {namespace_of(place.pid): place.name for place in places}
    place_of = {name: name for name in state.underlay.machines}
    addresses: dict[IPAddress, str] = {}
    for name, machine in state.underlay.plan.machines.items():
        for port in machine.ports:
            addresses.update((own.ip, name) for own in (port.address, port.ipv6) if own is not None)
    cables: dict[End, End] = {}
    switch_ports: dict[str, str] = {}
    _add_underlay(state.underlay, cables, switch_ports)
    for pod in state.pods:
        pid = pod.pause_pid
        namespace = None if pid is None else namespace_of(pid)
        if namespace is None:
            continue
        if namespace not in by_namespace:
            by_namespace[namespace] = pod.name
            places.append(Place(pod.name, pid))
            _add_pod(pod, cables, addresses)
        place_of[pod.name] = by_namespace[namespace]
    device = state.overlay.device or ""
    devices = {device} - {""}
    for name, node in state.nodes.items():
        if state.underlay.plan.ipv6 or node.datapath == "kernel":
            devices |= {link.name for link in node.kernel.links() if link.name.startswith(OVERLAY_DEVICES)}
        for interface in {node.bridge or "", *devices} - {""}:
            addresses.update((own.ip, name) for own in node.kernel.addresses(interface))
            # Without link-local ones: they belong to one cable, and several machines may share one.
            lasting = (own.ip for own in node.kernel.ipv6_addresses(interface) if not own.ip.is_link_local)
            addresses.update((own, name) for own in lasting)
    return Map(
        tuple(places),
        place_of,
        cables,
        addresses,
        carrier_of(state.network),
        device,
        frozenset(devices),
        switch_ports,
        frozenset(state.nodes),
        frozenset(state.underlay.machines),
    )


def carrier_of(network: NetworkConfig) -> Encapsulation:
    """Return how the nodes of a network carry packets."""
    backend = network.backend
    if isinstance(backend, UdpOptions):
        return Encapsulation("udp", backend.port)
    if isinstance(backend, VxlanOptions):
        return Encapsulation("vxlan", backend.port)
    if isinstance(backend, WireguardOptions):
        return Encapsulation("none", sealed_ports=(backend.listen_port, backend.listen_port_v6))
    return Encapsulation("ipip") if isinstance(backend, IpipOptions) else NO_OVERLAY


def _add_underlay(underlay: LabUnderlay, cables: dict[End, End], switch_ports: dict[str, str]) -> None:
    machines = underlay.machines
    for link in underlay.net.links:
        ends = []
        for interface in (link.intf1, link.intf2):
            owner = interface.node.name
            ends.append((owner if owner in machines else LAB, interface.name))
            if owner not in machines:
                switch_ports[interface.name] = owner
        cables[ends[0]], cables[ends[1]] = ends[1], ends[0]
    switch_ports.update((name, name) for name in underlay.plan.switches)


def _add_pod(pod: Pod, cables: dict[End, End], addresses: dict[IPAddress, str]) -> None:
    if pod.host_end is not None:
        near, far = (pod.name, POD_END), (str(pod.manifest.spec.node_name), pod.host_end)
        cables[near], cables[far] = far, near
    addresses.update((ip_address(own), pod.name) for own in (pod.address, pod.ipv6_address) if own is not None)


def namespace_of(pid: int | None) -> int | None:
    """Return the inode that identifies a network namespace; None if the process is gone."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid or 'self'}/ns/net").st_ino
    return None
