"""Two nodes with one public address: the second is refused with both names while the first lives, and only then."""

import random
import threading

import pytest

from agent.errors import RegistryDenied
from agent.lease import Claim, Subnet, parse_claim, parse_key
from agent.leases.claims import ANSWER_S, WARNED_S, AddressClaims
from agent.leases.manager import ADDRESS_TAKEN_S, SubnetManager
from agent.netconfig.config import parse_network_config
from tests.unit.fake_registry import NODE1, SUBNET, FakeRegistry

CONFIG = parse_network_config(b'{"Network":"10.0.0.0/16"}')
TTL_S = 30

pytestmark = pytest.mark.row("F38")


def manager(registry: FakeRegistry, node: str, previous: Subnet | None = None) -> SubnetManager:
    return SubnetManager(
        registry,
        CONFIG,
        NODE1,
        previous_subnet=previous,
        lease_ttl_s=TTL_S,
        node=node,
        clock=registry.clock,
        rng=random.Random(3),
    )


def living(registry: FakeRegistry, node: str = "node1") -> AddressClaims:
    """Return the one that is there already, looking every tenth of a second."""
    claims = AddressClaims(registry, NODE1.public_ip, node, registry.clock)

    def look() -> None:
        claims.see(registry.list_leases().claims)
        registry.clock.at(0.1, look)

    registry.clock.at(0.1, look)
    return claims


def try_for(seconds: float, node: SubnetManager, registry: FakeRegistry) -> tuple[Subnet | None, list[str]]:
    """Return the subnet that it gets, and what it said while it waited."""
    stop, told = threading.Event(), list[str]()
    registry.clock.at(seconds, stop.set)
    lease = node.acquire(stop, told.append)
    return None if lease is None else lease.subnet, told


def test_the_second_is_refused_with_both_names_and_harms_nothing() -> None:
    registry = FakeRegistry()
    registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=TTL_S)
    first, before = living(registry), dict(registry.keys)
    began = registry.clock.now()
    subnet, told = try_for(2, manager(registry, "node2"), registry)
    assert registry.clock.now() - began <= 2 + ADDRESS_TAKEN_S
    assert subnet is None
    assert len(told) == 1
    for part in ("192.168.8.227", "on node2", "on node1", "10.0.46.0/24"):
        assert part in told[0]
    assert registry.keys == before, "neither the lease nor a claim is other than before"
    told_first = list(first.warnings)
    assert told_first == ["node2 has our public address 192.168.8.227 too; it gets no subnet while we run"]
    registry.clock.advance(WARNED_S)
    assert list(first.warnings) == []


def test_it_gets_a_subnet_when_the_first_is_gone() -> None:
    registry = FakeRegistry()
    etcd_lease_id = registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=TTL_S)
    living(registry)
    registry.clock.at(5, lambda: registry.expire(etcd_lease_id))
    subnet, told = try_for(60, manager(registry, "node2"), registry)
    assert subnet is not None
    assert len(told) == 1


def test_without_an_answer_the_lease_is_our_own_from_before() -> None:
    registry = FakeRegistry()
    registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=TTL_S)
    began = registry.clock.now()
    assert try_for(60, manager(registry, "node1"), registry) == (SUBNET, [])
    assert ANSWER_S <= registry.clock.now() - began < ANSWER_S + 1
    assert list(registry.keys) == [SUBNET.key]


@pytest.mark.parametrize("why", ["the previous subnet", "a reservation", "no name"])
def test_a_process_that_need_not_ask_does_not_wait(why: str) -> None:
    registry = FakeRegistry()
    registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=None if why == "a reservation" else TTL_S)
    living(registry)
    node = manager(registry, "" if why == "no name" else "node2", SUBNET if why == "the previous subnet" else None)
    assert try_for(1, node, registry) == (SUBNET, [])
    assert "put_claim" not in registry.calls


def test_a_process_that_may_not_ask_continues_as_if_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry()
    registry.put_lease("10.0.46.0/24", "192.168.8.227", ttl_s=TTL_S)

    def refuse(_claim: Claim, _ttl_s: int) -> int:
        raise RegistryDenied("permission denied")

    monkeypatch.setattr(registry, "put_claim", refuse)
    assert try_for(1, manager(registry, "node2"), registry) == (SUBNET, [])


def test_only_questions_about_our_own_address_are_answered() -> None:
    registry = FakeRegistry()
    claims = AddressClaims(registry, NODE1.public_ip, "node1", registry.clock)
    other = Claim(NODE1.public_ip + 1, "node2")
    ours, answered = Claim(NODE1.public_ip, "node1"), Claim(NODE1.public_ip, "node2", "node1")
    for claim in (other, ours, answered):
        registry.put_claim(claim, 10)
        claims.see([claim])
    assert "answer_claim" not in registry.calls
    assert claims.warnings == ()


@pytest.mark.parametrize("node", ["node2", "a b", "10.0.5.0-24", "of-192.168.8.1", "клетка"])
def test_a_claim_is_read_back_and_is_no_lease_to_anybody(node: str) -> None:
    claim = Claim(NODE1.public_ip, node, "node1")
    assert parse_claim(claim.key, claim.to_json()) == claim
    with pytest.raises(ValueError, match="does not end in a subnet"):
        parse_key(claim.key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("10.0.5.0-24", "{}"),
        ("claim-by-x-of-1.2.3", '{"Holder":null}'),
        ("claim-by-x-of-1.2.3.4", "junk"),
        ("claim-by-x-of-1.2.3.4", "[" * 100_000),
    ],
)
def test_an_invalid_claim_is_ignored(key: str, value: str) -> None:
    assert parse_claim(key, value) is None
