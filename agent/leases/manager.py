"""Get a subnet, keep it, and detect its loss: policy over a Registry, a clock and a source of randomness.

One node is one public address. Its subnet is, in this order: the one registered for that address, its previous one if
that is free, or a free one (the same choice each time). While it runs, the key in the registry decides whether the
subnet is ours: a missing key means take it again, another node's address means stop forwarding (fence), no answer means
carry on. If the registry answers but does not renew, the key gets a new etcd lease, as flannel renews; only if that
fails too, and the lease expires, are we not ready.
"""

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from agent.daemon.log import LogLimit
from agent.daemon.pacing import Backoff, Clock, SystemClock
from agent.errors import (
    AddressTaken,
    Fenced,
    LeaseLost,
    NoFreeSubnet,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
    SubnetTaken,
)
from agent.etcd.registry import Registry
from agent.lease import BadEntry, Lease, LeaseAttrs, Subnet
from agent.leases.acquisition import Acquisition, renewed_ttl_s
from agent.leases.allocator import count_free
from agent.leases.claims import AddressClaims
from agent.leases.life import LeaseLife
from agent.leases.table import LeaseTable
from agent.leases.watch import POLL_S, RELIST_S, BadEntryLog, LeaseWatch, OnPeers
from agent.netconfig.config import NetworkConfig

log = logging.getLogger(__name__)

LEASE_TTL_S = 24 * 3600
"""flannel's `subnetTTL`."""
ADDRESS_TAKEN_S = 10.0
"""Delay before a node whose address is taken asks again."""
RACES = 10
"""How many lost races for a subnet are retried at once."""


class SubnetManager:
    """One node's claim on a subnet. Call `acquire` first; then `run_renewal` and `run_watch`, each in a thread."""

    def __init__(
        self,
        registry: Registry,
        config: NetworkConfig,
        attrs: LeaseAttrs,
        *,
        previous_subnet: Subnet | None = None,
        own_addresses: Collection[IPv4Address | IPv6Address] = (),
        lease_ttl_s: int = LEASE_TTL_S,
        node: str = "",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`node` is the name that distinguishes nodes with the same address; without one, they are not distinguished.

        `own_addresses`: all of this machine's. A lease of the previous subnet with one of them is ours: the agent that
        wrote it had other flags, or a choice of other addresses.
        """
        self._registry = registry
        self._config = config
        self._attrs = attrs
        self._lease_ttl_s = lease_ttl_s
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._claims = AddressClaims(registry, attrs.public_ip, node, self._clock)
        self._acquisition = Acquisition(
            registry, config, attrs, lease_ttl_s, self._claims, previous_subnet, frozenset(own_addresses)
        )
        self._bad_entries = BadEntryLog()
        self._lease: Lease | None = None
        """None once `release` has begun, whatever another thread is doing."""
        self._life = LeaseLife()
        self._etcd_answered = False
        """Whether etcd has answered in this round of renewal."""
        self._over: str | None = None
        """Why there is no lease although etcd answers."""
        self._log_limit = LogLimit(self._clock)
        self._look_now = threading.Event()
        self._writing = threading.Lock()
        """Held by the thread that may write our key: a round of renewal, or the end of our lease."""
        self._watch: LeaseWatch | None = None
        self.fenced: str | None = None
        """Why we must not forward: another node owns our subnet.

        Permanent; only a new process asks for another subnet.
        """

    @property
    def lease(self) -> Lease | None:
        """Return our lease at the last check; None before `acquire` has returned it, and once it is released."""
        return self._lease

    @property
    def revision(self) -> int:
        """Return the store's revision up to which the peers are complete; 0 before the first list."""
        return self._watch.revision if self._watch else 0

    @property
    def refused(self) -> Mapping[Subnet, str]:
        """Return other nodes' leases that must not become peers, with the reason."""
        return self._watch.refused if self._watch else {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return problems that do not affect operation yet."""
        of_lease = None if self._over else self._life.warning(self._clock.now())
        return (*self._claims.warnings, *((of_lease,) if of_lease else ()))

    @property
    def watch_restarts(self) -> int:
        """Return how often the watch on the leases was restarted."""
        return self._watch.restarts if self._watch else 0

    def seconds_left(self) -> float | None:
        """Return the time until the lease ends without renewal; None for a reservation or without a lease."""
        lease = self._lease
        if lease is None or lease.is_reservation:
            return None
        return self._life.left_s(self._clock.now())

    def acquire(self, stop: threading.Event, on_waiting: Callable[[str], object] = lambda _: None) -> Lease | None:
        """Get a subnet, however long it takes; None if `stop` was set first.

        `on_waiting` gets the reason for the wait. Raises RegistryDenied, since waiting does not help against a refusal.
        """
        backoff, log_limit = Backoff(self._rng), LogLimit(self._clock)
        while not stop.is_set():
            try:
                return self._acquire_within(RACES)
            except RegistryDenied:
                raise
            except (AddressTaken, NoFreeSubnet, RegistryError) as error:
                on_waiting(str(error))
                if log_limit.allows():
                    log.error("no subnet yet, trying again: %s", error)
                delay_s = ADDRESS_TAKEN_S if isinstance(error, AddressTaken) else backoff.next_s()
            self._clock.wait(stop, delay_s)
        return None

    def run_renewal(
        self,
        stop: threading.Event,
        on_fenced: Callable[[str], None],
        on_over: Callable[[str | None], object] = lambda _: None,
    ) -> None:
        """Keep the lease until `stop`; on proof of another owner call `on_fenced` with the reason, and return.

        While etcd does not answer, retry and log it once per 10 s. `on_over` gets the reason when the lease expires
        although etcd answers, and None when it is renewed again.
        """
        backoff = Backoff(self._rng)
        due = self._clock.now() + self._interval_s()
        while self._wait(stop, due):
            # From the start of a round: with a slow etcd, a round takes a large part of the lease's life.
            counted_from = self._clock.now()
            try:
                with self._writing:
                    if stop.is_set():
                        # The lock may have been waited for: the key is released by now.
                        return
                    self._keep(periodic=counted_from >= due)
                delay_s = self._interval_s()
                backoff.reset()
                self._note_kept(on_over)
            except Fenced as error:
                self.fenced = str(error)
                log.error("fenced: %s", error)
                on_fenced(self.fenced)
                return
            except (SubnetTaken, LeaseLost):
                # The key changed between our read and our write: read it again.
                counted_from, delay_s = self._clock.now(), backoff.next_s()
            except RegistryError as error:
                counted_from, delay_s = self._clock.now(), backoff.next_s()
                self._note_failure(error, on_over)
            due = counted_from + delay_s

    def run_watch(self, stop: threading.Event, on_peers: OnPeers) -> None:
        """Follow the other nodes' leases until `stop`.

        `on_peers` is called with all peers (never our own lease) and the revision: after the first list, and then
        whenever a peer is added, removed or changed. If it raises AgentError, it is called again within 30 s.
        """
        assert self._lease is not None, "acquire first"
        table = LeaseTable(self._config, self._lease.subnet, self._attrs.public_ip)
        self._watch = LeaseWatch(
            self._registry,
            table,
            on_peers,
            self._see_own,
            self._claims.see,
            self._bad_entries,
            self._clock,
            self._rng,
        )
        self._watch.run(stop)

    def release(self) -> None:
        """Release the subnet, unless it is a reservation; renewal's `stop` must be set.

        Raises RegistryError; a subnet that is no longer ours is no error.
        """
        # A round of renewal that found no key creates it again.
        with self._writing:
            lease, self._lease = self._lease, None
            if lease is None or lease.is_reservation:
                return
            with contextlib.suppress(LeaseLost):
                self._registry.delete(lease)
            self._registry.revoke(lease.etcd_lease_id)
        log.info("released subnet %s", lease.subnet)

    def move_to(self, public_ip: IPv4Address) -> None:
        """Write another address of ours under our key; renewal's `stop` must be set.

        Raises RegistryError, and LeaseLost if the key is no longer ours.
        """
        with self._writing:
            if self._lease is not None and self._lease.attrs.public_ip != public_ip:
                self._attrs = replace(self._attrs, public_ip=public_ip)
                self._lease = self._registry.update(self._lease, self._attrs)
                log.info("subnet %s moved to %s", self._lease.subnet, public_ip)

    def _acquire_within(self, races: int) -> Lease:
        """Acquire a subnet. Raises NoFreeSubnet, also when every one of `races` attempts was lost to other nodes."""
        for _ in range(races):
            snapshot = self._registry.list_leases()
            self._bad_entries.report(snapshot.bad, complete=True)
            asked_at = self._clock.now()
            try:
                lease, how = self._acquisition.take(snapshot)
            except (SubnetTaken, LeaseLost) as error:
                log.info("%s", error)
                continue
            self._hold(lease, LeaseLife(asked_at, self._lease_ttl_s))
            life = "reserved for us" if lease.is_reservation else f"for {self._lease_ttl_s} s"
            log.info("subnet %s, %s, %s", lease.subnet, how, life)
            return lease
        count = count_free(self._config, snapshot.leases)
        raise NoFreeSubnet(
            f"other nodes were faster {races} times in a row; {count.free} of {count.total} subnets are free"
        )

    def _keep(self, periodic: bool) -> None:
        """Renew, then check that the key is ours, and repair it unless another node owns it.

        Raises Fenced, or SubnetTaken or LeaseLost when the key changed meanwhile.
        """
        lease = self._lease
        assert lease is not None, "acquire first"
        self._etcd_answered = False
        asked_at = self._clock.now()
        renewal, found = self._renew_and_get(lease)
        self._etcd_answered, answered_at = True, self._clock.now()
        refusal, ttl_s = (renewal, 0) if isinstance(renewal, RegistryUnavailable) else (None, max(0, renewal))
        life = LeaseLife(asked_at, ttl_s) if refusal is None else self._life.refuse(str(refusal))
        self._life = life.end() if found is None else life
        if found is None:
            kept, ttl_s = self._take_again(lease), 0
        elif isinstance(found, BadEntry):
            log.warning("our key for %s was overwritten (%s); rewriting it", lease.subnet, found.reason)
            kept = self._repair(replace(lease, mod_revision=found.mod_revision), ttl_s > 0)
        elif found.attrs.public_ip != self._attrs.public_ip:
            raise Fenced(f"our subnet {lease.subnet} belongs to {found.attrs.public_ip} now")
        else:
            if found.etcd_lease_id != lease.etcd_lease_id:
                ttl_s = self._adopt(lease, found)
            elif refusal is not None and life.may_ask_again(answered_at):
                raise refusal
            wanted = periodic and found.attrs != self._attrs
            kept = found if ttl_s > 0 and not wanted else self._repair(found, ttl_s > 0)
        # Without a TTL there is a new etcd lease, granted after `now`.
        renewed_at, ttl_s = (asked_at, ttl_s) if ttl_s > 0 else (answered_at, self._lease_ttl_s)
        self._hold(kept, replace(life, renewed_at=renewed_at, ttl_s=ttl_s))

    def _hold(self, lease: Lease, life: LeaseLife) -> None:
        self._lease, self._life = lease, LeaseLife() if lease.is_reservation else life

    def _renew_and_get(self, lease: Lease) -> tuple[int | RegistryUnavailable, Lease | BadEntry | None]:
        # Both at once: one after the other would take too much of a short lease's life with a slow etcd.
        if not lease.is_reservation:
            return self._registry.keep_alive_and_get(lease.etcd_lease_id, lease.subnet)
        return self._lease_ttl_s, self._registry.get(lease.subnet)

    def _note_kept(self, on_over: Callable[[str | None], object]) -> None:
        if self._over is not None:
            self._over = None
            on_over(None)
        if not self._life.refused:
            if self._log_limit.reset():
                log.info("the lease is renewed again")
        elif self._log_limit.allows():
            log.warning("etcd does not renew our lease, so its key got a new one: %s", self._life.refusal)

    def _note_failure(self, error: RegistryError, on_over: Callable[[str | None], object]) -> None:
        lease, now = self._lease, self._clock.now()
        if self._log_limit.allows():
            log.warning("the lease cannot be renewed, %s: %s", self._life.words(now), error)
        if lease is not None and self._over is None and self._etcd_answered and self._life.left_s(now) == 0:
            self._over = f"the lease on {lease.subnet} expired; etcd answers, but does not renew it: {error}"
            log.error("%s", self._over)
            on_over(self._over)

    def _take_again(self, lease: Lease) -> Lease:
        again = self._registry.create(lease.subnet, self._attrs, self._lease_ttl_s)
        log.warning("lease on %s expired; re-acquired the same subnet", lease.subnet)
        self._let_go(lease)
        return again

    def _adopt(self, lease: Lease, found: Lease) -> int:
        """Accept that our key has another etcd lease, or none. Return that lease's TTL, 0 when it is not alive."""
        self._let_go(lease)
        if found.is_reservation:
            log.info("subnet %s is now reserved for us", lease.subnet)
            return self._lease_ttl_s
        log.warning("another agent with our address %s renewed %s", found.attrs.public_ip, lease.subnet)
        return renewed_ttl_s(self._registry, found.etcd_lease_id)

    def _let_go(self, lease: Lease) -> None:
        """Revoke an etcd lease that no longer holds our key; on failure it expires by itself."""
        if not lease.is_reservation:
            with contextlib.suppress(RegistryError):
                self._registry.revoke(lease.etcd_lease_id)

    def _repair(self, lease: Lease, alive: bool) -> Lease:
        """Write our attributes, under a new etcd lease if the old one is dead."""
        if alive:
            return self._registry.update(lease, self._attrs)
        return self._registry.renew(lease, self._attrs, self._lease_ttl_s)

    def _see_own(self, lease: Lease | None) -> None:
        """Take the watch's view of our key: check again unless it is what we wrote."""
        known = self._lease
        if lease is None or known is None or lease.mod_revision > known.mod_revision:
            self._look_now.set()

    def _interval_s(self) -> float:
        """Return the time until the next check of our lease: a third of its life, so that two renewals may fail."""
        lease = self._lease
        reserved = lease is None or lease.is_reservation
        return (RELIST_S if reserved else min(self._life.ttl_s, self._lease_ttl_s) / 3) * self._rng.uniform(0.8, 1.0)

    def _wait(self, stop: threading.Event, due: float) -> bool:
        """Wait until `due` or until the watch has seen something about our key; False at `stop`."""
        while not stop.is_set() and not self._look_now.is_set() and (left_s := due - self._clock.now()) > 0:
            self._clock.wait(stop, min(left_s, POLL_S))
        self._look_now.clear()
        return not stop.is_set()
