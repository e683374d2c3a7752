"""Choose the underlay's interface and address.

Pure except for the functions that read the kernel. Order and meaning are flannel's (pkg/ip/iface.go, main.go
`LookupExtIface`), with these differences: a requested interface that cannot carry anything (down, no address) is an
error that lists the alternatives; an IPv4 address in the network of an earlier one (secondary, to the kernel) is taken
only by name; so is a /32 or /128 beside another, which is mostly a floating service address; and a default route
determines its own source address.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from agent.errors import EnvironmentMissing
from agent.kernel.kernel import Kernel
from agent.kernel.values import ROUTE_SCOPES, AssignedAddress, Family, Route
from agent.options.go_regex import GoRegex


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interface that could be the underlay."""

    name: str
    up: bool
    mtu: int
    """In bytes."""
    addresses: tuple[AssignedAddress, ...]
    """IPv4, in the kernel's order."""

    def __str__(self) -> str:
        shown = ", ".join(str(held.address) for held in self.addresses) or "no IPv4 address"
        return f"{self.name} ({shown}{'' if self.up else ', down'})"


@dataclass(frozen=True, slots=True)
class UnderlayInterface:
    """The chosen interface."""

    name: str
    address: IPv4Address
    """This node's own; the tunnel socket is bound to it."""
    mtu: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The flags about the underlay, in order of priority."""

    iface: Sequence[str] = ()
    """Names or addresses."""
    regex: Sequence[GoRegex] = ()
    can_reach: IPv4Address | None = None
    public_ip: IPv4Address | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the default route decides."""
        return not (self.iface or self.regex or self.can_reach or self.public_ip)


# Reads


def read_candidates(kernel: Kernel) -> tuple[Candidate, ...]:
    """Return every interface but loopback."""
    addresses = kernel.assigned_addresses()
    return tuple(
        Candidate(link.name, link.up, link.mtu, tuple(held for held in addresses if held.device == link.index))
        for link in kernel.links()
        if "LOOPBACK" not in link.flags
    )


def read_ipv6_addresses(kernel: Kernel, name: str) -> tuple[AssignedAddress, ...]:
    """Return the IPv6 addresses of one interface in the kernel's order."""
    link = kernel.link(name)
    return tuple(held for held in kernel.assigned_addresses(6) if link is not None and held.device == link.index)


def read_default_route(kernel: Kernel, family: Family = 4) -> Route | None:
    """Return the default route with the lowest metric."""
    defaults = [route for route in kernel.routes(family) if route.destination.prefixlen == 0]
    return min((route for route in defaults if route.kind == "unicast"), key=lambda route: route.metric, default=None)


# Choices


def choose(
    candidates: Sequence[Candidate],
    wish: Wish,
    default_route: Route | None,
    route_towards: Callable[[IPv4Address], Route | None] = lambda _: None,
) -> UnderlayInterface:
    """Choose the underlay interface. Raises EnvironmentMissing with a list of the candidates and their addresses."""
    tries: list[Callable[[], UnderlayInterface]] = []
    if wish.iface:
        tries.append(lambda: _by_names(candidates, wish.iface, wish.public_ip))
    tries += [partial(_by_regex, candidates, regex, wish.public_ip) for regex in wish.regex]
    if wish.can_reach is not None:
        tries.append(lambda: _by_route(candidates, wish, route_towards))
    if tries:
        return _first(tries)
    public_ip = wish.public_ip
    if public_ip is not None:
        for candidate in candidates:
            if public_ip in _ips(candidate):
                return _usable(candidate, public_ip, "--public-ip", candidates)
        raise EnvironmentMissing(
            f"--public-ip: no interface has it (got {public_ip}; also want --iface, {_list(candidates)})"
        )
    for candidate in candidates:
        if default_route is not None and candidate.name == default_route.device:
            return _usable(candidate, source_of(default_route, candidate.addresses), "underlay", candidates)
    raise EnvironmentMissing(f"underlay: no default route (got none; want --iface, {_list(candidates)})")


def keep(candidates: Sequence[Candidate], name: str, address: IPv4Address) -> UnderlayInterface | None:
    """Return the chosen interface and its address; None when it no longer has that.

    Raises EnvironmentMissing while the interface is down.
    """
    for candidate in candidates:
        if candidate.name == name and address in _ips(candidate):
            return _usable(candidate, address, "underlay", candidates)
    return None


def choose_ipv6(
    addresses: Sequence[AssignedAddress], named: Sequence[IPv6Address | None], source: IPv6Address | None = None
) -> IPv6Address | None:
    """Choose the IPv6 address: the first existing one of `named`, else the route's source, else as for IPv4."""
    present = {held.address.ip for held in addresses}
    found = next((address for address in named if address in present), source)
    return found or next((ip for held in _in_order(addresses) if isinstance(ip := held.address.ip, IPv6Address)), None)


def source_of(route: Route, addresses: Sequence[AssignedAddress]) -> IPv4Address | None:
    """Return the source address that the kernel uses for this route (`inet_select_addr`): the route's own, else the
    device's first address in the gateway's network, else its first.
    """
    if isinstance(route.source, IPv4Address):
        return route.source
    scope = ROUTE_SCOPES.get(route.scope, 0)
    fitting = [held.address for held in addresses if not held.secondary and held.scope <= scope]
    near = [address for address in fitting if route.gateway is not None and route.gateway in address.network]
    return next((address.ip for address in near or fitting if isinstance(address.ip, IPv4Address)), None)


def _first(tries: Sequence[Callable[[], UnderlayInterface]]) -> UnderlayInterface:
    """Return the first success of these; if none succeeds, raise the first error."""
    refusals = []
    for attempt in tries:
        try:
            return attempt()
        except EnvironmentMissing as error:
            refusals.append(error)
    raise refusals[0]


def _by_regex(candidates: Sequence[Candidate], regex: GoRegex, public_ip: IPv4Address | None) -> UnderlayInterface:
    """Match addresses first, then names, as flannel does."""
    for candidate in candidates:
        for address in (*_preferred(candidate), *_ips(candidate)):
            if regex.search(str(address)):
                return _usable(candidate, address, "--iface-regex", candidates)
    for candidate in candidates:
        if regex.search(candidate.name):
            return _usable(candidate, _held(candidate, public_ip), "--iface-regex", candidates)
    raise EnvironmentMissing(
        f"--iface-regex: matches no address and no name (got {regex.pattern!r}; want another, {_list(candidates)})"
    )


def _by_route(
    candidates: Sequence[Candidate], wish: Wish, route_towards: Callable[[IPv4Address], Route | None]
) -> UnderlayInterface:
    assert wish.can_reach is not None
    route = route_towards(wish.can_reach)
    for candidate in candidates:
        if route is not None and candidate.name == route.device:
            address = _held(candidate, wish.public_ip) or source_of(route, candidate.addresses)
            return _usable(candidate, address, "--iface-can-reach", candidates)
    raise EnvironmentMissing(
        f"--iface-can-reach: no interface reaches it (got {wish.can_reach}; want another, {_list(candidates)})"
    )


def _by_names(
    candidates: Sequence[Candidate], wanted: Sequence[str], public_ip: IPv4Address | None
) -> UnderlayInterface:
    refusal = EnvironmentMissing(
        f"--iface: no such interface or address (got {', '.join(wanted)}; want another, {_list(candidates)})"
    )
    for word in wanted:
        named = [candidate for candidate in candidates if candidate.name == word]
        holding = [candidate for candidate in candidates if word in map(str, _ips(candidate))]
        if len(holding) > 1:
            refusal = EnvironmentMissing(
                f"--iface: several interfaces have this address (got {word}; want the name of one, {_list(holding)})"
            )
            continue
        for candidate in named or holding:
            try:
                address = IPv4Address(word) if holding else _held(candidate, public_ip)
                return _usable(candidate, address, "--iface", candidates)
            except EnvironmentMissing as error:
                # flannel also continues with the next --iface; the last reason is the one to show.
                refusal = error
    raise refusal


def _usable(
    candidate: Candidate, address: IPv4Address | None, where: str, candidates: Sequence[Candidate]
) -> UnderlayInterface:
    """Return the interface with that address, else with its best one."""
    if not candidate.up:
        raise EnvironmentMissing(f"{where}: the interface is down (got {candidate}; want it up, {_list(candidates)})")
    own = address or next(iter(_preferred(candidate)), None)
    if own is None:
        raise EnvironmentMissing(
            f"{where}: no IPv4 address (got {candidate}; want another interface, {_list(candidates)})"
        )
    return UnderlayInterface(candidate.name, own, candidate.mtu)


def _in_order(addresses: Iterable[AssignedAddress]) -> list[AssignedAddress]:
    """Return the addresses that need not be named, the best first; ties stay in the kernel's order."""
    return sorted(filter(_may_be_taken, addresses), key=_rank)


def _may_be_taken(held: AssignedAddress) -> bool:
    # Other nodes' routes to an IPv6 link-local address would have to name their interface.
    local = held.scope >= ROUTE_SCOPES["host"] or (held.address.version == 6 and held.address.is_link_local)
    return not (held.secondary or held.duplicate or local)


def _rank(held: AssignedAddress) -> tuple[bool, ...]:
    narrow = held.address.is_link_local or held.scope == ROUTE_SCOPES["link"]
    alone = held.address.network.prefixlen == held.address.max_prefixlen
    return narrow, held.deprecated, alone, not held.permanent, held.temporary


def _preferred(candidate: Candidate) -> list[IPv4Address]:
    return [ip for held in _in_order(candidate.addresses) if isinstance(ip := held.address.ip, IPv4Address)]


def _ips(candidate: Candidate) -> tuple[IPv4Address, ...]:
    return tuple(ip for held in candidate.addresses if isinstance(ip := held.address.ip, IPv4Address))


def _held(candidate: Candidate, address: IPv4Address | None) -> IPv4Address | None:
    return address if address in _ips(candidate) else None


def _list(candidates: Iterable[Candidate]) -> str:
    shown = "; ".join(map(str, candidates))
    return f"candidates: {shown}" if shown else "but loopback is the only interface"
