"""Build the agent's parts from its options, for the agent and for the commands beside it."""

from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from agent.backends import BACKENDS
from agent.backends.base import Underlay
from agent.backends.subnet_routes import overlap
from agent.errors import EnvironmentMissing, InvalidConfig, UsageError
from agent.etcd.connection import Credentials
from agent.etcd.registry import EtcdRegistry
from agent.kernel.bridge import find, objection, refuse_second_bridge
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPNetwork
from agent.netconfig.config import NetworkConfig
from agent.node.setup import bridge_claim
from agent.node.underlay_interface import (
    Wish,
    choose,
    choose_ipv6,
    keep,
    read_candidates,
    read_default_route,
    read_ipv6_addresses,
)
from agent.options.options import Options


def choose_underlay(
    options: Options, kernel: Kernel, *, ipv6: bool = False, current: Underlay | None = None
) -> Underlay:
    """Choose the underlay by --iface, --public-ip or default route; with `ipv6` also its IPv6 address.

    `current` is what a running agent has: its addresses stay for as long as their interface has them. Raises
    EnvironmentMissing, which lists the candidates.
    """
    wish = Wish(options.iface, options.iface_regex, options.iface_can_reach, options.public_ip)
    candidates = read_candidates(kernel)
    chosen = None if current is None else keep(candidates, current.interface, current.address)
    if chosen is None:
        chosen = choose(candidates, wish, read_default_route(kernel), kernel.route_to)
    own_ipv6 = _choose_ipv6(chosen.name, options, wish, kernel, current) if ipv6 else None
    return Underlay(
        chosen.name,
        chosen.address,
        chosen.mtu,
        options.public_ip or chosen.address,
        own_ipv6,
        (options.public_ipv6 or own_ipv6) if ipv6 else None,
    )


def _choose_ipv6(interface: str, options: Options, wish: Wish, kernel: Kernel, current: Underlay | None) -> IPv6Address:
    route = read_default_route(kernel, 6) if wish.is_empty else None
    source = route.source if route is not None and route.device == interface else None
    named = (current.ipv6_address if current is not None else None, options.public_ipv6)
    addresses = read_ipv6_addresses(kernel, interface)
    found = choose_ipv6(addresses, named, source if isinstance(source, IPv6Address) else None)
    if found is None:
        raise EnvironmentMissing(
            f"{interface}: no IPv6 address for a network with EnableIPv6 (got none; want a global one)"
        )
    return found


def open_registry(options: Options) -> EtcdRegistry:
    """Return the registry that the options name; no connection is made yet."""
    credentials = Credentials(
        ca_file=options.etcd_cafile,
        cert_file=options.etcd_certfile,
        key_file=options.etcd_keyfile,
        user=options.etcd_username,
        password=options.etcd_password,
    )
    return EtcdRegistry(options.etcd_endpoints, options.etcd_prefix, credentials)


def certificates_of(options: Options) -> list[Path]:
    """Return the certificates whose expiry would cut us off from etcd."""
    return [file for file in (options.etcd_certfile, options.etcd_cafile) if file is not None]


def refuse_unknown_backend(config: NetworkConfig) -> None:
    """Raise InvalidConfig for an unsupported backend type; the agent then waits for the next config."""
    if config.backend_type not in BACKENDS:
        raise InvalidConfig(
            f"network config: Backend.Type: unknown backend (got {config.backend_type!r}; want {', '.join(BACKENDS)})"
        )


def refuse_conflicts(config: NetworkConfig, kernel: Kernel) -> None:
    """Raise EnvironmentMissing when a network of this machine is in the pod network: its hosts would be unreachable.

    Bridges and overlay devices are exempt: they may hold an earlier subnet of this node, and are moved to the new one.
    """
    others = [link.name for link in kernel.links() if link.kind != "bridge" and not link.name.startswith("flannel")]
    shares: list[tuple[Family, IPNetwork | None]] = [(4, config.network), (6, config.ipv6_network)]
    for family, network in shares:
        for route in kernel.routes(family) if network is not None else ():
            if route.protocol == "kernel" and route.device in others and overlap(route.destination, network):
                raise EnvironmentMissing(
                    f"{route.device}: its network and the pod network overlap"
                    f" (got {route.destination}; want one outside {network}, or another Network in etcd)"
                )


def refuse_other_bridge(options: Options, config: NetworkConfig, kernel: Kernel) -> None:
    """Raise EnvironmentMissing when --bridge names a device of another program, or another bridge is in its place.

    The named bridge is fine with an address in the pod network: dockerd made it from our docker_opts.env.
    """
    if options.bridge is None:
        return
    claim = bridge_claim(options.subnet_file, config.network)
    networks = [network for network in (config.network, config.ipv6_network) if network is not None]
    complaint = objection(
        options.bridge,
        find(kernel, options.bridge, claim),
        claim,
        lambda address: any(address.ip in network for network in networks),
    )
    if complaint is not None:
        raise EnvironmentMissing(complaint)
    refuse_second_bridge(kernel, options.bridge, config.network)


def refuse_underlay_inside(underlay: Underlay, config: NetworkConfig, options: Options) -> None:
    """Raise UsageError or EnvironmentMissing when nodes would be reached through the overlay that they carry."""
    if underlay.public_ip in config.network:
        fault = UsageError if options.public_ip is not None else EnvironmentMissing
        raise fault(
            f"{'--public-ip' if options.public_ip else underlay.interface}: is in the pod network"
            f" (got {underlay.public_ip}; want an address outside {config.network})"
        )
    for address in (underlay.public_ipv6, underlay.ipv6_address):
        if address is not None and overlap(IPv6Network(address), config.ipv6_network):
            raise EnvironmentMissing(
                f"{underlay.interface}: is in the pod network"
                f" (got {address}; want an address outside {config.ipv6_network})"
            )
    if underlay.address in config.network:
        raise EnvironmentMissing(
            f"{underlay.interface}: is in the pod network"
            f" (got {underlay.address}; want an address outside {config.network})"
        )
