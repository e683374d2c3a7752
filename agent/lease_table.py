"""The peers of one node, kept equal to what etcd reports. Pure: results in, peers and refusals out.

Events may come twice, late or out of order: per key only the highest mod_revision counts, and a snapshot replaces
everything before it. Whoever can write to etcd can claim anything, so each lease is checked before it becomes a peer;
a refused one stays known, in case what it collides with goes away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from agent.config import NetworkConfig
from agent.lease import Lease, LeaseAdded, LeaseRemoved, Snapshot, Subnet, WatchResult


@dataclass(frozen=True, slots=True)
class Refusal:
    """A lease that does not become a peer, and why."""

    lease: Lease
    reason: str


@dataclass(frozen=True, slots=True)
class TableChange:
    """What one result changed among the peers."""

    added: tuple[Lease, ...] = ()
    changed: tuple[Lease, ...] = ()
    """Known subnets with other attributes: a new public address, MAC or key."""
    removed: tuple[Lease, ...] = ()
    """As they were before."""
    refused: tuple[Refusal, ...] = ()
    """Refusals not reported before."""

    @property
    def concerns_peers(self) -> bool:
        """Whether the peers are others than before."""
        return bool(self.added or self.changed or self.removed)


def refusal(lease: Lease, config: NetworkConfig, own: Subnet, own_public_ip: IPv4Address) -> str | None:
    """Why this lease must not become a peer, looked at alone; None when it may.

    SubnetMin and SubnetMax do not matter: an operator may narrow them while leases from before live on.
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
    reasons = {
        "is no node's address": public_ip.packed[0] == 0 or public_ip.is_reserved,
        "is a loopback address": public_ip.is_loopback,
        "is a multicast address": public_ip.is_multicast,
        f"is inside the overlay network {config.network}": public_ip in config.network,
        "is our own": public_ip == own_public_ip,
    }
    return next((f"public address {public_ip} {reason}" for reason, applies in reasons.items() if applies), None)


class LeaseTable:
    """Who holds which subnet, as one node sees it. Our own subnet is never a peer."""

    def __init__(self, config: NetworkConfig, own: Subnet, own_public_ip: IPv4Address) -> None:
        self._config = config
        self._own = own
        self._own_public_ip = own_public_ip
        self._known: dict[Subnet, Lease] = {}
        self._last_revision: dict[Subnet, int] = {}
        self._refusals: dict[Subnet, str] = {}
        self._verdicts: dict[tuple[Subnet, IPv4Address], str | None] = {}
        self._peers: dict[Subnet, Lease] = {}
        self._reported: set[tuple[Subnet, str]] = set()
        self._floor = 0
        self.revision = 0
        """etcd's store revision up to which the table is complete."""

    @property
    def peers(self) -> tuple[Lease, ...]:
        """Sorted by subnet."""
        return tuple(self._peers.values())

    @property
    def own_lease(self) -> Lease | None:
        """What etcd last showed under our own subnet, whoever owns it."""
        return self._known.get(self._own)

    @property
    def refused(self) -> Mapping[Subnet, str]:
        """Every lease that is refused now, with the reason."""
        return dict(self._refusals)

    def apply(self, result: WatchResult, *, keep_missing: bool = False) -> TableChange:
        """Take in `result` and say what it changed. `keep_missing`: peers that a snapshot lacks stay; we never do."""
        if isinstance(result, Snapshot):
            kept = {subnet: lease for subnet, lease in self._peers.items() if keep_missing and subnet != self._own}
            self._known = {**kept, **result.leases}
            self._last_revision.clear()
            self._verdicts.clear()
            # A snapshot may be older than what we had: etcd was restored from a backup. It still is the truth.
            self._floor = self.revision = result.revision
        else:
            for event in result.events:
                self._take_event(event)
            self.revision = max(self.revision, result.revision)
        return self._admit()

    def _take_event(self, event: LeaseAdded | LeaseRemoved) -> None:
        if isinstance(event, LeaseAdded):
            subnet, mod_revision = event.lease.subnet, event.lease.mod_revision
        else:
            subnet, mod_revision = event.subnet, event.mod_revision
        if mod_revision <= max(self._floor, self._last_revision.get(subnet, 0)):
            return
        self._last_revision[subnet] = mod_revision
        if isinstance(event, LeaseAdded):
            self._known[subnet] = event.lease
        else:
            self._known.pop(subnet, None)

    def _refusal(self, lease: Lease) -> str | None:
        """`refusal`, remembered: at a thousand nodes it is most of the work of an event."""
        subject = (lease.subnet, lease.attrs.public_ip)
        if subject not in self._verdicts:
            self._verdicts[subject] = refusal(lease, self._config, self._own, self._own_public_ip)
        return self._verdicts[subject]

    def _admit(self) -> TableChange:
        """Choose the peers anew. Whoever holds a subnet now keeps it against a newcomer."""
        peers: dict[Subnet, Lease] = {}
        claimed: dict[IPv4Network | IPv6Network, Subnet] = {}
        refusals: dict[Subnet, str] = {}
        for lease in sorted(self._known.values(), key=lambda it: (it.subnet not in self._peers, it.mod_revision)):
            if lease.subnet == self._own:
                continue
            # All subnets that pass have one length, so two overlap only if they are equal in a family.
            shares = [network for network in (lease.subnet.ipv4, lease.subnet.ipv6) if network is not None]
            reason = self._refusal(lease)
            if reason is None:
                holder = next((claimed[network] for network in shares if network in claimed), None)
                reason = None if holder is None else f"subnet overlaps {holder}, which was there before"
            if reason is not None:
                refusals[lease.subnet] = reason
                continue
            claimed.update(dict.fromkeys(shares, lease.subnet))
            peers[lease.subnet] = lease
        # Replaced as a whole: another thread may be reading.
        self._refusals = refusals
        before, self._peers = self._peers, dict(sorted(peers.items(), key=lambda item: item[0].ipv4))
        return TableChange(
            added=tuple(lease for subnet, lease in self._peers.items() if subnet not in before),
            changed=tuple(
                lease
                for subnet, lease in self._peers.items()
                if subnet in before and before[subnet].attrs != lease.attrs
            ),
            removed=tuple(lease for subnet, lease in before.items() if subnet not in self._peers),
            refused=self._unreported(),
        )

    def _unreported(self) -> tuple[Refusal, ...]:
        now = {(subnet, reason) for subnet, reason in self._refusals.items()}
        fresh = now - self._reported
        # What was mended may be reported again when it breaks again.
        self._reported = now
        return tuple(
            Refusal(self._known[subnet], reason) for subnet, reason in sorted(fresh, key=lambda it: (it[0].ipv4, it[1]))
        )
