"""What an overlay device or bridge of ours does about IPv6."""

from agent.kernel.netlink import Kernel


def set_ipv6(kernel: Kernel, device: str, *, enabled: bool) -> None:
    """Make sure that the device has IPv6 or has not, and believes no router advertisement. Raises NetlinkError."""
    settings = {
        "disable_ipv6": ("0", "the network has IPv6") if enabled else ("1", "the network has IPv4 only"),
        "accept_ra": ("0", "no pod may announce itself as a router"),
    }
    for name, (value, why) in settings.items():
        # With slashes, for a device's name may have a dot.
        kernel.sysctl_if_known(f"net/ipv6/conf/{device}/{name}", value, why)
