"""The store of leases: the protocol, and etcd with flannel's v3 schema behind it.

Keys are `<prefix>/config` and `<prefix>/subnets/<subnet>`. Every write is a transaction on the key's mod_revision, so a
node that slept through its lease can never overwrite the next owner.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from agent.errors import ConfigMissing, LeaseLost, RegistryError, RegistryUnavailable, SubnetTaken
from agent.etcd.client import DEADLINE_S, EtcdClient
from agent.etcd.connection import Credentials
from agent.etcd.streams import WatchStream
from agent.etcd.values import EventBatch, KeyValue
from agent.lease import (
    BadEntry,
    Claim,
    Delta,
    Heartbeat,
    Lease,
    LeaseAdded,
    LeaseAttrs,
    LeaseRemoved,
    Snapshot,
    Subnet,
    parse_claim,
    parse_key,
)

DEFAULT_PREFIX = "/coreos.com/network"


class Watch(Protocol):
    """A running watch."""

    def poll(self, timeout_s: float) -> Delta | Heartbeat | None:
        """Return the next result, or None when none came within `timeout_s` seconds.

        Raises Compacted, RegistryUnavailable or RegistryDenied when the watch has ended, at every further call too.
        """

    def rest(self, for_s: float) -> None:
        """Read nothing from the network for so many seconds; handling everything at once is cheaper."""

    def cancel(self) -> None:
        """End the watch, from any thread; a waiting `poll` raises RegistryUnavailable. Twice is harmless."""


class Registry(Protocol):
    """The store of one network's config and leases.

    Every method raises RegistryUnavailable when the store does not answer in time and RegistryDenied when it refuses
    us. A write that failed with RegistryUnavailable may have happened; doing it again is harmless.
    """

    def config(self) -> bytes:
        """Return the network config as the operator wrote it. Raises ConfigMissing."""

    def list_leases(self) -> Snapshot:
        """Return everything below `<prefix>/subnets`."""

    def get(self, subnet: Subnet) -> Lease | BadEntry | None:
        """Return the value of the subnet's key."""

    def create(self, subnet: Subnet, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        """Take the subnet with a new etcd lease of `ttl_s` seconds. Raises SubnetTaken if its key exists."""

    def update(self, lease: Lease, attrs: LeaseAttrs) -> Lease:
        """Write other attributes under the same etcd lease; a reservation stays without one.

        Raises LeaseLost if the key differs from `lease`.
        """

    def renew(self, lease: Lease, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        """Move the key to a new etcd lease of `ttl_s` seconds. Raises LeaseLost as `update` does."""

    def delete(self, lease: Lease) -> None:
        """Delete the subnet's key. Raises LeaseLost if the key differs from `lease`."""

    def keep_alive(self, etcd_lease_id: int) -> int:
        """Restart the etcd lease's TTL; return it in seconds, 0 or less when there is no such lease."""

    def keep_alive_and_get(
        self, etcd_lease_id: int, subnet: Subnet
    ) -> tuple[int | RegistryUnavailable, Lease | BadEntry | None]:
        """Run `keep_alive` and `get` at the same time, in no particular order.

        If the store returns the key but does not renew, the reason replaces the TTL.
        """

    def revoke(self, etcd_lease_id: int) -> None:
        """End an etcd lease that holds no key any more; keep one that does."""

    def put_claim(self, claim: Claim, ttl_s: int) -> int:
        """Write a question for every watching node; return the etcd lease with which it expires."""

    def claim_holder(self, claim: Claim) -> str | None:
        """Return the node that has answered."""

    def answer_claim(self, claim: Claim, holder: str) -> None:
        """Write the answer, unless the question is gone."""

    def drop_claim(self, etcd_lease_id: int) -> None:
        """Delete the question and its answer."""

    def watch(self, start_revision: int) -> Watch:
        """Follow the leases from `start_revision` on, which is a snapshot's revision + 1."""

    def close(self) -> None:
        """Close connections; ends every watch."""


class EtcdRegistry:
    """flannel's schema in etcd v3, for any number of members of one cluster. Usable from several threads."""

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str = DEFAULT_PREFIX,
        credentials: Credentials | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        """Take `endpoints` as URLs; no connection is made yet. `deadline_s` limits each RPC."""
        self._etcd = EtcdClient(endpoints, credentials, deadline_s)
        self._config_key = f"{prefix}/config".encode()
        # Without a final slash, as flannel lists and watches.
        self._subnets = f"{prefix}/subnets".encode()
        self._subnets_end = self._subnets[:-1] + bytes([self._subnets[-1] + 1])

    def close(self) -> None:
        """See Registry."""
        self._etcd.close()

    def reconnect(self) -> None:
        """Use another connection for the next call; ends every watch."""
        self._etcd.reconnect()

    def config(self) -> bytes:
        """See Registry."""
        found, _ = self._etcd.range(self._config_key)
        if not found:
            raise ConfigMissing(f"etcd has no key {self._config_key.decode()}")
        return found[0].value

    def list_leases(self) -> Snapshot:
        """See Registry."""
        found, revision = self._etcd.range(self._subnets, self._subnets_end)
        claims = [(kv, self._claim(kv)) for kv in found]
        entries = [self._lease(kv) for kv, claim in claims if claim is None]
        return Snapshot(
            leases={entry.subnet: entry for entry in entries if isinstance(entry, Lease)},
            revision=revision,
            bad=tuple(entry for entry in entries if isinstance(entry, BadEntry)),
            claims=tuple(claim for _, claim in claims if claim is not None),
        )

    def get(self, subnet: Subnet) -> Lease | BadEntry | None:
        """See Registry."""
        found, _ = self._etcd.range(self._key(subnet))
        return self._lease(found[0]) if found else None

    def create(self, subnet: Subnet, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        """See Registry."""
        with self._new_etcd_lease(ttl_s) as etcd_lease_id:
            value = attrs.to_json().encode()
            swap = self._etcd.swap(self._key(subnet), 0, value, etcd_lease_id)
            if swap.succeeded:
                return Lease(subnet, attrs, etcd_lease_id, swap.revision)
            if swap.current is not None and swap.current.etcd_lease_id == etcd_lease_id:
                # The transaction's first attempt was applied, but its answer was lost.
                return Lease(subnet, attrs, etcd_lease_id, swap.current.mod_revision)
            raise SubnetTaken(f"another node took subnet {subnet} first")

    def update(self, lease: Lease, attrs: LeaseAttrs) -> Lease:
        """See Registry."""
        return self._write(lease, attrs, lease.etcd_lease_id)

    def renew(self, lease: Lease, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        """See Registry."""
        with self._new_etcd_lease(ttl_s) as etcd_lease_id:
            renewed = self._write(lease, attrs, etcd_lease_id)
        if lease.etcd_lease_id:
            with contextlib.suppress(RegistryError):
                self.revoke(lease.etcd_lease_id)
        return renewed

    def seconds_left(self, lease: Lease) -> int | None:
        """Return the time until it expires without renewal; None for a reservation. Raises RegistryError."""
        return None if lease.is_reservation else max(0, self._etcd.seconds_left(lease.etcd_lease_id))

    def delete(self, lease: Lease) -> None:
        """See Registry."""
        swap = self._etcd.swap(self._key(lease.subnet), lease.mod_revision, None)
        if not swap.succeeded and swap.current is not None:
            raise LeaseLost(f"the key of {lease.subnet} changed meanwhile")

    def keep_alive(self, etcd_lease_id: int) -> int:
        """See Registry."""
        return self._etcd.keep_alive(etcd_lease_id)

    def keep_alive_and_get(
        self, etcd_lease_id: int, subnet: Subnet
    ) -> tuple[int | RegistryUnavailable, Lease | BadEntry | None]:
        """See Registry."""
        renewal, found = self._etcd.keep_alive_and_get(etcd_lease_id, self._key(subnet))
        return renewal, None if found is None else self._lease(found)

    def revoke(self, etcd_lease_id: int) -> None:
        """See Registry."""
        if not self._etcd.keys_of(etcd_lease_id):
            self._etcd.revoke(etcd_lease_id)

    def put_claim(self, claim: Claim, ttl_s: int) -> int:
        """See Registry."""
        etcd_lease_id = self._etcd.grant(ttl_s)
        self._replace_claim(claim, etcd_lease_id)
        return etcd_lease_id

    def claim_holder(self, claim: Claim) -> str | None:
        """See Registry."""
        found, _ = self._etcd.range(self._claim_key(claim))
        now = self._claim(found[0]) if found else None
        return None if now is None else now.holder

    def answer_claim(self, claim: Claim, holder: str) -> None:
        """See Registry."""
        found, _ = self._etcd.range(self._claim_key(claim))
        if found:
            self._replace_claim(replace(claim, holder=holder), found[0].etcd_lease_id, found[0].mod_revision)

    def drop_claim(self, etcd_lease_id: int) -> None:
        """See Registry."""
        self._etcd.revoke(etcd_lease_id)

    def watch(self, start_revision: int) -> Watch:
        """See Registry."""
        return _EtcdWatch(self._etcd.watch(self._subnets, self._subnets_end, start_revision), self._delta)

    def _key(self, subnet: Subnet) -> bytes:
        return self._subnets + b"/" + subnet.key.encode()

    def _subnet(self, key: bytes) -> Subnet:
        """Parse a key. Raises ValueError with the key's problem."""
        subnet = parse_key(key.decode())
        if self._key(subnet) != key:
            # flannel would accept it, and would then have two keys for one subnet.
            raise ValueError(f"is not the canonical key {self._key(subnet).decode()}")
        return subnet

    def _claim_key(self, claim: Claim) -> bytes:
        return self._subnets + b"/" + claim.key.encode()

    def _claim(self, kv: KeyValue) -> Claim | None:
        name = kv.key.removeprefix(self._subnets + b"/")
        return parse_claim(name.decode(errors="replace"), kv.value)

    def _replace_claim(self, claim: Claim, etcd_lease_id: int, revision: int = 0) -> None:
        """Write the claim, over an earlier one of the same node if any; one that changes meanwhile is kept."""
        key, value = self._claim_key(claim), claim.to_json().encode()
        swap = self._etcd.swap(key, revision, value, etcd_lease_id)
        if not swap.succeeded and swap.current is not None and not revision:
            self._etcd.swap(key, swap.current.mod_revision, value, etcd_lease_id)

    def _lease(self, kv: KeyValue) -> Lease | BadEntry:
        subnet = None
        try:
            subnet = self._subnet(kv.key)
            return Lease(subnet, LeaseAttrs.from_json(kv.value), kv.etcd_lease_id, kv.mod_revision)
        except ValueError as error:
            return BadEntry(kv.key.decode(errors="replace"), str(error), kv.mod_revision, subnet)

    def _removal(self, kv: KeyValue) -> LeaseRemoved | None:
        try:
            return LeaseRemoved(self._subnet(kv.key), kv.mod_revision)
        except ValueError:
            return None

    def _delta(self, batch: EventBatch) -> Delta | Heartbeat:
        events: list[LeaseAdded | LeaseRemoved] = []
        bad: list[BadEntry] = []
        claims: list[Claim] = []
        for event in batch.events:
            claim = None if event.deleted else self._claim(event.kv)
            if claim is not None:
                claims.append(claim)
                continue
            entry = self._removal(event.kv) if event.deleted else self._lease(event.kv)
            if isinstance(entry, Lease):
                events.append(LeaseAdded(entry))
            elif isinstance(entry, LeaseRemoved):
                events.append(entry)
            elif isinstance(entry, BadEntry):
                bad.append(entry)
                if entry.subnet is not None:
                    # A known lease that was overwritten with junk is gone, as it would be in a snapshot.
                    events.append(LeaseRemoved(entry.subnet, entry.mod_revision))
        if not events and not bad and not claims:
            return Heartbeat(batch.revision)
        return Delta(tuple(events), batch.revision, tuple(bad), tuple(claims))

    def _write(self, lease: Lease, attrs: LeaseAttrs, etcd_lease_id: int) -> Lease:
        value = attrs.to_json().encode()
        swap = self._etcd.swap(self._key(lease.subnet), lease.mod_revision, value, etcd_lease_id)
        if swap.succeeded:
            return replace(lease, attrs=attrs, etcd_lease_id=etcd_lease_id, mod_revision=swap.revision)
        now = swap.current
        if now is not None and now.value == value and now.etcd_lease_id == etcd_lease_id:
            # An earlier attempt was applied, but its answer was lost.
            return replace(lease, attrs=attrs, etcd_lease_id=etcd_lease_id, mod_revision=now.mod_revision)
        raise LeaseLost(f"the key of {lease.subnet} {'is gone' if now is None else 'has changed'}")

    @contextlib.contextmanager
    def _new_etcd_lease(self, ttl_s: int) -> Iterator[int]:
        """Grant an etcd lease; revoke it when its use fails."""
        etcd_lease_id = self._etcd.grant(ttl_s)
        try:
            yield etcd_lease_id
        except BaseException:
            with contextlib.suppress(RegistryError):
                # Only if empty: a transaction whose answer was lost may have put our key on it.
                self.revoke(etcd_lease_id)
            raise


class _EtcdWatch:
    """A WatchStream whose events are leases."""

    def __init__(self, stream: WatchStream, delta: Callable[[EventBatch], Delta | Heartbeat]) -> None:
        self._stream = stream
        self._delta = delta

    def poll(self, timeout_s: float) -> Delta | Heartbeat | None:
        batch = self._stream.poll(timeout_s)
        return None if batch is None else self._delta(batch)

    def rest(self, for_s: float) -> None:
        self._stream.rest(for_s)

    def cancel(self) -> None:
        self._stream.cancel()
