"""The node's bridge for pods, from the values of subnet.env, as dockerd would make it from `--bip` and `--mtu`."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from agent.kernel.ipv6_settings import set_ipv6
from agent.kernel.netlink import Kernel
from agent.kernel.values import IPInterface


def bridge_mac(address: IPv4Address) -> str:
    """02:42 and the address, as docker has it: the same after every restart, so neighbours stay right."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def converge_bridge(kernel: Kernel, name: str, addresses: Sequence[IPInterface], overlay_mtu: int) -> None:
    """Make sure that the bridge `name` is there and up, with exactly these addresses, and that the node forwards.

    `addresses`: IPv4, and IPv6 on a dual-stack network; `overlay_mtu` in bytes. Raises NetlinkError.
    """
    ipv4 = [address for address in addresses if isinstance(address, IPv4Interface)]
    ipv6 = [address for address in addresses if isinstance(address, IPv6Interface)]
    kernel.create_bridge(
        name, mtu=overlay_mtu, mac=bridge_mac(ipv4[0].ip), why="pods of this node hang on it; its MTU is the overlay's"
    )
    set_ipv6(kernel, name, enabled=bool(ipv6))
    why = "the pods' gateway: the first address of this node's subnet"
    kernel.ensure_addresses(name, ipv4, why)
    if ipv6:
        kernel.ensure_addresses(name, ipv6, why, family=6)
    kernel.set_up(name, "the bridge carries packets")
    forwards = "the node routes between its pods and the overlay"
    kernel.sysctl("net.ipv4.ip_forward", "1", forwards)
    if ipv6:
        kernel.sysctl("net.ipv6.conf.all.forwarding", "1", forwards)


def remove_bridge(kernel: Kernel, name: str) -> None:
    """Make sure that the bridge is gone; a device of that name that is no bridge is left alone. Raises NetlinkError."""
    link = kernel.link(name)
    if link is not None and link.kind == "bridge":
        kernel.delete_link(name, "the overlay is removed from this node")
