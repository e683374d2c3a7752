"""The peers of one node, kept equal to what etcd reports. Pure: results in, peers and refusals out.

Events may arrive twice, late or out of order: per key only the highest mod_revision counts, and a snapshot replaces
everything before it. Any writer to etcd can claim anything, so each lease is checked before it becomes a peer; a
refused one stays known, in case its conflict is resolved.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from agent.lease import Lease, LeaseAdded, LeaseRemoved, Snapshot, Subnet, WatchResult
from agent.netconfig.config import NetworkConfig

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Refusal:
    """A lease that does not become a peer, and why."""

    lease: Lease
    reason: str


def refusal(lease: Lease, config: NetworkConfig, own: Subnet, own_public_ip: IPv4Address) -> str | None:
    """Return why this lease, taken alone, must not become a peer; None if it may.

    SubnetMin and SubnetMax do not matter: an operator may narrow them while older leases live on.
    """
    ipv4, public_ip = lease.subnet.ipv4, lease.attrs.public_ip
    if not ipv4.subnet_of(config.network):
        return f"subnet is outside the network {config.network}"
    if ipv4.prefixlen != config.subnet_len:
        return f"subnet is a /{ipv4.prefixlen}, not a /{config.subnet_len}"
    ipv6 = lease.subnet.ipv6
    if ipv6 is not None and config.ipv6_network is not None:
        if not ipv6.subnet_of(config.ipv6_network):
            return f"subnet is outside the network {config.ipv6_network}"
        if ipv6.prefixlen != config.ipv6_subnet_len:
            return f"subnet is a /{ipv6.prefixlen}, not a /{config.ipv6_subnet_len}"
    if lease.subnet.overlaps(own):
        return f"subnet overlaps our own {own}"
    problem = _problem_of(public_ip, config.network) or ("is our own" if public_ip == own_public_ip else None)
    if problem is not None:
        return f"public address {public_ip} {problem}"
    public_ipv6 = lease.attrs.public_ipv6
    if public_ipv6 is None or config.ipv6_network is None:
        return None
    problem = _problem_of(public_ipv6, config.ipv6_network)
    return None if problem is None else f"public address {public_ipv6} {problem}"


def _problem_of(public: IPv4Address | IPv6Address, overlay: Network) -> str | None:
    """Return why packets for other nodes must not be sent to this address."""
    reasons = {
        "is a loopback address": public.is_loopback,
        "is a multicast address": public.is_multicast,
        # Of IPv6 most is reserved, and some networks use such addresses all the same.
        "is not a node's address": public.packed[0] == 0 or (public.version == 4 and public.is_reserved),
        f"is inside the overlay network {overlay}": public in overlay,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


class LeaseTable:
    """Who holds which subnet, as one node sees it. Our own subnet is never a peer."""

    def __init__(self, config: NetworkConfig, own: Subnet, own_public_ip: IPv4Address) -> None:
        self._config = config
        self._own = own
        self._own_public_ip = own_public_ip
        self._known: dict[Subnet, Lease] = {}
        self._sharers: dict[Network, set[Subnet]] = {}
        """Network of one family → the known subnets that have it: two of them cannot both be peers."""
        self._last_revision: dict[Subnet, int] = {}
        self._refusals: dict[Subnet, str] = {}
        self._verdicts: dict[tuple[Subnet, IPv4Address, IPv6Address | None], str | None] = {}
        self._peers: dict[Subnet, Lease] = {}
        self._reported: set[tuple[Subnet, str]] = set()
        self._floor = 0
        self.revision = 0
        """etcd's store revision up to which the table is complete."""

    @property
    def peers(self) -> tuple[Lease, ...]:
        """Return the peers, sorted by subnet."""
        return tuple(self._peers.values())

    @property
    def own_lease(self) -> Lease | None:
        """Return etcd's last value under our own subnet, whoever owns it."""
        return self._known.get(self._own)

    @property
    def refused(self) -> Mapping[Subnet, str]:
        """Return every refused lease, with the reason."""
        return dict(self._refusals)

    def apply(self, result: WatchResult, *, keep_missing: bool = False) -> tuple[Refusal, ...]:
        """Apply `result` and return the refusals that were not reported before.

        `keep_missing`: peers missing from a snapshot stay; our own lease never does.
        """
        if isinstance(result, Snapshot):
            kept = {subnet: lease for subnet, lease in self._peers.items() if keep_missing and subnet != self._own}
            self._know({**kept, **result.leases})
            # A snapshot may be older than our state: etcd was restored from a backup. It is the truth all the same.
            self._floor = self.revision = result.revision
            self._admit({*self._known, *self._peers, *self._refusals})
            return self._unreported()
        touched = {subnet for event in result.events if (subnet := self._take_event(event)) is not None}
        self.revision = max(self.revision, result.revision)
        self._admit(self._and_sharers(touched))
        return self._unreported()

    def _know(self, leases: dict[Subnet, Lease]) -> None:
        self._known = leases
        self._sharers.clear()
        for subnet in leases:
            for network in _networks(subnet):
                self._sharers.setdefault(network, set()).add(subnet)
        self._last_revision.clear()
        self._verdicts.clear()

    def _take_event(self, event: LeaseAdded | LeaseRemoved) -> Subnet | None:
        """Return the event's subnet; None if something newer is known about it."""
        if isinstance(event, LeaseAdded):
            subnet, mod_revision = event.lease.subnet, event.lease.mod_revision
        else:
            subnet, mod_revision = event.subnet, event.mod_revision
        if mod_revision <= max(self._floor, self._last_revision.get(subnet, 0)):
            return None
        self._last_revision[subnet] = mod_revision
        if isinstance(event, LeaseAdded):
            self._known[subnet] = event.lease
            for network in _networks(subnet):
                self._sharers.setdefault(network, set()).add(subnet)
        else:
            self._known.pop(subnet, None)
        return subnet

    def _and_sharers(self, touched: Collection[Subnet]) -> set[Subnet]:
        """Return these, and every subnet whose admission can depend on theirs: those that share a network,
        transitively.
        """
        found, coming = set(touched), list(touched)
        while coming:
            for network in _networks(coming.pop()):
                more = self._sharers.get(network, set()) - found
                found |= more
                coming += more
        return found

    def _refusal(self, lease: Lease) -> str | None:
        """Return `refusal`, cached: with a thousand nodes it is most of the work of an event."""
        subject = (lease.subnet, lease.attrs.public_ip, lease.attrs.public_ipv6)
        if subject not in self._verdicts:
            self._verdicts[subject] = refusal(lease, self._config, self._own, self._own_public_ip)
        return self._verdicts[subject]

    def _admit(self, subnets: Collection[Subnet]) -> None:
        """Choose the peers among these again.

        The current holder of a subnet keeps it against a newcomer. No subnet outside of `subnets` shares a network with
        one of them, so the cost is that of the event.
        """
        peers: dict[Subnet, Lease] = {}
        claimed: dict[Network, Subnet] = {}
        refusals: dict[Subnet, str] = {}
        leases = [self._known[subnet] for subnet in subnets if subnet in self._known and subnet != self._own]
        for lease in sorted(leases, key=lambda it: (it.subnet not in self._peers, it.mod_revision)):
            # Valid subnets all have the same length, so two overlap only if they are equal in a family.
            shares = _networks(lease.subnet)
            reason = self._refusal(lease)
            if reason is None:
                holder = next((claimed[network] for network in shares if network in claimed), None)
                reason = None if holder is None else f"subnet overlaps {holder}, which was first"
            if reason is not None:
                refusals[lease.subnet] = reason
                continue
            claimed.update(dict.fromkeys(shares, lease.subnet))
            peers[lease.subnet] = lease
        before = {subnet: self._peers[subnet] for subnet in subnets if subnet in self._peers}
        self._forget(subnet for subnet in subnets if subnet not in self._known)
        # Both are replaced as a whole: another thread may be reading.
        self._refusals = {it: why for it, why in self._refusals.items() if it not in subnets} | refusals
        if peers != before:
            others = {subnet: lease for subnet, lease in self._peers.items() if subnet not in subnets}
            self._peers = dict(sorted((others | peers).items(), key=_number))

    def _forget(self, subnets: Iterable[Subnet]) -> None:
        for subnet in subnets:
            for network in _networks(subnet):
                sharers = self._sharers.get(network, set())
                sharers.discard(subnet)
                if not sharers:
                    self._sharers.pop(network, None)

    def _unreported(self) -> tuple[Refusal, ...]:
        now = {(subnet, reason) for subnet, reason in self._refusals.items()}
        fresh = now - self._reported
        # A resolved refusal is reported again if it recurs.
        self._reported = now
        return tuple(
            Refusal(self._known[subnet], reason) for subnet, reason in sorted(fresh, key=lambda it: (it[0].ipv4, it[1]))
        )


def _networks(subnet: Subnet) -> tuple[Network, ...]:
    return (subnet.ipv4,) if subnet.ipv6 is None else (subnet.ipv4, subnet.ipv6)


def _number(item: tuple[Subnet, Lease]) -> int:
    return item[0].number
