"""The backends that carry packets between nodes, by the name that the network config uses for them."""

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.backends.base import Backend, Underlay
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPNetwork
from agent.netconfig.backend_options import ExtensionOptions, IpipOptions, UdpOptions, VxlanOptions, WireguardOptions
from agent.netconfig.config import NetworkConfig

Options = TypeVar("Options")

WIREGUARD_KEY_FILE = "/run/flannel/wgkey"
"""flannel's path for its private key; the variable of that name overrides it."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a backend."""

    config: NetworkConfig
    underlay: Underlay
    kernel: Kernel
    datapath: str
    offload: bool

    def options(self, kind: type[Options]) -> Options:
        """Return the config's backend options, of the class that belongs to its backend type."""
        assert isinstance(self.config.backend, kind)
        return self.config.backend


# Each is imported when chosen: no backend needs another's imports.
def _udp(parts: _Parts) -> Backend:
    port = parts.options(UdpOptions).port
    if parts.datapath == "kernel":
        from agent.backends.fou import FouPlan
        from agent.backends.kernel_backend import KernelBackend

        plan = FouPlan(parts.config.network, port, parts.underlay, parts.kernel, offload=parts.offload)
        return KernelBackend(plan, parts.config, parts.underlay, parts.kernel)
    from agent.backends.udp import UdpBackend

    return UdpBackend(parts.config.network, port, parts.underlay, parts.kernel, parts.datapath)


def _vxlan(parts: _Parts) -> Backend:
    from agent.backends.kernel_backend import KernelBackend
    from agent.backends.vxlan import VxlanPlan

    ipv6 = parts.config.ipv6_network is not None
    plan = VxlanPlan(parts.options(VxlanOptions), parts.underlay, parts.kernel, ipv6=ipv6, rng=random.Random())
    return KernelBackend(plan, parts.config, parts.underlay, parts.kernel)


def _host_gw(parts: _Parts) -> Backend:
    from agent.backends.host_gw import HostGatewayPlan
    from agent.backends.kernel_backend import KernelBackend

    plan = HostGatewayPlan(parts.underlay, ipv6=parts.config.ipv6_network is not None)
    return KernelBackend(plan, parts.config, parts.underlay, parts.kernel)


def _ipip(parts: _Parts) -> Backend:
    from agent.backends.ipip import IpipPlan
    from agent.backends.kernel_backend import KernelBackend

    plan = IpipPlan(parts.options(IpipOptions), parts.underlay, parts.kernel)
    return KernelBackend(plan, parts.config, parts.underlay, parts.kernel)


def _wireguard(parts: _Parts) -> Backend:
    from agent.backends.kernel_backend import KernelBackend
    from agent.backends.wireguard import WireguardPlan

    networks: dict[Family, IPNetwork] = {4: parts.config.network}
    if parts.config.ipv6_network is not None:
        networks[6] = parts.config.ipv6_network
    key_file = Path(os.environ.get("WIREGUARD_KEY_FILE") or WIREGUARD_KEY_FILE)
    plan = WireguardPlan(parts.options(WireguardOptions), networks, parts.underlay, parts.kernel, key_file)
    return KernelBackend(plan, parts.config, parts.underlay, parts.kernel)


def _alloc(parts: _Parts) -> Backend:
    from agent.backends.alloc import AllocBackend

    return AllocBackend(parts.underlay)


def _extension(parts: _Parts) -> Backend:
    from agent.backends.extension import ExtensionBackend

    return ExtensionBackend(parts.config.network, parts.options(ExtensionOptions), parts.underlay)


BACKENDS: Mapping[str, Callable[[_Parts], Backend]] = {
    "udp": _udp,
    "vxlan": _vxlan,
    "host-gw": _host_gw,
    "ipip": _ipip,
    "wireguard": _wireguard,
    "alloc": _alloc,
    "extension": _extension,
}


def make_backend(config: NetworkConfig, underlay: Underlay, kernel: Kernel, datapath: str, *, offload: bool) -> Backend:
    """Return the backend that the network config asks for, one of BACKENDS. Raises EnvironmentMissing.

    `datapath`: what moves packets, for backends that do it in user space; `offload`: see FouPlan.
    """
    return BACKENDS[config.backend_type](_Parts(config, underlay, kernel, datapath, offload))
