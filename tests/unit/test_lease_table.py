"""One node's view of its peers: repeated, late and hostile results change nothing they must not."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from agent.lease import Delta, Lease, LeaseAdded, LeaseAttrs, LeaseRemoved, Snapshot, Subnet, WatchResult
from agent.leases.table import LeaseTable
from agent.netconfig.config import parse_network_config
from tests.unit.fake_registry import attrs, subnet

CONFIG = parse_network_config(b'{"Network":"10.0.0.0/16"}')
DUAL_STACK = parse_network_config(
    b'{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}'
)
OWN = subnet("10.0.46.0/24")


def table() -> LeaseTable:
    return LeaseTable(CONFIG, OWN, IPv4Address("192.168.8.227"))


def lease(cidr: str, public_ip: str = "192.168.8.228", revision: int = 5, backend_type: str = "") -> Lease:
    return Lease(subnet(cidr), attrs(public_ip, backend_type), 7, revision)


def snapshot(*leases: Lease, revision: int = 10) -> Snapshot:
    return Snapshot({lease.subnet: lease for lease in leases}, revision)


def added(*leases: Lease) -> Delta:
    return Delta(tuple(LeaseAdded(lease) for lease in leases), leases[-1].mod_revision)


def removed(cidr: str, revision: int) -> Delta:
    return Delta((LeaseRemoved(subnet(cidr), revision),), revision)


def test_a_snapshot_replaces_everything() -> None:
    peers = table()
    one, two, three = (lease(f"10.0.{number}.0/24") for number in (1, 2, 3))
    peers.apply(snapshot(two, one))
    assert peers.peers == (one, two)
    peers.apply(snapshot(two, three, revision=11))
    assert peers.peers == (two, three)
    assert peers.revision == 11


@pytest.mark.parametrize("through_snapshot", [True, False])
def test_a_changed_address_of_a_known_subnet_is_a_change(through_snapshot: bool) -> None:
    peers = table()
    peers.apply(snapshot(lease("10.0.1.0/24")))
    moved = lease("10.0.1.0/24", "192.168.8.229", revision=11)
    peers.apply(snapshot(moved, revision=11) if through_snapshot else added(moved))
    assert peers.peers == (moved,)


@pytest.mark.row("B42")
def test_our_own_subnet_is_never_a_peer_whoever_owns_it() -> None:
    peers = table()
    own = Lease(OWN, attrs("192.168.8.227"), 7, 5)
    stolen = lease("10.0.46.0/24", "192.168.8.229", revision=13)
    results: list[WatchResult] = [snapshot(own), snapshot(own, revision=11), snapshot(revision=12), added(stolen)]
    for result in results:
        assert peers.apply(result) == ()
        assert peers.peers == ()
    assert peers.own_lease == stolen


def test_events_that_come_twice_or_shuffled_lead_to_the_same_peers() -> None:
    rng = random.Random(7)
    events: list[Delta] = []
    expected: dict[Subnet, Lease] = {}
    for revision in range(11, 111):
        cidr = f"10.0.{rng.randrange(100, 110)}.0/24"
        if rng.random() < 0.3:
            events.append(removed(cidr, revision))
            expected.pop(subnet(cidr), None)
        else:
            fresh = lease(cidr, f"192.168.8.{rng.randrange(1, 200)}", revision)
            events.append(added(fresh))
            expected[fresh.subnet] = fresh
    events *= 2
    rng.shuffle(events)
    peers = table()
    peers.apply(snapshot())
    for event in events:
        peers.apply(event)
    assert {peer.subnet: peer for peer in peers.peers} == expected
    assert peers.revision == 110


def test_events_older_than_the_snapshot_are_ignored() -> None:
    peers = table()
    peer = lease("10.0.1.0/24", revision=9)
    peers.apply(snapshot(peer))
    for old in (removed("10.0.1.0/24", 10), added(lease("10.0.2.0/24", revision=3))):
        peers.apply(old)
        assert peers.peers == (peer,)
    peers.apply(removed("10.0.1.0/24", 11))
    assert peers.peers == ()


def test_a_snapshot_of_a_restored_store_counts_although_its_revision_is_lower() -> None:
    peers = table()
    peers.apply(snapshot(revision=80))
    peers.apply(added(lease("10.0.1.0/24", revision=90)))
    peers.apply(snapshot(revision=5))
    assert peers.peers == ()
    peers.apply(added(lease("10.0.1.0/24", revision=6)))
    assert len(peers.peers) == 1
    assert peers.revision == 6


HOSTILE = [
    ("10.1.5.0/24", "192.168.8.9", "outside the network"),
    ("0.0.0.0/0", "192.168.8.9", "outside the network"),
    ("10.0.0.0/8", "192.168.8.9", "outside the network"),
    ("10.0.0.0/16", "192.168.8.9", "is a /16, not a /24"),
    ("10.0.5.0/25", "192.168.8.9", "is a /25, not a /24"),
    ("10.0.5.0/24", "0.0.0.0", "not a node's address"),
    ("10.0.5.0/24", "0.1.2.3", "not a node's address"),
    ("10.0.5.0/24", "255.255.255.255", "not a node's address"),
    ("10.0.5.0/24", "127.0.0.1", "loopback"),
    ("10.0.5.0/24", "224.0.0.1", "multicast"),
    ("10.0.5.0/24", "10.0.7.7", "inside the overlay network"),
    ("10.0.5.0/24", "192.168.8.227", "is our own"),
]


@pytest.mark.parametrize(("cidr", "public_ip", "reason"), HOSTILE)
@pytest.mark.row("B42")
def test_a_hostile_lease_is_refused_once_with_its_reason(cidr: str, public_ip: str, reason: str) -> None:
    peers = table()
    good, bad = lease("10.0.9.0/24"), lease(cidr, public_ip)
    [refusal] = peers.apply(snapshot(good, bad))
    assert peers.peers == (good,)
    assert refusal.lease == bad
    assert reason in refusal.reason
    assert peers.apply(snapshot(good, bad, revision=11)) == ()
    assert peers.refused.keys() == {bad.subnet}


@pytest.mark.parametrize(
    ("public_ipv6", "reason"),
    [
        ("::", "not a node's address"),
        ("::1", "loopback"),
        ("ff02::1", "multicast"),
        ("fd00::7", "inside the overlay network fd00::/48"),
        ("fd00:8::9", ""),
        ("200::9", ""),
        (None, ""),
    ],
)
@pytest.mark.row("B42")
def test_an_ipv6_address_is_checked_too_where_the_network_has_ipv6(public_ipv6: str | None, reason: str) -> None:
    public = None if public_ipv6 is None else IPv6Address(public_ipv6)
    found = Lease(subnet("10.0.5.0/24"), LeaseAttrs(IPv4Address("192.168.8.9"), public), 7, 5)
    ipv4_only = table()
    ipv4_only.apply(snapshot(found))
    assert ipv4_only.peers == (found,)
    dual = LeaseTable(DUAL_STACK, OWN, IPv4Address("192.168.8.227"))
    # A known lease that gets the address is refused like a new one.
    dual.apply(snapshot(replace(found, attrs=attrs("192.168.8.9"))))
    dual.apply(added(replace(found, mod_revision=11)))
    assert bool(dual.peers) is not bool(reason)
    assert reason in "".join(dual.refused.values())


@pytest.mark.row("B42")
def test_a_lease_over_our_own_subnet_is_refused() -> None:
    peers = table()
    over_ours = Lease(Subnet(OWN.ipv4, IPv6Network("fd00::/64")), attrs("192.168.8.9"), 7, 5)
    [refusal] = peers.apply(snapshot(over_ours))
    assert refusal.reason == "subnet overlaps our own 10.0.46.0/24"


@pytest.mark.row("B42")
def test_a_newcomer_does_not_replace_a_live_owner() -> None:
    peers = table()
    holder = lease("10.0.5.0/24", revision=9)
    rival = Lease(Subnet(holder.subnet.ipv4, IPv6Network("fd00::/64")), attrs("192.168.8.9"), 7, 3)
    peers.apply(snapshot(holder))
    [refusal] = peers.apply(snapshot(holder, rival, revision=11))
    assert "overlaps 10.0.5.0/24, which was first" in refusal.reason
    assert peers.peers == (holder,)
    peers.apply(removed("10.0.5.0/24", 12))
    assert peers.peers == (rival,)


@pytest.mark.row("B42")
def test_a_node_may_hold_two_subnets() -> None:
    """As while it changes from one to the other; both are reached at the one address."""
    peers = table()
    both = (lease("10.0.5.0/24"), lease("10.0.6.0/24"))
    peers.apply(snapshot(*both))
    assert peers.peers == both
    assert peers.refused == {}


@pytest.mark.parametrize("seed", range(5))
def test_single_events_and_full_lists_lead_to_the_same_peers_and_refusals(seed: int) -> None:
    """Events look only at subnets that share a network with theirs, lists at all: neither may see more."""
    rng, by_events, by_lists = random.Random(seed), table(), table()
    state: dict[Subnet, Lease] = {}
    by_events.apply(snapshot())
    refused = 0
    for revision in range(11, 311):
        ipv6 = rng.choice([None, IPv6Network(f"fd00:{rng.randrange(3)}::/64")])
        chosen = Subnet(subnet(f"10.0.{rng.randrange(44, 50)}.0/24").ipv4, ipv6)
        if rng.random() < 0.4:
            state.pop(chosen, None)
            by_events.apply(Delta((LeaseRemoved(chosen, revision),), revision))
        else:
            fresh = Lease(chosen, attrs(f"192.168.8.{rng.randrange(225, 230)}"), 7, revision)
            state[chosen] = fresh
            by_events.apply(added(fresh))
        by_lists.apply(snapshot(*state.values(), revision=revision))
        assert set(by_events.peers) == set(by_lists.peers)
        # Of two that one collides with, either may be named.
        assert by_events.refused.keys() == by_lists.refused.keys()
        refused += len(by_events.refused)
    assert refused > 100
