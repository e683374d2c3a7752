"""A lease that is not renewed: what an etcd that answers and one that is silent make of it."""

import logging
import threading

import pytest

from agent.errors import RegistryUnavailable
from agent.lease import Lease
from agent.leases.life import REFUSALS, LeaseLife
from agent.leases.manager import SubnetManager
from tests.unit.fake_registry import NODE1, FakeRegistry, attrs
from tests.unit.test_subnet_manager import CONFIG, ENDLESS, TTL_S

pytestmark = pytest.mark.row("F49")

NOW = 1000.0
TICK_S = 0.1


class Node:
    """A manager with its lease on a fake registry that ends etcd leases as etcd does."""

    def __init__(self) -> None:
        self.registry = FakeRegistry()
        self.clock = self.registry.clock
        self.manager = SubnetManager(self.registry, CONFIG, NODE1, lease_ttl_s=TTL_S, clock=self.clock)
        lease = self.manager.acquire(ENDLESS)
        assert lease is not None
        self.lease: Lease = lease
        self.reported: list[tuple[float, str | None]] = []
        """When and with what `on_over` was called; seconds from the start."""
        self.fenced: list[str] = []
        self._began = self.clock.now()
        self.ended: list[int] = []
        """etcd leases that lived to their end."""
        self._ends_at = {lease.etcd_lease_id: self._began + TTL_S}
        self.clock.at(TICK_S, self._expire)

    def refuse(self, *calls: str, after_s: float = 0.0) -> None:
        """Refuse from then on, without end."""
        self.clock.at(after_s, lambda: self.registry.refused.update(calls))

    def renew_for(self, seconds: float) -> None:
        """Run the renewal loop that long."""
        stop = threading.Event()
        self.clock.at(seconds, stop.set)
        self.manager.run_renewal(
            stop, self.fenced.append, lambda why: self.reported.append((self.clock.now() - self._began, why))
        )

    def holds_its_key(self) -> bool:
        entry = self.registry.keys.get(self.lease.subnet.key)
        return entry is not None and entry[1] in self.registry.etcd_leases

    def _expire(self) -> None:
        """End what was not renewed; while keep-alives are not refused, each lease is."""
        now = self.clock.now()
        for etcd_lease_id in list(self.registry.etcd_leases):
            if "keep_alive" not in self.registry.refused:
                self._ends_at[etcd_lease_id] = now + TTL_S
            if now >= self._ends_at.setdefault(etcd_lease_id, now + TTL_S):
                self.ended.append(etcd_lease_id)
                self.registry.expire(etcd_lease_id)
        self.clock.at(TICK_S, self._expire)


def test_without_keep_alives_the_key_moves_to_a_new_etcd_lease_in_time(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.refuse("keep_alive")
    node.renew_for(10 * TTL_S)
    assert node.ended == [], "there was a moment without a key"
    assert node.reported == []
    assert node.fenced == []
    assert node.manager.lease is not None
    assert node.manager.lease.subnet == node.lease.subnet
    assert len(node.registry.etcd_leases) == 1, "old ones are let go"
    assert node.manager.warnings == (
        "etcd answers, but does not renew our lease, so its key gets a new one each time: no keep_alive",
    )
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 10 <= len(lines) <= 10 * TTL_S / 10 + 1, "once in ten seconds"


def test_when_keep_alives_work_again_they_are_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = Node()
    node.refuse("keep_alive")
    node.clock.at(3 * TTL_S, node.registry.refused.clear)
    node.clock.at(4 * TTL_S, node.registry.calls.clear)
    node.renew_for(6 * TTL_S)
    assert set(node.registry.calls) == {"keep_alive", "get"}
    assert node.manager.warnings == ()
    assert "the lease is renewed again" in caplog.text


def test_a_lease_that_is_over_while_etcd_answers_is_reported_and_taken_again_when_it_is_free() -> None:
    node = Node()
    node.refuse("keep_alive", "grant")
    node.clock.at(2 * TTL_S, node.registry.refused.clear)
    node.renew_for(2.5 * TTL_S)
    [(over_at, why), (kept_at, nothing)] = node.reported
    assert TTL_S <= over_at <= TTL_S + 2.5
    assert why == f"the lease on {node.lease.subnet} expired; etcd answers, but does not renew it: no grant"
    assert nothing is None
    assert 2 * TTL_S <= kept_at <= 2 * TTL_S + 2.5
    assert node.holds_its_key()
    assert node.fenced == []


def test_a_lease_that_etcd_ended_and_does_not_give_back_is_reported_at_once() -> None:
    node = Node()
    node.refuse("grant")
    node.clock.at(5, lambda: node.registry.expire(node.lease.etcd_lease_id))
    node.renew_for(TTL_S * 0.9)
    [(over_at, _)] = node.reported
    assert 5 <= over_at <= TTL_S / 3 + 0.5
    assert node.manager.seconds_left() == 0


def test_a_lease_that_is_over_while_etcd_is_silent_is_a_warning_and_no_more() -> None:
    node = Node()
    node.registry.failure = RegistryUnavailable("no answer")
    node.renew_for(3 * TTL_S)
    assert node.manager.seconds_left() == 0
    assert node.manager.warnings == ("the lease has expired by our clock, and etcd does not answer",)
    node.registry.failure = None
    node.renew_for(TTL_S)
    assert not node.manager.warnings
    assert node.reported == []
    assert node.holds_its_key()


def test_a_reported_lease_stays_reported_while_etcd_is_silent_afterwards() -> None:
    """What etcd has shown last counts: our key was gone."""
    node = Node()
    node.refuse("keep_alive", "grant")
    node.clock.at(2 * TTL_S, lambda: setattr(node.registry, "failure", RegistryUnavailable("no answer")))
    node.renew_for(4 * TTL_S)
    assert len(node.reported) == 1


def test_a_lease_that_is_over_and_is_anothers_fences() -> None:
    node = Node()
    node.refuse("keep_alive", "grant")
    node.clock.at(1.5 * TTL_S, lambda: node.registry.refused.discard("grant"))
    node.clock.at(1.5 * TTL_S, lambda: node.registry.put_lease(str(node.lease.subnet.ipv4), "192.168.8.229"))
    node.renew_for(3 * TTL_S)
    assert node.fenced == [f"our subnet {node.lease.subnet} belongs to 192.168.8.229 now"]
    assert node.registry.keys[node.lease.subnet.key][0] == attrs("192.168.8.229").to_json()


def test_a_reservation_that_is_deleted_and_not_given_back_is_reported() -> None:
    node = Node()
    node.registry.put(node.lease.subnet.key, NODE1.to_json())
    node.clock.at(TTL_S, lambda: node.registry.drop(node.lease.subnet.key))
    node.refuse("grant", after_s=TTL_S)
    node.renew_for(3 * TTL_S)
    assert len(node.reported) == 1


def test_an_agent_that_starts_where_keep_alives_are_refused_gets_its_subnet() -> None:
    node = Node()
    node.registry.refused.add("keep_alive")
    again = SubnetManager(node.registry, CONFIG, NODE1, lease_ttl_s=TTL_S, clock=node.clock)
    lease = again.acquire(ENDLESS)
    assert lease is not None
    assert lease.subnet == node.lease.subnet
    assert lease.etcd_lease_id != node.lease.etcd_lease_id


def test_time_left_is_counted_from_the_granted_ttl() -> None:
    life = LeaseLife(NOW, 30.0)
    assert [life.left_s(now) for now in (NOW, NOW + 10, NOW + 30, NOW + 3600)] == [30.0, 20.0, 0.0, 0.0]
    assert life.end().left_s(NOW) == 0
    assert LeaseLife().left_s(NOW) == float("inf"), "a reservation does not end"
    assert LeaseLife().end().left_s(NOW) == 0, "but may be deleted"


@pytest.mark.parametrize(
    ("refused", "after_s", "may"),
    [(0, 10, True), (1, 19.9, True), (REFUSALS - 1, 12, True), (REFUSALS, 10, False), (1, 20, False), (1, 99, False)],
)
def test_a_refused_renewal_is_asked_for_again_while_there_is_time(refused: int, after_s: float, may: bool) -> None:
    assert LeaseLife(NOW, 30.0, refused).may_ask_again(NOW + after_s) is may
