"""The node's bridge for pods, from the values of subnet.env, as dockerd would make it from `--bip` and `--mtu`."""

from ipaddress import IPv4Address, IPv4Interface

from agent.netlink import Kernel


def bridge_mac(address: IPv4Address) -> str:
    """02:42 and the address, as docker has it: the same after every restart, so neighbours stay right."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def converge_bridge(kernel: Kernel, name: str, bip: IPv4Interface, overlay_mtu: int) -> None:
    """Make sure that the bridge `name` is there and up, with exactly the address `bip`, and that the node forwards.

    `overlay_mtu` in bytes. Raises NetlinkError.
    """
    kernel.create_bridge(
        name, mtu=overlay_mtu, mac=bridge_mac(bip.ip), why="pods of this node hang on it; its MTU is the overlay's"
    )
    ipv6 = f"net.ipv6.conf.{name}"
    for setting, value in ((f"{ipv6}.disable_ipv6", "1"), (f"{ipv6}.accept_ra", "0")):
        if kernel.read_sysctl(setting) is not None:
            kernel.sysctl(setting, value, "pods have IPv4 only; none of them may announce itself as a router")
    kernel.ensure_addresses(name, [bip], "the pods' gateway: the first address of this node's subnet")
    kernel.set_up(name, "the bridge carries packets")
    kernel.sysctl("net.ipv4.ip_forward", "1", "the node routes between its pods and the overlay")


def remove_bridge(kernel: Kernel, name: str) -> None:
    """Make sure that the bridge is gone; a device of that name that is no bridge is left alone. Raises NetlinkError."""
    link = kernel.link(name)
    if link is not None and link.kind == "bridge":
        kernel.delete_link(name, "the overlay is removed from this node")
