"""The node's bridge for pods, from the values of subnet.env, as dockerd would make it from `--bip` and `--mtu`.

Our bridge is recognised by its alias, which the kernel keeps with it, and by a MAC address derived from its IPv4
address: it has that from the start, and so do the bridges of earlier agents. A bridge of another program, or of the
agent of another network, is used if it has our address (dockerd with our `--bip`) or nothing at all. It gets missing
addresses, and is otherwise neither changed nor deleted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from agent.errors import EnvironmentMissing
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPInterface, Link, Wanted, WantedAddresses, WantedLink, WantedSysctl

ALIAS_PREFIX = "made by overlay-agent for "
REMEDY = "dockerd with the agent's docker_opts.env, or another --bridge=NAME: docs/docker.md"


@dataclass(frozen=True, slots=True)
class BridgeClaim:
    """How a bridge of this agent is recognised."""

    networks: tuple[IPv4Network, ...]
    """The pod network, then its earlier ones."""
    addresses: tuple[IPv4Address, ...] = ()
    """The bridge's own, and its earlier ones."""

    @property
    def alias(self) -> str:
        """Return the text that the kernel keeps with the bridge, for people and for agents."""
        return _alias(self.networks[0])


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """The device with the bridge's name."""

    link: Link
    addresses: frozenset[IPInterface] = frozenset()
    """Without those that the kernel assigns itself."""
    ports: int = 0

    def made_by_us(self, claim: BridgeClaim) -> bool:
        """Return whether this agent made it, in this run or an earlier one."""
        own = [address for address in self._ipv4 if any(address in network for network in claim.networks)]
        macs = [bridge_mac(address) for address in (*claim.addresses, *own)]
        aliases = [_alias(network) for network in claim.networks]
        return self.link.kind == "bridge" and (self.link.alias in aliases or self.link.mac in macs)

    def made_by_an_agent(self) -> bool:
        """Return whether any agent made it, for whichever network."""
        return self.link.kind == "bridge" and (
            self.link.alias.startswith(ALIAS_PREFIX) or self.link.mac in [bridge_mac(address) for address in self._ipv4]
        )

    @property
    def _ipv4(self) -> list[IPv4Address]:
        return [address.ip for address in self.addresses if isinstance(address, IPv4Interface)]

    @property
    def unused(self) -> bool:
        """Return whether it is a bridge with neither ports nor addresses."""
        return self.link.kind == "bridge" and not self.ports and not self.addresses

    def __str__(self) -> str:
        ports = [f"{self.ports} port{'s' if self.ports > 1 else ''}"] if self.ports else []
        alias = [f'"{self.link.alias}"'] if self.link.alias else []
        return ", ".join([*alias, *sorted(map(str, self.addresses)), *ports]) or "nothing on it"


def bridge_mac(address: IPv4Address) -> str:
    """Return 02:42 and the address, as docker has it: the same after every restart, so neighbours stay right."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + address.packed)


def objection(
    name: str, found: FoundDevice | None, claim: BridgeClaim, fits: Callable[[IPInterface], bool], want: str = REMEDY
) -> str | None:
    """Return why the device cannot be our bridge; None if it can, or does not exist. Pure.

    `fits`: whether another's bridge with that address may be used.
    """
    if found is None or found.made_by_us(claim) or found.unused:
        return None
    if found.link.kind != "bridge":
        return (
            f"--bridge: {name} is not a bridge (got a {found.link.kind or 'hardware'} device; want another"
            f" --bridge=NAME)"
        )
    if any(map(fits, found.addresses)):
        return None
    return f"--bridge: {name} belongs to another program (got {found}; want {want})"


def ipv6_sysctls(device: str, *, enabled: bool) -> tuple[WantedSysctl, ...]:
    """Return the sysctls that give our device IPv6 or not, and make it ignore router advertisements."""
    settings = {
        "disable_ipv6": ("0", "the network has IPv6") if enabled else ("1", "the network has IPv4 only"),
        "accept_ra": ("0", "no pod may announce itself as a router"),
    }
    # With slashes, since a device's name may contain a dot.
    return tuple(
        WantedSysctl(f"net/ipv6/conf/{device}/{name}", value, why, required=False, device=device)
        for name, (value, why) in settings.items()
    )


def find(kernel: Kernel, name: str, claim: BridgeClaim | None = None) -> FoundDevice | None:
    """Return the device of that name, if it exists.

    Raises NetlinkError. Addresses and ports are read only if the claim needs them.
    """
    link = kernel.link(name)
    if link is None:
        return None
    device = FoundDevice(link)
    if claim is not None and device.made_by_us(claim):
        return device
    assigned = (*kernel.assigned_addresses(4), *kernel.assigned_addresses(6))
    addresses = frozenset(
        one.address for one in assigned if one.device == link.index and not one.address.ip.is_link_local
    )
    return replace(device, addresses=addresses, ports=sum(other.master == link.index for other in kernel.links()))


def wanted_bridge(name: str, addresses: Sequence[IPInterface], overlay_mtu: int, alias: str) -> Wanted:
    """Return our bridge `name`, up, with exactly these addresses, on a node that forwards. Pure.

    `addresses`: IPv4, and IPv6 on a dual-stack network; `overlay_mtu` in bytes.
    """
    link = WantedLink(
        name,
        "the bridge of this node's pods; its MTU is the overlay's",
        kind="bridge",
        mtu=overlay_mtu,
        mac=bridge_mac(_ipv4_of(addresses)),
        alias=alias,
        up=True,
    )
    ipv6 = any(address.version == 6 for address in addresses)
    return Wanted(links=(link,), sysctls=ipv6_sysctls(name, enabled=ipv6)) + _gateway(name, addresses, frozenset())


def wanted_of_other(name: str, addresses: Sequence[IPInterface], present: frozenset[IPInterface]) -> Wanted:
    """Return another program's bridge `name` with these addresses in addition to its own. Pure."""
    link = WantedLink(name, "the bridge carries packets", up=True)
    return Wanted(links=(link,)) + _gateway(name, addresses, present)


def converge_bridge(
    kernel: Kernel, name: str, addresses: Sequence[IPInterface], overlay_mtu: int, claim: BridgeClaim
) -> None:
    """Bring the node's bridge to its wanted state.

    Raises NetlinkError, and EnvironmentMissing if another program owns a device of that name.
    """
    claim = replace(claim, addresses=(_ipv4_of(addresses), *claim.addresses))
    wanted = wanted_bridge(name, addresses, overlay_mtu, claim.alias)
    made: list[str] = []
    if (found := find(kernel, name, claim)) is None:
        # Only the link: another program may create one of that name at the same moment.
        kernel.converge(Wanted(links=(replace(wanted.links[0], alias=None, up=None),)))
        found, made = find(kernel, name, claim), [name]
    want = f"{next(address for address in addresses if address.version == 4)}: {REMEDY}"
    if complaint := objection(name, found, claim, addresses.__contains__, want):
        raise EnvironmentMissing(complaint)
    if found is not None and not found.made_by_us(claim):
        wanted, made = wanted_of_other(name, addresses, found.addresses), []
    kernel.converge(wanted, new=made, known=[] if found is None else [found.link])


def refuse_second_bridge(kernel: Kernel, name: str | None, network: IPv4Network) -> None:
    """Raise EnvironmentMissing if two bridges have an address in the network: `name` and another, or two others.

    flannel's CNI plugin makes cni0 with the address that ours has: then the kernel has two routes. Raises NetlinkError.
    """
    holders = {
        held.device: held.address
        for held in kernel.assigned_addresses(4)
        if held.address.ip in network and held.address.network.prefixlen < held.address.max_prefixlen
    }
    own = kernel.link(name) if name is not None else None
    holders.pop(own.index if own is not None else 0, None)
    if len(holders) < (1 if name is not None else 2):
        return
    bridges = [link for link in kernel.links() if link.index in holders and link.kind == "bridge"]
    names = ([name] if name is not None else []) + [link.name for link in bridges]
    if len(names) >= 2:
        other = bridges[-1]
        raise EnvironmentMissing(
            f"--bridge: two bridges have an address for pods, so those of one are unreachable"
            f" (got {other.name} with {holders[other.index]} beside {names[0]}; want --bridge={other.name},"
            f" or --bridge= if another program makes it, and `ip link delete` for the other: docs/cni.md)"
        )


def remove_bridge(kernel: Kernel, name: str) -> str | None:
    """Delete the bridge if an agent made it; describe any other, which stays. Raises NetlinkError."""
    found = find(kernel, name)
    if found is None:
        return None
    if not found.made_by_an_agent():
        return f"{name} ({found})"
    kernel.delete_link(name, "removing the overlay from this node")
    return None


def _gateway(name: str, addresses: Sequence[IPInterface], present: frozenset[IPInterface]) -> Wanted:
    """Return the wanted addresses of each family, in addition to those present, and forwarding switched on."""
    why, forwards = (
        "the pods' gateway: the first address of this node's subnet",
        "the node forwards between its pods and the overlay",
    )
    families: tuple[Family, ...] = (4, 6) if any(address.version == 6 for address in addresses) else (4,)
    sysctls = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    return Wanted(
        sysctls=tuple(WantedSysctl(sysctls[family], "1", forwards) for family in families),
        addresses=tuple(
            WantedAddresses(
                name, frozenset(one for one in (*addresses, *present) if one.version == family), why, family=family
            )
            for family in families
        ),
    )


def _ipv4_of(addresses: Sequence[IPInterface]) -> IPv4Address:
    return next(address.ip for address in addresses if isinstance(address, IPv4Interface))


def _alias(network: IPv4Network) -> str:
    return f"{ALIAS_PREFIX}{network}"
