"""A registry in memory, and the checks that it shares with the one on etcd.

The fake keeps texts, not values, so that keys and JSON pass through the same code as with etcd. Its clock is the
test's; leases expire when the test says so.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.errors import (
    Compacted,
    ConfigMissing,
    LeaseLost,
    RegistryError,
    RegistryUnavailable,
    SubnetTaken,
)
from agent.etcd.registry import Registry, Watch
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


def subnet(text: str) -> Subnet:
    """Return a subnet from its CIDR."""
    return Subnet(IPv4Network(text))


def attrs(public_ip: str, backend_type: str = "") -> LeaseAttrs:
    """Return the attributes of a node."""
    return LeaseAttrs(IPv4Address(public_ip), backend_type=backend_type)


class FakeClock:
    """Time passes only while somebody waits; due tasks run while it passes."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._tasks: list[tuple[float, int, Callable[[], object]]] = []

    def now(self) -> float:
        return self._now

    def at(self, after_s: float, task: Callable[[], object]) -> None:
        """Run `task` when `after_s` seconds have passed."""
        self._tasks.append((self._now + after_s, len(self._tasks), task))
        self._tasks.sort(key=lambda it: it[:2])

    def advance(self, seconds: float) -> None:
        end = self._now + seconds
        while self._tasks and self._tasks[0][0] <= end:
            due, _, task = self._tasks.pop(0)
            self._now = max(self._now, due)
            task()
        self._now = end

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        # A loop that never waits would otherwise never end.
        self.advance(max(timeout_s, 0.001))
        return event.is_set()


class FakeRegistry:
    """In memory; with switches for what goes wrong with a real one."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.revision = 1
        self.config_text: bytes | None = None
        self.keys: dict[str, tuple[str, int, int]] = {}
        """Key below `subnets/` → value, etcd lease, mod_revision."""
        self.etcd_leases: dict[int, int] = {}
        """etcd lease → TTL in seconds."""
        self.failure: RegistryError | None = None
        """Raised by every call while set."""
        self.refused: set[str] = set()
        """Calls that etcd refuses while it answers others; `grant` stands for each that needs a new etcd lease."""
        self.deaf = False
        """Watches deliver nothing while set."""
        self.before_write: list[Callable[[], object]] = []
        """One of these runs before each write: where a race is lost."""
        self.compacted = 0
        self.calls: list[str] = []
        self._history: list[tuple[int, str, str | None, int]] = []
        self._next_etcd_lease = 7000
        self._lock = threading.RLock()

    # What a test does behind the agent's back.

    def put(self, key: str, value: str, etcd_lease_id: int = 0) -> None:
        """Write a key as an operator or another node would."""
        with self._lock:
            self.revision += 1
            self.keys[key] = (value, etcd_lease_id, self.revision)
            self._history.append((self.revision, key, value, etcd_lease_id))

    def put_lease(self, cidr: str, public_ip: str, ttl_s: int | None = 60, backend_type: str = "") -> int:
        """Return a lease of another node; None for a reservation. Returns the etcd lease."""
        etcd_lease_id = 0 if ttl_s is None else self._grant(ttl_s)
        self.put(subnet(cidr).key, attrs(public_ip, backend_type).to_json(), etcd_lease_id)
        return etcd_lease_id

    def drop(self, key: str) -> None:
        """Delete a key."""
        with self._lock:
            del self.keys[key]
            self.revision += 1
            self._history.append((self.revision, key, None, 0))

    def expire(self, etcd_lease_id: int) -> None:
        """End an etcd lease and delete its keys."""
        del self.etcd_leases[etcd_lease_id]
        for key in [key for key, (_, holder, _) in self.keys.items() if holder == etcd_lease_id]:
            self.drop(key)

    def compact(self) -> None:
        """Forget the history and end every watch that has not read it."""
        self.compacted = self.revision
        self._history.clear()

    def restore(self, revision: int) -> None:
        """Go back to an earlier revision, as after a restore from a backup."""
        self.revision = revision
        self.keys = {key: entry for key, entry in self.keys.items() if entry[2] <= revision}
        self._history = [event for event in self._history if event[0] <= revision]

    # The Registry protocol.

    def config(self) -> bytes:
        self._call("config")
        if self.config_text is None:
            raise ConfigMissing("no key config")
        return self.config_text

    def list_leases(self) -> Snapshot:
        self._call("list")
        with self._lock:
            claims = {key: parse_claim(key, value) for key, (value, *_) in self.keys.items()}
            entries = [self._entry(key) for key in sorted(self.keys) if claims[key] is None]
            return Snapshot(
                {entry.subnet: entry for entry in entries if isinstance(entry, Lease)},
                self.revision,
                tuple(entry for entry in entries if isinstance(entry, BadEntry)),
                tuple(claim for claim in claims.values() if claim is not None),
            )

    def get(self, subnet: Subnet) -> Lease | BadEntry | None:
        self._call("get")
        return self._entry(subnet.key) if subnet.key in self.keys else None

    def create(self, subnet: Subnet, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        self._write_call("create")
        with self._lock:
            if subnet.key in self.keys:
                raise SubnetTaken(f"{subnet} is taken")
            etcd_lease_id = self._grant(ttl_s)
            self.put(subnet.key, attrs.to_json(), etcd_lease_id)
            return Lease(subnet, attrs, etcd_lease_id, self.revision)

    def update(self, lease: Lease, attrs: LeaseAttrs) -> Lease:
        self._write_call("update")
        return self._write(lease, attrs, lease.etcd_lease_id)

    def renew(self, lease: Lease, attrs: LeaseAttrs, ttl_s: int) -> Lease:
        self._write_call("renew")
        etcd_lease_id = self._grant(ttl_s)
        try:
            renewed = self._write(lease, attrs, etcd_lease_id)
        except LeaseLost:
            del self.etcd_leases[etcd_lease_id]
            raise
        self._revoke_empty(lease.etcd_lease_id)
        return renewed

    def delete(self, lease: Lease) -> None:
        self._write_call("delete")
        with self._lock:
            if lease.subnet.key in self.keys:
                self._compare(lease)
                self.drop(lease.subnet.key)

    def keep_alive(self, etcd_lease_id: int) -> int:
        self._call("keep_alive")
        return self.etcd_leases.get(etcd_lease_id, 0)

    def keep_alive_and_get(
        self, etcd_lease_id: int, subnet: Subnet
    ) -> tuple[int | RegistryUnavailable, Lease | BadEntry | None]:
        found = self.get(subnet)
        try:
            return self.keep_alive(etcd_lease_id), found
        except RegistryUnavailable as error:
            return error, found

    def revoke(self, etcd_lease_id: int) -> None:
        self._call("revoke")
        self._revoke_empty(etcd_lease_id)

    def put_claim(self, claim: Claim, ttl_s: int) -> int:
        self._write_call("put_claim")
        etcd_lease_id = self._grant(ttl_s)
        self.put(claim.key, claim.to_json(), etcd_lease_id)
        return etcd_lease_id

    def claim_holder(self, claim: Claim) -> str | None:
        self._call("claim_holder")
        now = parse_claim(claim.key, self.keys.get(claim.key, ("", 0, 0))[0])
        return None if now is None else now.holder

    def answer_claim(self, claim: Claim, holder: str) -> None:
        self._write_call("answer_claim")
        if claim.key in self.keys:
            self.put(claim.key, replace(claim, holder=holder).to_json(), self.keys[claim.key][1])

    def drop_claim(self, etcd_lease_id: int) -> None:
        self._call("drop_claim")
        if etcd_lease_id in self.etcd_leases:
            self.expire(etcd_lease_id)

    def watch(self, start_revision: int) -> Watch:
        self._call("watch")
        return FakeWatch(self, start_revision)

    def close(self) -> None:
        self.failure = RegistryUnavailable("closed")

    # How it works.

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failure is not None:
            raise self.failure
        if name in self.refused:
            raise RegistryUnavailable(f"no {name}")

    def _write_call(self, name: str) -> None:
        if self.before_write:
            self.before_write.pop(0)()
        self._call(name)

    def _grant(self, ttl_s: int) -> int:
        if "grant" in self.refused:
            raise RegistryUnavailable("no grant")
        with self._lock:
            self._next_etcd_lease += 1
            self.etcd_leases[self._next_etcd_lease] = ttl_s
            return self._next_etcd_lease

    def _revoke_empty(self, etcd_lease_id: int) -> None:
        if all(holder != etcd_lease_id for _, holder, _ in self.keys.values()):
            self.etcd_leases.pop(etcd_lease_id, None)

    def _compare(self, lease: Lease) -> None:
        if self.keys.get(lease.subnet.key, ("", 0, 0))[2] != lease.mod_revision:
            raise LeaseLost(f"{lease.subnet} has changed")

    def _write(self, lease: Lease, attrs: LeaseAttrs, etcd_lease_id: int) -> Lease:
        with self._lock:
            self._compare(lease)
            if etcd_lease_id and etcd_lease_id not in self.etcd_leases:
                raise LeaseLost("no such etcd lease")
            self.put(lease.subnet.key, attrs.to_json(), etcd_lease_id)
            return Lease(lease.subnet, attrs, etcd_lease_id, self.revision)

    def _entry(self, key: str) -> Lease | BadEntry:
        value, etcd_lease_id, mod_revision = self.keys[key]
        return entry(key, value, etcd_lease_id, mod_revision)

    def events_after(self, revision: int) -> list[tuple[int, str, str | None, int]]:
        """Return the history from `revision` on, for a watch."""
        with self._lock:
            return [event for event in self._history if event[0] >= revision]


def entry(key: str, value: str, etcd_lease_id: int, mod_revision: int) -> Lease | BadEntry:
    """Return what a key and its value mean."""
    found = None
    try:
        found = parse_key(key)
        return Lease(found, LeaseAttrs.from_json(value), etcd_lease_id, mod_revision)
    except ValueError as error:
        return BadEntry(key, str(error), mod_revision, found)


class FakeWatch:
    """A watch on the fake; waiting for events makes the fake clock go."""

    def __init__(self, registry: FakeRegistry, start_revision: int) -> None:
        self._registry = registry
        self._next = start_revision
        self._end: RegistryError | None = None
        """Raised by every `poll` once the watch has ended."""

    def rest(self, for_s: float) -> None:
        """What comes is kept by the registry anyway."""

    def poll(self, timeout_s: float) -> Delta | Heartbeat | None:
        registry = self._registry
        if self._end is None and self._next <= registry.compacted:
            self._end = Compacted(f"compacted at {registry.compacted}")
        self._end = self._end or registry.failure
        if self._end is not None:
            raise self._end
        fresh = [] if registry.deaf else registry.events_after(self._next)
        if not fresh:
            registry.clock.advance(max(timeout_s, 0.001))
            return None
        self._next = fresh[-1][0] + 1
        events: list[LeaseAdded | LeaseRemoved] = []
        bad: list[BadEntry] = []
        claims: list[Claim] = []
        for revision, key, value, etcd_lease_id in fresh:
            if (claim := parse_claim(key, value or "")) is not None:
                claims.append(claim)
                continue
            found = entry(key, value or "", etcd_lease_id, revision)
            if isinstance(found, Lease):
                events.append(LeaseAdded(found))
                continue
            if value is not None:
                bad.append(found)
            if found.subnet is not None:
                events.append(LeaseRemoved(found.subnet, revision))
        return Delta(tuple(events), fresh[-1][0], tuple(bad), tuple(claims))

    def cancel(self) -> None:
        self._end = self._end or RegistryUnavailable("cancelled")


SUBNET, OTHER_SUBNET = subnet("10.0.46.0/24"), subnet("10.0.90.0/24")
NODE1, NODE2 = attrs("192.168.8.227"), attrs("192.168.8.228")
NOWHERE = 999_999


def check_registry(registry: Registry) -> None:
    """Check what every registry keeps, starting empty. Runs on the fake and on etcd."""
    with pytest.raises(ConfigMissing):
        registry.config()
    before = registry.list_leases()
    assert (before.leases, before.bad) == ({}, ())
    assert registry.get(SUBNET) is None

    created = registry.create(SUBNET, NODE1, ttl_s=60)
    assert (created.subnet, created.attrs, created.is_reservation) == (SUBNET, NODE1, False)
    assert registry.get(SUBNET) == created
    with pytest.raises(SubnetTaken):
        registry.create(SUBNET, NODE2, ttl_s=60)
    assert registry.list_leases().leases == {SUBNET: created}
    assert registry.keep_alive(created.etcd_lease_id) == 60
    assert registry.keep_alive(NOWHERE) <= 0
    assert registry.keep_alive_and_get(created.etcd_lease_id, SUBNET) == (60, created)
    dead, nobody = registry.keep_alive_and_get(NOWHERE, OTHER_SUBNET)
    assert isinstance(dead, int)
    assert (dead <= 0, nobody) == (True, None)
    registry.revoke(created.etcd_lease_id)
    assert registry.get(SUBNET) == created, "revoke must spare an etcd lease with a key on it"

    check_claims(registry)
    check_writes(registry, created)
    check_watch(registry, before.revision + 1)


def check_writes(registry: Registry, created: Lease) -> None:
    """Compare-and-swap of one key; leaves the registry empty."""
    updated = registry.update(created, attrs("192.168.8.227", "vxlan"))
    assert updated.etcd_lease_id == created.etcd_lease_id
    assert updated.mod_revision > created.mod_revision
    for write in (
        lambda: registry.update(created, NODE2),
        lambda: registry.renew(created, NODE2, 60),
        lambda: registry.delete(created),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert registry.get(SUBNET) == updated
    renewed = registry.renew(updated, NODE1, ttl_s=90)
    assert registry.get(SUBNET) == renewed
    assert registry.keep_alive(renewed.etcd_lease_id) == 90
    assert registry.keep_alive(updated.etcd_lease_id) <= 0, "the old etcd lease was left behind"
    registry.delete(renewed)
    registry.delete(renewed)
    assert registry.get(SUBNET) is None
    registry.revoke(renewed.etcd_lease_id)
    assert registry.keep_alive(renewed.etcd_lease_id) <= 0
    registry.revoke(NOWHERE)


def check_claims(registry: Registry) -> None:
    """Check a question, its answer, and that nothing remains afterwards."""
    claim, before = Claim(NODE1.public_ip, "node3"), registry.list_leases()
    watch = registry.watch(before.revision + 1)
    for _ in range(2):
        asked = registry.put_claim(claim, 10)
        assert registry.claim_holder(claim) is None
    listed = registry.list_leases()
    assert (listed.claims, listed.bad, listed.leases) == ((claim,), (), before.leases)
    registry.answer_claim(claim, "node1")
    assert registry.claim_holder(claim) == "node1"
    registry.drop_claim(asked)
    assert registry.claim_holder(claim) is None
    registry.answer_claim(claim, "node1")
    assert registry.list_leases().claims == ()
    found: list[Claim] = []
    while len(found) < 3 and (result := watch.poll(20)) is not None:
        assert isinstance(result, Delta)
        assert (result.events, result.bad) == ((), ())
        found += result.claims
    assert found == [claim, claim, replace(claim, holder="node1")]
    watch.cancel()


def check_watch(registry: Registry, start_revision: int) -> None:
    """Check that a watch yields every event since its start, in order, and then new ones."""
    watch = registry.watch(start_revision)
    past = _events(watch, 4)
    assert [type(event) for event in past] == [LeaseAdded, LeaseAdded, LeaseAdded, LeaseRemoved]
    assert watch.poll(0.01) in (None, Heartbeat(registry.list_leases().revision))
    created = registry.create(OTHER_SUBNET, NODE2, ttl_s=60)
    assert _events(watch, 1) == [LeaseAdded(created)]
    registry.delete(created)
    [removed] = _events(watch, 1)
    assert isinstance(removed, LeaseRemoved)
    assert (removed.subnet, removed.mod_revision) == (OTHER_SUBNET, registry.list_leases().revision)
    watch.cancel()
    watch.cancel()
    with pytest.raises(RegistryUnavailable):
        _events(watch, 1)


def _events(watch: Watch, count: int) -> list[LeaseAdded | LeaseRemoved]:
    found: list[LeaseAdded | LeaseRemoved] = []
    for _ in range(300):
        result = watch.poll(0.1)
        found += result.events if isinstance(result, Delta) else ()
        if len(found) >= count:
            break
    return found
