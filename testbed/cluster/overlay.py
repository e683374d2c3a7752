"""A backend's properties in a lab: the device on each node, the headers, the kernel's requirements. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.netconfig.backend_options import BACKEND_OPTIONS, VxlanOptions
from agent.netconfig.config import NetworkConfig, parse_network_config
from testbed.cluster.network_json import network_json
from testbed.cluster.spec import Cluster

# bytes; IPv4 20 + UDP 8; + vxlan 8 + inner Ethernet 14; the outer IPv4 header alone; as flannel counts them
HEADERS: Mapping[str, int] = {"udp": 28, "vxlan": 50, "host-gw": 0, "ipip": 20, "wireguard": 80}
KERNEL_FEATURES: Mapping[str, str] = {kind: f"the {kind} backend" for kind in ("vxlan", "ipip", "wireguard")}
"""Doctor's name for the kernel feature that a backend needs."""
KERNEL_DATAPATH = ("--datapath kernel", KERNEL_FEATURES["ipip"])
"""Doctor's names for what the udp backend's data path `kernel` needs."""
BACKENDS = tuple(BACKEND_OPTIONS)


@dataclass(frozen=True, slots=True)
class Overlay:
    """The overlay of one network."""

    backend: str
    device: str | None
    """The same name on every node; None where packets leave by the uplink itself."""
    headers: int
    """Bytes that headers add to an overlay packet on the underlay."""
    connects_nodes: bool
    """False if nodes only allocate subnets."""

    @property
    def has_sessions(self) -> bool:
        """Return whether two nodes perform a handshake before the first packet between them."""
        return self.backend == "wireguard"

    @property
    def needs(self) -> str | None:
        """Return the kernel feature that it needs, by doctor's name."""
        return KERNEL_FEATURES.get(self.backend)


def overlay_of(network: NetworkConfig) -> Overlay:
    """Return the overlay of a checked network config."""
    kind, options = network.backend_type, network.backend
    devices = {"udp": "flannel0", "ipip": "flannel.ipip", "wireguard": "flannel-wg"}
    device = f"flannel.{options.vni}" if isinstance(options, VxlanOptions) else devices.get(kind)
    headers = HEADERS.get(kind, 0) + (20 if network.ipv6_network is not None and kind == "vxlan" else 0)
    return Overlay(kind, device, headers, connects_nodes=kind not in ("alloc", "extension"))


def with_backend(cluster: Cluster, backend: str) -> Cluster:
    """Return the cluster with another backend type; options of the file's own backend stay if it already has that type.

    Raises InvalidConfig if the rest of the network config is incompatible.
    """
    if cluster.config.backend_type == backend:
        return cluster
    network: dict[str, Any] = {key: value for key, value in cluster.network.items() if key.lower() != "backend"}
    network["Backend"] = {"Type": backend}
    text = network_json(network)
    return replace(cluster, network=network, network_json=text, config=parse_network_config(text.encode()))
