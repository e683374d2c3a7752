"""One node's claim on a subnet: which it takes, how it keeps it, and when it must stop."""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

import pytest

from agent.errors import AgentError, LeaseLost, RegistryDenied, RegistryUnavailable, SubnetTaken
from agent.etcd.registry import Watch
from agent.lease import Delta, Heartbeat, Lease, LeaseAttrs, Subnet
from agent.leases.allocator import choose_subnet
from agent.leases.manager import SubnetManager
from agent.netconfig.config import parse_network_config
from tests.unit.fake_registry import NODE1, NODE2, FakeRegistry, FakeWatch, attrs, subnet

CONFIG = parse_network_config(b'{"Network":"10.0.0.0/16"}')
TTL_S = 30
ENDLESS = threading.Event()


class Node:
    """A manager on a fake registry, with what it told its callers."""

    def __init__(
        self,
        registry: FakeRegistry | None = None,
        previous: str | None = None,
        attrs: LeaseAttrs = NODE1,
        network: str | None = None,
        own_addresses: tuple[str, ...] = (),
    ) -> None:
        self.registry = registry or FakeRegistry()
        self.clock = self.registry.clock
        config = CONFIG if network is None else parse_network_config(network.encode())
        self.manager = SubnetManager(
            self.registry,
            config,
            attrs,
            previous_subnet=None if previous is None else subnet(previous),
            own_addresses=tuple(map(IPv4Address, own_addresses)),
            lease_ttl_s=TTL_S,
            clock=self.clock,
            rng=random.Random(3),
        )
        self.fenced: list[str] = []
        self.peers: list[list[str]] = []

    def acquire(self) -> Lease:
        lease = self.manager.acquire(ENDLESS)
        assert lease is not None
        return lease

    def renew_for(self, seconds: float) -> None:
        """Run the renewal loop that long."""
        stop = threading.Event()
        self.clock.at(seconds, stop.set)
        self.manager.run_renewal(stop, self.fenced.append)

    def watch_for(self, seconds: float) -> None:
        """Run the watch loop that long."""
        stop = threading.Event()
        self.clock.at(seconds, stop.set)
        self.manager.run_watch(stop, lambda peers, _: self.peers.append([str(peer.subnet.ipv4) for peer in peers]))

    def key(self) -> tuple[str, int, int] | None:
        """Return what stands under our key: value, etcd lease, revision."""
        assert self.manager.lease is not None
        return self.registry.keys.get(self.manager.lease.subnet.key)


# --- acquire


def test_a_new_node_gets_a_free_subnet_with_a_lease() -> None:
    node = Node()
    node.registry.put_lease("10.0.1.0/24", "192.168.8.228")
    lease = node.acquire()
    assert CONFIG.allows(lease.subnet)
    assert lease.subnet != subnet("10.0.1.0/24")
    assert node.key() == (NODE1.to_json(), lease.etcd_lease_id, lease.mod_revision)
    assert node.registry.etcd_leases[lease.etcd_lease_id] == TTL_S
    assert node.manager.seconds_left() == TTL_S


def test_a_node_that_lost_lease_and_disk_gets_the_subnet_that_it_had() -> None:
    first = Node().acquire().subnet
    for others in (0, 30):
        node = Node()
        for number in range(others):
            if subnet(f"10.0.{200 - number}.0/24") != first:
                node.registry.put_lease(f"10.0.{200 - number}.0/24", f"192.168.8.{number + 1}")
        assert node.acquire().subnet == first


def test_the_lease_of_our_public_address_is_used_again() -> None:
    node = Node(previous="10.0.7.0/24")
    etcd_lease_id = node.registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=TTL_S)
    before = dict(node.registry.keys)
    lease = node.acquire()
    assert (lease.subnet, lease.etcd_lease_id) == (subnet("10.0.46.0/24"), etcd_lease_id)
    assert node.registry.keys == before, "nothing to write"


def test_a_reused_lease_with_another_ttl_gets_ours() -> None:
    node = Node()
    old = node.registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=86400)
    lease = node.acquire()
    assert node.registry.etcd_leases == {lease.etcd_lease_id: TTL_S}
    assert lease.etcd_lease_id != old


def test_of_two_leases_of_ours_the_previous_one_is_used() -> None:
    for previous, expected in (("10.0.90.0/24", "10.0.90.0/24"), (None, "10.0.46.0/24")):
        node = Node(previous=previous)
        node.registry.put_lease("10.0.46.0/24", "192.168.8.227")
        node.registry.put_lease("10.0.90.0/24", "192.168.8.227")
        assert node.acquire().subnet == subnet(expected)


def test_the_previous_subnet_is_ours_also_under_another_address_of_this_machine() -> None:
    node = Node(previous="10.0.46.0/24", own_addresses=("10.64.5.9", "192.168.8.227"))
    etcd_lease_id = node.registry.put_lease("10.0.46.0/24", "10.64.5.9", ttl_s=TTL_S)
    lease = node.acquire()
    assert (lease.subnet, lease.etcd_lease_id) == (subnet("10.0.46.0/24"), etcd_lease_id)
    assert node.key() == (NODE1.to_json(), etcd_lease_id, lease.mod_revision)
    node.renew_for(TTL_S)
    assert not node.fenced


@pytest.mark.parametrize(("previous", "holder"), [(None, "10.64.5.9"), ("10.0.46.0/24", "192.168.8.228")])
def test_a_subnet_that_is_not_known_to_be_ours_is_left_alone(previous: str | None, holder: str) -> None:
    node = Node(previous=previous, own_addresses=("10.64.5.9", "192.168.8.227"))
    node.registry.put_lease("10.0.46.0/24", holder, ttl_s=TTL_S)
    before = dict(node.registry.keys)
    assert node.acquire().subnet != subnet("10.0.46.0/24")
    assert before.items() <= node.registry.keys.items()


def test_a_reservation_stays_a_reservation_and_gets_our_attributes() -> None:
    node = Node(attrs=attrs("192.168.8.227", "vxlan"))
    node.registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=None)
    for _ in range(3):
        assert node.acquire().is_reservation
        assert node.key() == (attrs("192.168.8.227", "vxlan").to_json(), 0, node.registry.revision)
        node.renew_for(300)
    assert node.manager.seconds_left() is None
    assert node.registry.etcd_leases == {}
    assert node.registry.calls.count("update") == 1


def test_our_lease_outside_the_config_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.registry.put_lease("10.9.46.0/24", "192.168.8.227")
    node.registry.put_lease("10.0.46.0/25", "192.168.8.227", ttl_s=None)
    node.acquire()
    assert "10.9.46.0-24" not in node.registry.keys
    assert "10.0.46.0-25" in node.registry.keys, "an operator's reservation is not ours to delete"
    assert "releasing it" in caplog.text


def test_the_previous_subnet_is_taken_if_it_is_free() -> None:
    node = Node(previous="10.0.46.0/24")
    assert node.acquire().subnet == subnet("10.0.46.0/24")


@pytest.mark.parametrize(
    ("previous", "reason"),
    [
        ("10.9.46.0/24", "does not fit the network config"),
        ("10.0.46.0/25", "does not fit the network config"),
        ("10.0.90.0/24", "belongs to another node"),
    ],
)
@pytest.mark.row("B39")
def test_a_previous_subnet_that_cannot_be_ours_is_reported_and_replaced(
    previous: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(previous=previous)
    node.registry.put_lease("10.0.90.0/24", "192.168.8.228")
    lease = node.acquire()
    assert CONFIG.allows(lease.subnet)
    assert lease.subnet not in (subnet(previous), subnet("10.0.90.0/24"))
    assert previous in caplog.text
    assert reason in caplog.text


def test_a_lost_race_is_followed_by_another_subnet_at_once() -> None:
    network = '{"Network":"10.0.0.0/26","SubnetLen":28}'
    node, liked = Node(network=network), list[Subnet]()
    for _ in range(3):
        liked.append(choose_subnet(parse_network_config(network.encode()), liked, str(NODE1.public_ip)))
    thieves = iter(liked)
    node.registry.before_write += [lambda: node.registry.put_lease(str(next(thieves)), "192.168.8.228")] * 2
    started = node.clock.now()
    assert node.acquire().subnet == liked[2]
    assert node.clock.now() == started
    assert set(node.registry.etcd_leases) == {lease for _, lease, _ in node.registry.keys.values()}


@pytest.mark.row("F25")
def test_without_a_free_subnet_it_reports_that_and_waits_for_one(caplog: pytest.LogCaptureFixture) -> None:
    node = Node(network='{"Network":"10.0.0.0/28"}')
    held = [node.registry.put_lease(f"10.0.0.{base}/30", "192.168.8.228") for base in (4, 8, 12)]
    node.clock.at(25, lambda: node.registry.expire(held[1]))
    assert node.acquire().subnet == subnet("10.0.0.8/30")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3, "once per ten seconds"
    assert "0 of 3 subnets are free" in errors[0].getMessage()


def test_the_caller_learns_why_there_is_no_subnet() -> None:
    node, told = Node(network='{"Network":"10.0.0.0/28"}'), list[str]()
    held = [node.registry.put_lease(f"10.0.0.{base}/30", "192.168.8.228") for base in (4, 8, 12)]
    node.clock.at(5, lambda: node.registry.expire(held[0]))
    node.manager.acquire(ENDLESS, told.append)
    assert "0 of 3 subnets are free" in told[0]


def test_a_hundred_faster_nodes_cost_one_more_try() -> None:
    node = Node()

    def overtake() -> None:
        for number in range(1, 101):
            node.registry.put_lease(f"10.0.{number}.0/24", "192.168.8.228")

    node.registry.before_write.append(overtake)
    assert node.acquire().subnet.ipv4 > subnet("10.0.100.0/24").ipv4
    assert node.registry.calls.count("create") == 2


def test_a_race_that_is_lost_ten_times_is_reported_with_the_free_subnets(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    lose = iter([SubnetTaken("too late")] * 15)
    started = node.clock.now()

    def overtake() -> None:
        for error in lose:
            raise error

    node.registry.before_write += [overtake] * 16
    node.acquire()
    assert "faster 10 times in a row; 255 of 255 subnets are free" in caplog.text
    assert 0 < node.clock.now() - started < 1


def test_acquire_outlasts_an_outage_and_stops_on_request() -> None:
    node = Node()
    node.registry.failure = RegistryUnavailable("no answer")
    node.clock.at(60, lambda: setattr(node.registry, "failure", None))
    assert CONFIG.allows(node.acquire().subnet)
    stop = threading.Event()
    stop.set()
    assert node.manager.acquire(stop) is None
    node.registry.failure = RegistryDenied("permission denied")
    with pytest.raises(RegistryDenied):
        node.acquire()


@pytest.mark.row("B40")
def test_a_junk_key_on_a_free_subnet_is_not_tried() -> None:
    node = Node(network='{"Network":"10.0.0.0/28"}')
    node.registry.put("10.0.0.4-30", "junk")
    node.registry.put("10.0.0.8-30", "{}")
    assert node.acquire().subnet == subnet("10.0.0.12/30")
    assert node.registry.calls.count("create") == 1


# --- renewal


def test_the_lease_is_kept_alive_every_third_of_its_life_and_written_never() -> None:
    node = Node()
    lease = node.acquire()
    node.registry.calls.clear()
    node.renew_for(10 * TTL_S)
    assert 28 <= node.registry.calls.count("keep_alive") <= 39
    assert set(node.registry.calls) == {"keep_alive", "get"}
    assert node.manager.lease == lease
    left_s = node.manager.seconds_left()
    assert left_s is not None
    assert left_s > TTL_S * 2 / 3 - 1


@pytest.mark.row("C16")
def test_a_lost_lease_is_taken_again_with_the_same_subnet(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    lease = node.acquire()
    node.clock.at(5, lambda: node.registry.expire(lease.etcd_lease_id))
    node.renew_for(TTL_S)
    assert node.manager.lease is not None
    assert node.manager.lease.subnet == lease.subnet
    assert node.registry.etcd_leases == {node.manager.lease.etcd_lease_id: TTL_S}
    assert node.fenced == []
    assert "re-acquired the same subnet" in caplog.text


def test_a_deleted_key_is_written_again_and_its_etcd_lease_not_left_behind() -> None:
    node = Node()
    lease = node.acquire()
    node.clock.at(5, lambda: node.registry.drop(lease.subnet.key))
    node.renew_for(TTL_S)
    assert node.manager.lease is not None
    assert node.registry.etcd_leases == {node.manager.lease.etcd_lease_id: TTL_S}
    assert node.key() is not None


@pytest.mark.parametrize("how", ["expired, then taken", "overwritten"])
@pytest.mark.row("B42")
def test_another_owner_fences_us_and_his_key_is_not_touched(how: str) -> None:
    node = Node()
    lease = node.acquire()

    def steal() -> None:
        if how != "overwritten":
            node.registry.expire(lease.etcd_lease_id)
        node.registry.put_lease(str(lease.subnet.ipv4), "192.168.8.229")

    node.clock.at(5, steal)
    node.renew_for(10 * TTL_S)
    assert node.fenced == [f"our subnet {lease.subnet} belongs to 192.168.8.229 now"]
    assert node.manager.fenced == node.fenced[0]
    stolen = node.key()
    assert stolen is not None
    assert stolen[0] == attrs("192.168.8.229").to_json()
    assert node.registry.calls.count("create") == 1


def test_a_race_for_our_own_lost_subnet_ends_in_a_fence() -> None:
    node = Node()
    lease = node.acquire()
    node.clock.at(5, lambda: node.registry.expire(lease.etcd_lease_id))
    node.registry.before_write.append(lambda: node.registry.put_lease(str(lease.subnet.ipv4), "192.168.8.229"))
    node.renew_for(2 * TTL_S)
    assert len(node.fenced) == 1


def test_an_outage_changes_nothing_and_is_reported_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = Node()
    lease = node.acquire()
    node.registry.failure = RegistryUnavailable("no answer")
    node.clock.at(120, lambda: setattr(node.registry, "failure", None))
    node.renew_for(200)
    assert (node.manager.lease, node.fenced) == (lease, [])
    warnings = [record for record in caplog.records if "cannot be renewed" in record.getMessage()]
    assert 9 <= len(warnings) <= 12
    assert "the lease is renewed again" in caplog.text


@pytest.mark.row("B41")
def test_a_key_that_was_overwritten_with_junk_is_repaired() -> None:
    node = Node()
    lease = node.acquire()
    node.clock.at(5, lambda: node.registry.put(lease.subnet.key, "junk"))
    node.renew_for(TTL_S)
    key = node.key()
    assert key is not None
    assert key[0] == NODE1.to_json()
    assert key[1] in node.registry.etcd_leases


def test_an_operator_can_make_our_lease_a_reservation() -> None:
    node = Node()
    lease = node.acquire()
    node.clock.at(5, lambda: node.registry.put(lease.subnet.key, NODE1.to_json()))
    node.renew_for(10 * TTL_S)
    assert node.manager.lease is not None
    assert node.manager.lease.is_reservation
    assert node.manager.seconds_left() is None
    assert node.registry.etcd_leases == {}


def test_release_gives_everything_back_but_a_reservation() -> None:
    node = Node()
    node.acquire()
    node.manager.release()
    assert (node.registry.keys, node.registry.etcd_leases) == ({}, {})
    node.registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=None)
    node.acquire()
    node.manager.release()
    assert list(node.registry.keys) == ["10.0.46.0-24"]


def test_release_spares_a_subnet_that_another_node_has_by_now() -> None:
    node = Node()
    lease = node.acquire()
    node.registry.expire(lease.etcd_lease_id)
    node.registry.put_lease(str(lease.subnet.ipv4), "192.168.8.229")
    node.manager.release()
    assert list(node.registry.keys) == [lease.subnet.key]


def end_during_renewal(node: Node, end: Callable[[], object]) -> None:
    """Call `end` in another thread just before a round of renewal creates the key again, which it did not find."""
    node.registry.drop(node.acquire().subnet.key)
    stop, ending = threading.Event(), threading.Thread(target=end)

    def stop_and_end() -> None:
        stop.set()
        ending.start()
        # One that does not wait for the round is done within this time.
        ending.join(0.2)

    node.registry.before_write.append(stop_and_end)
    node.manager.run_renewal(stop, node.fenced.append)
    ending.join(10)
    assert not ending.is_alive()


def test_release_during_a_round_of_renewal_leaves_no_key() -> None:
    node = Node()
    end_during_renewal(node, node.manager.release)
    assert (node.registry.keys, node.registry.etcd_leases) == ({}, {})


def test_a_move_during_a_round_of_renewal_is_written_to_the_key_of_that_round() -> None:
    node = Node()
    end_during_renewal(node, partial(node.manager.move_to, IPv4Address("192.168.8.150")))
    key = node.key()
    assert key is not None
    assert '"192.168.8.150"' in key[0]


# --- peers


@pytest.mark.row("C24")
def test_a_node_that_moves_takes_its_subnet_along_under_the_same_lease() -> None:
    node = Node()
    before = node.acquire()
    node.manager.move_to(IPv4Address("192.168.8.150"))
    key = node.key()
    assert key is not None
    assert '"192.168.8.150"' in key[0]
    assert key[1] == before.etcd_lease_id
    again = Node(node.registry, attrs=replace(NODE1, public_ip=IPv4Address("192.168.8.150")))
    assert again.acquire().subnet == before.subnet


def test_a_node_that_moves_does_not_touch_a_key_that_now_belongs_to_another_node() -> None:
    node = Node()
    lease = node.acquire()
    node.registry.delete(lease)
    node.registry.create(lease.subnet, NODE2, TTL_S)
    with pytest.raises(LeaseLost):
        node.manager.move_to(IPv4Address("192.168.8.150"))
    key = node.key()
    assert key is not None
    assert str(NODE2.public_ip) in key[0]


def test_peers_are_reported_when_they_come_change_and_go_and_never_ourselves() -> None:
    node = Node()
    node.acquire()
    node.registry.put_lease("10.0.101.0/24", "192.168.8.228")
    steps: list[Callable[[], object]] = [
        lambda: node.registry.put_lease("10.0.102.0/24", "192.168.8.229"),
        lambda: node.registry.put_lease("10.0.101.0/24", "192.168.8.230"),
        lambda: node.registry.put_lease("10.0.101.0/24", "192.168.8.230"),
        lambda: node.registry.drop("10.0.102.0-24"),
    ]
    for number, step in enumerate(steps):
        node.clock.at(1 + number, step)
    node.watch_for(70)
    both, one = ["10.0.101.0/24", "10.0.102.0/24"], ["10.0.101.0/24"]
    assert node.peers == [one, both, both, one]
    assert node.manager.revision == node.registry.revision
    assert node.manager.watch_restarts == 0


def test_the_first_list_is_reported_even_when_nobody_is_there() -> None:
    node = Node()
    node.acquire()
    node.watch_for(70)
    assert node.peers == [[]]


def test_nothing_is_withdrawn_during_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = Node()
    node.acquire()
    node.registry.put_lease("10.0.101.0/24", "192.168.8.228")
    node.clock.at(10, lambda: setattr(node.registry, "failure", RegistryUnavailable("no answer")))
    node.clock.at(110, lambda: setattr(node.registry, "failure", None))
    node.watch_for(150)
    assert node.peers == [["10.0.101.0/24"]]
    assert 40 <= node.manager.watch_restarts <= 110  # each 1 to 2 s
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 8 <= len(warnings) <= 11
    assert "followed again" in caplog.text


def test_changes_during_a_compaction_are_found_by_listing() -> None:
    node = Node()
    node.acquire()
    node.registry.put_lease("10.0.101.0/24", "192.168.8.228")

    def miss_and_compact() -> None:
        node.registry.put_lease("10.0.102.0/24", "192.168.8.229")
        node.registry.drop("10.0.101.0-24")
        node.registry.compact()

    node.clock.at(5, miss_and_compact)
    node.watch_for(8)
    assert node.peers == [["10.0.101.0/24"], ["10.0.102.0/24"]]
    assert node.manager.watch_restarts == 1


def test_a_change_alone_is_reported_at_once_and_many_in_a_row_together() -> None:
    node = Node()
    node.acquire()
    for number in range(20):
        put = partial(node.registry.put_lease, f"10.0.{100 + number}.0/24", f"192.168.8.{100 + number}")
        node.clock.at(10 + number / 100, put)
    started = node.clock.now()
    told: list[tuple[float, int]] = []
    stop = threading.Event()
    node.clock.at(20, stop.set)
    node.manager.run_watch(stop, lambda peers, _: told.append((node.clock.now() - started, len(peers))))
    assert [count for _, count in told] == [0, 1, 20]
    assert told[1][0] == pytest.approx(10, abs=0.01)
    assert told[2][0] <= 10.5


def test_a_change_that_was_received_before_etcd_failed_is_reported() -> None:
    node, stop = Node(), threading.Event()
    node.acquire()
    told: list[list[str]] = []

    def put_another_and_fail_soon(peers: tuple[Lease, ...], _: int) -> None:
        told.append([str(peer.subnet.ipv4) for peer in peers])
        if len(told) == 2:
            node.registry.put_lease("10.0.102.0/24", "192.168.8.229")
            node.clock.at(0.1, lambda: setattr(node.registry, "failure", RegistryUnavailable("gone")))

    node.clock.at(10, lambda: node.registry.put_lease("10.0.101.0/24", "192.168.8.228"))
    node.clock.at(20, stop.set)
    node.manager.run_watch(stop, put_another_and_fail_soon)
    assert told == [[], ["10.0.101.0/24"], ["10.0.101.0/24", "10.0.102.0/24"]]


@pytest.mark.row("C18")
def test_a_deaf_watch_is_repaired_within_half_a_minute() -> None:
    node = Node()
    node.acquire()
    node.registry.deaf = True
    node.clock.at(5, lambda: node.registry.put_lease("10.0.101.0/24", "192.168.8.228"))
    node.watch_for(31)
    assert node.peers == [[], ["10.0.101.0/24"]]
    assert node.manager.watch_restarts == 1


class IdleWatch(FakeWatch):
    """Reports a revision when nothing has changed, as etcd does for claims and at intervals."""

    def __init__(self, registry: FakeRegistry, start_revision: int, behind: int) -> None:
        super().__init__(registry, start_revision)
        self._reported = start_revision - 1 - behind

    def poll(self, timeout_s: float) -> Delta | Heartbeat | None:
        return super().poll(timeout_s) or Heartbeat(self._reported)


class RegistryOfIdleWatches(FakeRegistry):
    """Its watches report revisions that many behind the list from which they start."""

    def __init__(self, behind: int) -> None:
        super().__init__()
        self._behind = behind

    def watch(self, start_revision: int) -> Watch:
        return IdleWatch(self, start_revision, self._behind)


@pytest.mark.parametrize(("behind", "goes_back"), [(0, False), (1, True)])
def test_a_watch_that_a_list_has_overtaken_is_not_taken_for_a_restored_store(
    behind: int, goes_back: bool, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(RegistryOfIdleWatches(behind))
    node.acquire()
    node.registry.deaf = True
    node.clock.at(5, lambda: node.registry.put("10.0.5.0", "junk"))
    node.watch_for(70)
    assert (node.manager.watch_restarts > 0) is goes_back
    assert ("went back" in caplog.text) is goes_back


@pytest.mark.row("C13")
def test_a_store_that_was_restored_from_a_backup_is_believed() -> None:
    node = Node()
    lease = node.acquire()
    for number in range(101, 110):
        node.registry.put_lease(f"10.0.{number}.0/24", "192.168.8.228")
    node.clock.at(5, lambda: node.registry.restore(lease.mod_revision))
    node.clock.at(40, lambda: node.registry.put_lease("10.0.200.0/24", "192.168.8.229"))
    node.watch_for(95)
    assert node.peers[-1] == ["10.0.200.0/24"], "the others did not come back"
    assert len(node.peers[-2]) == 10


def test_peers_that_register_again_in_a_store_that_was_emptied_are_never_missed() -> None:
    node = Node()
    lease = node.acquire()
    for number in range(101, 110):
        node.registry.put_lease(f"10.0.{number}.0/24", f"192.168.8.{number}")
    node.clock.at(5, lambda: node.registry.restore(lease.mod_revision))
    for number in range(101, 109):
        # The list that shows what has happened comes at 30 s; half of them are late even for that.
        at = 5 + (number - 100) / 4 if number % 2 else 30 + (number - 100)
        node.clock.at(at, partial(node.registry.put_lease, f"10.0.{number}.0/24", f"192.168.8.{number}"))
    node.watch_for(95)
    first, *later = node.peers
    assert len(first) == 9
    assert later == [first[:8]], "the one that did not come back goes, and nobody else did in between"


def test_a_subnet_that_another_node_took_in_a_restored_store_is_the_others_at_once() -> None:
    node = Node()
    lease = node.acquire()
    node.registry.put_lease("10.0.101.0/24", "192.168.8.228")
    for _ in range(5):
        node.registry.put("10.0.5.0", "junk")

    def restore() -> None:
        node.registry.restore(lease.mod_revision)
        node.registry.put_lease("10.0.101.0/24", "192.168.8.229")

    node.clock.at(5, restore)
    node.watch_for(35)
    assert node.manager._watch is not None
    (peer,) = node.manager._watch._table.peers
    assert str(peer.attrs.public_ip) == "192.168.8.229"


def test_a_restored_store_with_the_same_peers_is_watched_from_its_own_revision() -> None:
    node = Node()
    lease = node.acquire()
    for _ in range(20):
        node.registry.put("10.0.5.0", "junk")
    node.clock.at(5, lambda: node.registry.restore(lease.mod_revision))
    node.clock.at(35, lambda: node.registry.put_lease("10.0.200.0/24", "192.168.8.229"))
    node.watch_for(40)
    assert node.peers == [[], ["10.0.200.0/24"]]


@pytest.mark.row("B40", "B41")
def test_bad_entries_are_reported_once_and_the_others_are_applied(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    for key in ("10.0.5.0", "10.0.300.0-24", "10.0.5.0-33", "10.0.5.0-24hi", "10.0.5.1-24", "ü\n"):
        node.registry.put(key, NODE1.to_json())
    node.registry.put("10.0.6.0-24", '{"PublicIP":5}')
    node.registry.put_lease("10.0.101.0/24", "192.168.8.228")
    node.registry.put_lease("10.0.102.0/24", "127.0.0.1")
    node.acquire()
    node.clock.at(5, lambda: node.registry.put("10.0.7.0-24", ""))
    node.watch_for(100)
    assert node.peers == [["10.0.101.0/24"]]
    ignored = [text for text in caplog.messages if "ignored" in text or "refused" in text]
    assert len(ignored) == len(set(ignored)) == 9
    assert all("\n" not in text for text in ignored)


def test_peers_that_could_not_be_put_in_force_are_reported_again() -> None:
    node, stop = Node(), threading.Event()
    node.acquire()
    told: list[int] = []

    def refuse_first(peers: tuple[Lease, ...], revision: int) -> None:
        told.append(revision)
        if len(told) == 1:
            raise AgentError("no such device")

    node.clock.at(95, stop.set)
    node.manager.run_watch(stop, refuse_first)
    assert len(told) == 2


@pytest.mark.parametrize("how", ["expired", "stolen"])
def test_the_watch_wakes_the_renewal_when_our_key_changes(how: str) -> None:
    """With a day's TTL the next renewal is hours away, but the watch sees the loss at once."""
    node = Node()
    lease = node.acquire()
    theft = attrs("192.168.8.229").to_json()
    if how == "expired":
        node.clock.at(1, lambda: node.registry.expire(lease.etcd_lease_id))
    else:
        node.clock.at(1, lambda: node.registry.put(lease.subnet.key, theft, lease.etcd_lease_id))
    node.watch_for(3)
    node.renew_for(1)
    assert (node.manager.lease != lease) == (how == "expired")
    assert bool(node.fenced) == (how == "stolen")


def test_our_own_write_does_not_wake_the_renewal() -> None:
    node = Node()
    node.acquire()
    node.watch_for(3)
    node.registry.calls.clear()
    node.renew_for(1)
    assert node.registry.calls == []


@pytest.mark.row("F38")
@pytest.mark.row("B42")
@pytest.mark.row("C15")
def test_two_agents_with_one_address_do_not_fight_over_the_key() -> None:
    node = Node()
    lease = node.acquire()
    twin = Node(node.registry, attrs=replace(NODE1, backend_type="vxlan"))
    twin.acquire()
    writes = node.registry.calls.count("update")
    node.watch_for(3)
    node.renew_for(3)
    assert node.registry.calls.count("update") == writes
    assert node.manager.lease is not None
    assert node.manager.lease.subnet == lease.subnet == Subnet(twin.acquire().subnet.ipv4)


@pytest.mark.row("B42")
def test_refused_leases_can_be_counted_with_their_reasons() -> None:
    node = Node()
    node.registry.put_lease("10.0.102.0/24", "127.0.0.1")
    assert node.manager.refused == {}
    node.acquire()
    node.watch_for(1)
    assert node.manager.refused == {subnet("10.0.102.0/24"): "public address 127.0.0.1 is a loopback address"}
