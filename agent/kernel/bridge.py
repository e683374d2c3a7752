"""The node's bridge for pods, from the values of subnet.env, as dockerd would make it from `--bip` and `--mtu`."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from agent.kernel.kernel import Kernel
from agent.kernel.values import IPInterface, Wanted, WantedAddresses, WantedLink, WantedSysctl


def bridge_mac(address: IPv4Address) -> str:
    """Return 02:42 and the address, as docker has it: the same after every restart, so neighbours stay right."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def ipv6_sysctls(device: str, *, enabled: bool) -> tuple[WantedSysctl, ...]:
    """Return what makes a device of ours have IPv6 or not, and believe no router advertisement."""
    settings = {
        "disable_ipv6": ("0", "the network has IPv6") if enabled else ("1", "the network has IPv4 only"),
        "accept_ra": ("0", "no pod may announce itself as a router"),
    }
    # With slashes, for a device's name may have a dot.
    return tuple(
        WantedSysctl(f"net/ipv6/conf/{device}/{name}", value, why, required=False, device=device)
        for name, (value, why) in settings.items()
    )


def wanted_bridge(name: str, addresses: Sequence[IPInterface], overlay_mtu: int) -> Wanted:
    """Return the bridge `name`, up, with exactly these addresses, on a node that forwards. Pure.

    `addresses`: IPv4, and IPv6 on a dual-stack network; `overlay_mtu` in bytes.
    """
    ipv4 = [address for address in addresses if isinstance(address, IPv4Interface)]
    ipv6 = [address for address in addresses if isinstance(address, IPv6Interface)]
    why = "the pods' gateway: the first address of this node's subnet"
    forwards = "the node routes between its pods and the overlay"
    link = WantedLink(
        name,
        "pods of this node hang on it; its MTU is the overlay's",
        kind="bridge",
        mtu=overlay_mtu,
        mac=bridge_mac(ipv4[0].ip),
        up=True,
    )
    return Wanted(
        links=(link,),
        sysctls=(
            *ipv6_sysctls(name, enabled=bool(ipv6)),
            WantedSysctl("net.ipv4.ip_forward", "1", forwards),
            *((WantedSysctl("net.ipv6.conf.all.forwarding", "1", forwards),) if ipv6 else ()),
        ),
        addresses=(
            WantedAddresses(name, frozenset(ipv4), why),
            *((WantedAddresses(name, frozenset(ipv6), why, family=6),) if ipv6 else ()),
        ),
    )


def converge_bridge(kernel: Kernel, name: str, addresses: Sequence[IPInterface], overlay_mtu: int) -> None:
    """Bring the node's bridge to what `wanted_bridge` says. Raises NetlinkError."""
    kernel.converge(wanted_bridge(name, addresses, overlay_mtu))


def remove_bridge(kernel: Kernel, name: str) -> None:
    """Make sure that the bridge is gone; a device of that name that is no bridge is left alone. Raises NetlinkError."""
    link = kernel.link(name)
    if link is not None and link.kind == "bridge":
        kernel.delete_link(name, "the overlay is removed from this node")
