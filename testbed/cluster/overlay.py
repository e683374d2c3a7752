"""What a network's backend means for a lab: the device on each node, the headers, what the kernel must have. Pure."""

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
"""What doctor calls a kernel feature that a backend needs."""
BACKENDS = tuple(BACKEND_OPTIONS)


@dataclass(frozen=True, slots=True)
class Overlay:
    """One network's."""

    backend: str
    device: str | None
    """Of the same name on every node; None where packets leave by the uplink itself."""
    headers: int
    """Bytes that an overlay packet is longer on the underlay."""
    connects_nodes: bool
    """False where nodes only share out subnets."""

    @property
    def has_sessions(self) -> bool:
        """Whether two nodes shake hands before the first packet between them."""
        return self.backend == "wireguard"

    @property
    def needs(self) -> str | None:
        """The kernel feature that it needs, in doctor's words."""
        return KERNEL_FEATURES.get(self.backend)


def overlay_of(network: NetworkConfig) -> Overlay:
    """The overlay of a checked network config."""
    kind, options = network.backend_type, network.backend
    devices = {"udp": "flannel0", "ipip": "flannel.ipip", "wireguard": "flannel-wg"}
    device = f"flannel.{options.vni}" if isinstance(options, VxlanOptions) else devices.get(kind)
    headers = HEADERS.get(kind, 0) + (20 if network.ipv6_network is not None and kind == "vxlan" else 0)
    return Overlay(kind, device, headers, connects_nodes=kind not in ("alloc", "extension"))


def with_backend(cluster: Cluster, backend: str) -> Cluster:
    """The cluster with another backend type; options of the file's own backend stay if it is of that type already.

    Raises InvalidConfig when the rest of the network config does not go with it.
    """
    if cluster.config.backend_type == backend:
        return cluster
    network: dict[str, Any] = {key: value for key, value in cluster.network.items() if key.lower() != "backend"}
    network["Backend"] = {"Type": backend}
    text = network_json(network)
    return replace(cluster, network=network, network_json=text, config=parse_network_config(text.encode()))
