"""Follow all leases: list, watch from there, and list again when in doubt and every half minute.

etcd's watch is reliable only within its history and is silent while etcd is unhealthy (and 3.4 has known bugs that lose
events), so the list is the truth and the watch only makes it fast. While etcd is down the last peers stay: without a
quorum no node can take over a subnet.
"""

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable, Mapping

from agent.daemon.log import LogLimit
from agent.daemon.pacing import Backoff, Clock
from agent.errors import AgentError, Compacted, RegistryError
from agent.etcd.registry import Registry, Watch
from agent.lease import BadEntry, Claim, Delta, Heartbeat, Lease, LeaseAttrs, Snapshot, Subnet
from agent.leases.table import LeaseTable

log = logging.getLogger(__name__)

RELIST_S = 30.0
"""A peer is wrong for no longer than this, whatever the watch missed."""
DOUBT_S = 3.0
"""How long the watch may take to report what a list has shown."""
KEPT_S = 10.0
"""How long peers stay that are missing from an emptied or restored store: each of them notices, as we do, and registers
again. Those that do not are removed by the next list after that.
"""
LEAST_OF_RELIST = 0.75
"""The fixed part of that interval; the rest is random."""
GATHER_S, LONGEST_GATHER_S = 0.25, 2.0
"""In a burst, each change waits until the previous one has this age; longer with more peers."""
GATHER_FOR_A_PEER_S = 0.01
"""With a hundred nodes on one machine, each change handled alone costs a hundred times some milliseconds."""
SOON_S = 0.005
"""Queued messages arrive within this time of the previous one."""
POLL_S = 0.5
"""How soon a stop is noticed."""

OnPeers = Callable[[tuple[Lease, ...], int], None]
"""Called with all peers, sorted by subnet, and the store's revision."""


class BadEntryLog:
    """Warns once about each key that is not a lease, and again when it is invalid in another way."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] = set()

    def report(self, entries: Iterable[BadEntry], complete: bool) -> None:
        """Warn about new ones. `complete`: these are all that exist, so others may be forgotten."""
        found = {(entry.key, entry.reason) for entry in entries}
        for key, reason in sorted(found - self._known):
            shown = repr(key)
            log.warning("key %s ignored: %s", shown if len(shown) <= 120 else shown[:117] + "...", reason)
        self._known = found if complete else self._known | found


class LeaseWatch:
    """Keeps a LeaseTable equal to the registry and passes its peers on when they change."""

    def __init__(
        self,
        registry: Registry,
        table: LeaseTable,
        on_peers: OnPeers,
        on_own: Callable[[Lease | None], None],
        on_claims: Callable[[tuple[Claim, ...]], None],
        bad_entries: BadEntryLog,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """Take callbacks: after every result, `on_own` gets the value of our own key and `on_claims` the claims."""
        self._registry = registry
        self._table = table
        self._on_peers = on_peers
        self._on_own = on_own
        self._on_claims = on_claims
        self._bad_entries = bad_entries
        self._clock = clock
        self._rng = rng
        self._backoff = Backoff(rng)
        self._log_limit = LogLimit(clock)
        self._delivered: tuple[tuple[Subnet, LeaseAttrs], ...] | None = None
        self._keep_until = -math.inf
        self._taken_at = -math.inf
        self._gather_s = GATHER_S
        self._doubted_until = math.inf
        self.restarts = 0
        """How often the watch was restarted."""

    @property
    def revision(self) -> int:
        """Return the store's revision up to which the peers are complete; 0 before the first list."""
        return self._table.revision

    @property
    def refused(self) -> Mapping[Subnet, str]:
        """Return leases that must not become peers, with the reason."""
        return self._table.refused

    def run(self, stop: threading.Event) -> None:
        """Follow the leases until `stop` is set, through every failure of the registry."""
        while not stop.is_set():
            started = self._clock.now()
            try:
                self._follow(stop)
            except Compacted as error:
                log.info("listing leases again: %s", error)
            except RegistryError as error:
                if self._log_limit.allows():
                    log.warning("cannot follow leases, keeping the last peers: %s", error)
            if stop.is_set():
                return
            self.restarts += 1
            if self._clock.now() - started > RELIST_S:
                self._backoff.reset()
            self._clock.wait(stop, self._backoff.next_s())

    def _follow(self, stop: threading.Event) -> None:
        """Run one list and one watch; return when the watch must be restarted, or at `stop`."""
        snapshot = self._registry.list_leases()
        self._take(snapshot)
        watch = self._registry.watch(snapshot.revision + 1)
        try:
            self._poll(watch, stop)
        finally:
            watch.cancel()

    def _poll(self, watch: Watch, stop: threading.Event) -> None:
        relist_at = self._next_relist()
        after: Delta | Heartbeat | None = None
        # By the watch alone: it may be a moment behind a list.
        seen = self.revision
        self._doubted_until = math.inf
        while not stop.is_set():
            result = after or watch.poll(min(POLL_S, max(0.0, relist_at - self._clock.now())))
            after = None
            if isinstance(result, Delta):
                # The watch reports what a list showed earlier: it was late, not broken.
                self._doubted_until = math.inf
                result, after = self._with_followers(result, watch, stop)
                self._take(result)
                seen = max(seen, result.revision)
            elif isinstance(result, Heartbeat):
                if result.revision < seen:
                    log.warning("etcd went back from revision %d to %d; listing leases again", seen, result.revision)
                    return
                seen = result.revision
            if self._clock.now() >= self._doubted_until:
                log.info("watch missed changes seen by the list; restarting it")
                return
            if self._clock.now() >= relist_at:
                if self._relist():
                    return
                relist_at = self._next_relist()

    def _next_relist(self) -> float:
        # A hundred nodes that started together must not keep listing together.
        return self._clock.now() + RELIST_S * self._rng.uniform(LEAST_OF_RELIST, 1.0)

    def _with_followers(self, delta: Delta, watch: Watch, stop: threading.Event) -> tuple[Delta, Heartbeat | None]:
        """Return the delta, merged with those that follow soon if the last one was very recent, and any other result.

        A single change is applied at once. A hundred nodes that start one after the other make a few large changes for
        each of them, not a hundred small ones that cost as much each.
        """
        left_s = self._taken_at + self._gather_s - self._clock.now()
        if left_s <= 0:
            return delta, None
        watch.rest(left_s)
        self._clock.wait(stop, left_s)
        # Endless changes must not delay those already received.
        end = self._clock.now() + GATHER_S
        while self._clock.now() < end:
            try:
                more = watch.poll(SOON_S)
            except RegistryError:
                # The watch has ended; the next call raises it again, and no list may succeed soon.
                return delta, None
            if not isinstance(more, Delta):
                return delta, more
            delta = Delta(
                (*delta.events, *more.events),
                max(delta.revision, more.revision),
                (*delta.bad, *more.bad),
                (*delta.claims, *more.claims),
            )
        return delta, None

    def _relist(self) -> bool:
        """Cross-check the watch with a full list; True if it must restart.

        A watch that has not reported what the list shows may only be late, so it gets some time.
        """
        before, before_revision = self._delivered, self.revision
        snapshot = self._registry.list_leases()
        self._take(snapshot)
        if snapshot.revision < before_revision:
            log.warning(
                "etcd went back from revision %d to %d; restarting the watch", before_revision, snapshot.revision
            )
            return True
        if self._delivered != before:
            self._doubted_until = self._clock.now() + DOUBT_S
        return False

    def _take(self, result: Snapshot | Delta) -> None:
        if isinstance(result, Snapshot) and result.revision < self._table.revision:
            self._keep_until = self._clock.now() + KEPT_S
        refusals = self._table.apply(result, keep_missing=self._clock.now() < self._keep_until)
        self._bad_entries.report(result.bad, complete=isinstance(result, Snapshot))
        for refusal in refusals:
            lease = refusal.lease
            log.warning("lease %s of %s refused: %s", lease.subnet, lease.attrs.public_ip, refusal.reason)
        if self._log_limit.reset():
            log.info("leases are followed again, revision %d", result.revision)
        self._on_own(self._table.own_lease)
        self._deliver()
        self._taken_at = self._clock.now()
        self._gather_s = min(LONGEST_GATHER_S, max(GATHER_S, GATHER_FOR_A_PEER_S * len(self._table.peers)))
        self._on_claims(result.claims)

    def _deliver(self) -> None:
        peers = self._table.peers
        # A renewal by a real flanneld changes only the revision.
        identity = tuple((lease.subnet, lease.attrs) for lease in peers)
        if identity == self._delivered:
            return
        try:
            self._on_peers(peers, self.revision)
        except AgentError as error:
            # Not recorded as delivered, so the next list retries it.
            log.error("could not apply the peers: %s", error)
            return
        self._delivered = identity
