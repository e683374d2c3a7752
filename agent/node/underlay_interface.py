"""Which interface is the underlay: by --iface, --iface-regex, --iface-can-reach, --public-ip or the default route.

Order and meaning are flannel's (pkg/ip/iface.go, main.go `LookupExtIface`), with one difference: an interface that was
asked for and cannot carry anything (down, no address) is an error that lists what there is instead.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from agent.errors import EnvironmentMissing
from agent.kernel.netlink import Kernel


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interface that could be the underlay."""

    name: str
    up: bool
    mtu: int
    """In bytes."""
    addresses: tuple[IPv4Interface, ...]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.addresses)) or "no IPv4 address"
        return f"{self.name} ({shown}{'' if self.up else ', down'})"


@dataclass(frozen=True, slots=True)
class UnderlayInterface:
    """What was chosen."""

    name: str
    address: IPv4Address
    """The interface's own; the tunnel socket is bound to it."""
    mtu: int
    """In bytes."""


def read_candidates(kernel: Kernel) -> tuple[tuple[Candidate, ...], str | None]:
    """Every interface but loopback, and the device of the default route with the lowest metric, if there is one."""
    candidates = tuple(
        Candidate(link.name, link.up, link.mtu, tuple(sorted(kernel.addresses(link.name), key=_preference)))
        for link in kernel.links()
        if "LOOPBACK" not in link.flags
    )
    defaults = [route for route in kernel.routes() if route.destination.prefixlen == 0 and route.kind == "unicast"]
    best = min(defaults, key=lambda route: route.metric, default=None)
    return candidates, best.device if best else None


@dataclass(frozen=True, slots=True)
class Wish:
    """What the flags say about the underlay, in the order in which it counts."""

    iface: Sequence[str] = ()
    """Names or addresses."""
    regex: Sequence[re.Pattern[str]] = ()
    can_reach: IPv4Address | None = None
    public_ip: IPv4Address | None = None


def choose(
    candidates: Sequence[Candidate],
    wish: Wish,
    default_device: str | None,
    device_towards: Callable[[IPv4Address], str | None] = lambda _: None,
) -> UnderlayInterface:
    """The underlay interface. Raises EnvironmentMissing, which lists the candidates with their addresses."""
    tries: list[Callable[[], UnderlayInterface]] = []
    if wish.iface:
        tries.append(lambda: _by_names(candidates, wish.iface, wish.public_ip))
    tries += [partial(_by_regex, candidates, regex, wish.public_ip) for regex in wish.regex]
    if wish.can_reach is not None:
        tries.append(lambda: _by_route(candidates, wish, device_towards))
    if tries:
        return _first(tries)
    public_ip = wish.public_ip
    if public_ip is not None:
        for candidate in candidates:
            if public_ip in _ips(candidate):
                return _usable(candidate, public_ip, "--public-ip", candidates)
        raise EnvironmentMissing(
            f"--public-ip: no interface has it (got {public_ip}; want --iface beside it, {_list(candidates)})"
        )
    for candidate in candidates:
        if candidate.name == default_device:
            return _usable(candidate, None, "underlay", candidates)
    raise EnvironmentMissing(f"underlay: no default route to choose by (got none; want --iface, {_list(candidates)})")


def _first(tries: Sequence[Callable[[], UnderlayInterface]]) -> UnderlayInterface:
    """What the first of them finds; when none does, what the first complains about."""
    refusals = []
    for attempt in tries:
        try:
            return attempt()
        except EnvironmentMissing as error:
            refusals.append(error)
    raise refusals[0]


def _by_regex(
    candidates: Sequence[Candidate], regex: re.Pattern[str], public_ip: IPv4Address | None
) -> UnderlayInterface:
    """Addresses first, then names, as flannel."""
    for candidate in candidates:
        for address in _ips(candidate):
            if regex.search(str(address)):
                return _usable(candidate, address, "--iface-regex", candidates)
    for candidate in candidates:
        if regex.search(candidate.name):
            return _usable(candidate, public_ip, "--iface-regex", candidates)
    raise EnvironmentMissing(
        f"--iface-regex: in no address and no name (got {regex.pattern!r}; want another, {_list(candidates)})"
    )


def _by_route(
    candidates: Sequence[Candidate], wish: Wish, device_towards: Callable[[IPv4Address], str | None]
) -> UnderlayInterface:
    assert wish.can_reach is not None
    device = device_towards(wish.can_reach)
    for candidate in candidates:
        if candidate.name == device:
            return _usable(candidate, wish.public_ip, "--iface-can-reach", candidates)
    raise EnvironmentMissing(
        f"--iface-can-reach: no interface leads there (got {wish.can_reach}; want another, {_list(candidates)})"
    )


def best_ipv6(addresses: Iterable[IPv6Interface], public: IPv6Address | None) -> IPv6Address | None:
    """The interface's own IPv6 address: the public one if it has that, else a global one; None without any.

    Not a link-local one: other nodes' routes to it would have to name their interface.
    """
    usable = [address for address in addresses if not address.ip.is_link_local]
    best = min(usable, key=lambda it: (it.ip != public, it.network.prefixlen == 128, it.ip), default=None)
    return None if best is None else best.ip


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
                return _usable(candidate, IPv4Address(word) if holding else public_ip, "--iface", candidates)
            except EnvironmentMissing as error:
                # flannel too goes on to the next --iface; the last reason is the one to show.
                refusal = error
    raise refusal


def _usable(
    candidate: Candidate, address: IPv4Address | None, where: str, candidates: Sequence[Candidate]
) -> UnderlayInterface:
    if not candidate.up:
        raise EnvironmentMissing(f"{where}: the interface is down (got {candidate}; want it up, {_list(candidates)})")
    if not candidate.addresses:
        raise EnvironmentMissing(f"{where}: no IPv4 address (got {candidate}; want one with, {_list(candidates)})")
    own = address if address in _ips(candidate) else candidate.addresses[0].ip
    assert own is not None
    return UnderlayInterface(candidate.name, own, candidate.mtu)


def _preference(address: IPv4Interface) -> tuple[bool, bool, IPv4Address]:
    """Global before link-local (flannel's rule); a /32 last, as it is mostly a floating service address."""
    return address.ip.is_link_local, address.network.prefixlen == 32, address.ip


def _ips(candidate: Candidate) -> tuple[IPv4Address, ...]:
    return tuple(address.ip for address in candidate.addresses)


def _list(candidates: Iterable[Candidate]) -> str:
    shown = "; ".join(map(str, candidates))
    return f"here are: {shown}" if shown else "but there is no interface here but loopback"
