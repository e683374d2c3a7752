"""The ways to carry packets between nodes, by the name that the network config uses for them."""

from collections.abc import Callable, Mapping

from agent.backends.base import Backend, Underlay
from agent.config import NetworkConfig, udp_port
from agent.errors import InvalidConfig
from agent.netlink import Kernel

__all__ = ["BACKENDS", "Underlay", "make_backend"]

Maker = Callable[[NetworkConfig, Underlay, Kernel, str], Backend]


def _udp(config: NetworkConfig, underlay: Underlay, kernel: Kernel, datapath: str) -> Backend:
    # Imported when chosen: other backends need neither its data path nor its sockets.
    from agent.backends.udp import UdpBackend

    return UdpBackend(config.network, udp_port(config), underlay, kernel, datapath)


BACKENDS: Mapping[str, Maker] = {"udp": _udp}


def make_backend(config: NetworkConfig, underlay: Underlay, kernel: Kernel, datapath: str = "auto") -> Backend:
    """The backend that the network config asks for. Raises InvalidConfig for an unknown one, EnvironmentMissing.

    `datapath`: what moves packets, for backends that do it in user space.
    """
    maker = BACKENDS.get(config.backend_type)
    if maker is None:
        known = ", ".join(sorted(BACKENDS))
        raise InvalidConfig(
            f"network config: Backend.Type: unknown backend (got {config.backend_type!r}; want {known})"
        )
    return maker(config, underlay, kernel, datapath)
