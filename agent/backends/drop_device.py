"""The device that drops the overlay's packets while the agent is dead: a TUN device that no process has open.

The udp backend's own device goes with its process, killed or not. If packets were refused from then on, a connection
opened before the next start would fail at once with "No route to host"; if they are dropped silently, its SYN is
retransmitted. The kernel does that with packets for a TUN device without a process, and this one is persistent. Its
route counts only while flannel0 is gone. An agent that is stopped on purpose removes it, so that the `unreachable`
route answers.

It also has the node's overlay address, which therefore survives flannel0: the node's own connections start with it and
keep it.

flannel0 itself is not persistent, because a real flanneld that replaces us creates its TUN device under the first free
name of `flannel%d`, and no route if one to the same network with the same metric exists.
"""

import re
from ipaddress import IPv4Interface, IPv4Network

from agent.backends.base import OWN_ADDRESS
from agent.backends.subnet_routes import drop_route
from agent.datapath.tun import open_tun
from agent.kernel.kernel import Kernel
from agent.kernel.values import Link, Wanted, WantedAddresses, WantedLink, WantedRoute, WantedSysctl

DROP_DEVICES = "overlay-drop"
"""Prefix of their names; a number follows, as in flannel0: there is one for each pod network."""
_NAME = re.compile(DROP_DEVICES + r"\d+")


def is_drop_device(link: Link) -> bool:
    """Report whether an agent made this link, for any network."""
    return link.kind == "tun" and _NAME.fullmatch(link.name) is not None


def find_drop_device(kernel: Kernel, network: IPv4Network) -> str | None:
    """Find the network's drop device by its address. Raises NetlinkError."""
    for link in kernel.links():
        if is_drop_device(link) and any(address.ip in network for address in kernel.addresses(link.name)):
            return link.name
    return None


def make_drop_device(kernel: Kernel, address: IPv4Interface) -> str:
    """Create one with this address and return its name. Raises EnvironmentMissing and NetlinkError."""
    device = open_tun(f"{DROP_DEVICES}%d")
    try:
        name, why = device.name, "while the agent is dead, packets are dropped here, not refused"
        kernel.journal.record(["ip", "tuntap", "add", "dev", name, "mode", "tun"], why)
        carrier = "a device that no process has open has no carrier; its route is used all the same"
        sysctl = WantedSysctl(f"net/ipv4/conf/{name}/ignore_routes_with_linkdown", "0", carrier, required=False)
        kernel.converge(Wanted(sysctls=(sysctl,), addresses=(_addresses(name, address),)), new=(name,))
        # Only now, so that none is left behind without an address; no later run could identify it.
        device.leave()
    finally:
        device.close()
    return name


def wanted_drop_device(name: str, network: IPv4Network, address: IPv4Interface, mtu: int) -> Wanted:
    """Return the wanted state of the device once it exists; MTU in bytes."""
    sizes = "connections opened while the agent is dead take their segment size from its MTU"
    return Wanted(
        links=(WantedLink(name, sizes, mtu=mtu, up=True),),
        addresses=(_addresses(name, address),),
        routes=(WantedRoute(drop_route(network, name), "while the agent is dead, packets are lost, not refused"),),
    )


def remove_drop_device(kernel: Kernel, network: IPv4Network, why: str) -> None:
    """Make sure that the network has no drop device. Raises NetlinkError."""
    name = find_drop_device(kernel, network)
    if name is not None:
        kernel.delete_link(name, why)


def _addresses(name: str, address: IPv4Interface) -> WantedAddresses:
    return WantedAddresses(name, frozenset({address}), OWN_ADDRESS)
