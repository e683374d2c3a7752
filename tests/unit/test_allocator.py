"""Which subnet is asked for: only free ones, drawn from the first hundred, at any size of network."""

import random
from ipaddress import IPv6Network

import pytest

from agent.errors import NoFreeSubnet
from agent.lease import Subnet
from agent.leases.allocator import FreeCount, choose_subnet, count_free, obstacle
from agent.netconfig.config import NetworkConfig, parse_network_config
from tests.unit.fake_registry import subnet


def config(text: str) -> NetworkConfig:
    return parse_network_config(text.encode())


def walk(network: NetworkConfig, taken: list[Subnet]) -> list[Subnet]:
    """Return every free subnet from SubnetMin on: flannel's algorithm, slowly."""
    found = []
    address = network.subnet_min
    while address <= network.subnet_max:
        candidate = subnet(f"{address}/{network.subnet_len}")
        if not any(candidate.overlaps(other) for other in taken):
            found.append(candidate)
        address += 1 << (32 - network.subnet_len)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_choice_and_count_agree_with_a_slow_walk(seed: int) -> None:
    rng = random.Random(seed)
    network = config('{"Network":"10.0.0.0/23","SubnetLen":28,"SubnetMin":"10.0.0.32","SubnetMax":"10.0.1.208"}')
    taken = [
        subnet(f"10.0.{rng.randrange(2)}.{rng.randrange(256) >> host_bits << host_bits}/{32 - host_bits}")
        for host_bits in rng.choices([2, 3, 4, 5, 6], k=rng.randrange(12))
    ]
    free = walk(network, taken)
    assert count_free(network, taken) == FreeCount(len(free), 28)
    if free:
        assert {choose_subnet(network, taken, f"node{draw}") for draw in range(300)} == set(free)


def test_only_the_first_hundred_are_drawn_from() -> None:
    network = config('{"Network":"10.0.0.0/16"}')
    taken = [subnet("10.0.2.0/24"), subnet("10.0.4.0/24")]
    drawn = {choose_subnet(network, taken, f"node{seed}") for seed in range(2000)}
    assert drawn == set(walk(network, taken)[:100])


def test_no_free_subnet_is_reported_with_the_count() -> None:
    network = config('{"Network":"10.0.0.0/28"}')
    taken = [subnet("10.0.0.4/30"), subnet("10.0.0.8/30"), subnet("10.0.0.12/30")]
    with pytest.raises(NoFreeSubnet, match="0 of 3 subnets are free"):
        choose_subnet(network, taken, "node1")
    assert choose_subnet(network, taken[:2], "node1") == taken[2]


def test_leases_of_another_length_are_avoided_but_a_claim_on_everything_is_not_believed() -> None:
    network = config('{"Network":"10.0.0.0/26","SubnetLen":28}')
    taken = [subnet("10.0.0.16/30"), subnet("10.0.0.48/28"), subnet("0.0.0.0/0"), subnet("10.0.0.0/26")]
    assert choose_subnet(network, taken, "node1") == subnet("10.0.0.32/28")
    assert count_free(network, taken) == FreeCount(1, 3)


def test_an_ipv6_claim_on_everything_is_not_believed_either() -> None:
    network = config('{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}')
    free = choose_subnet(network, [], "node1")
    assert free.ipv6 is not None
    for everything in ("::/0", "fd00::/8", "fd00::/48"):
        claim = Subnet(subnet("10.0.5.0/24").ipv4, IPv6Network(everything))
        assert choose_subnet(network, [claim], "node1").ipv6 == free.ipv6
    holder = Subnet(subnet("10.0.5.0/24").ipv4, free.ipv6)
    assert choose_subnet(network, [holder], "node1").ipv6 != free.ipv6


def test_a_claim_on_everything_does_not_take_a_node_its_previous_subnet() -> None:
    network = config('{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}')
    previous = Subnet(subnet("10.0.46.0/24").ipv4, IPv6Network("fd00:0:0:5::/64"))
    everything = [subnet("0.0.0.0/0"), subnet("10.0.0.0/16"), Subnet(subnet("10.0.7.0/24").ipv4, IPv6Network("::/0"))]
    assert obstacle(network, previous, everything) is None
    for holder in (
        subnet("10.0.46.0/24"),
        subnet("10.0.46.128/25"),
        Subnet(subnet("10.0.7.0/24").ipv4, previous.ipv6),
        Subnet(subnet("0.0.0.0/0").ipv4, previous.ipv6),
    ):
        assert obstacle(network, previous, [*everything, holder]) == f"{holder} belongs to another node"


def test_both_families_are_chosen() -> None:
    network = config('{"Network":"10.0.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}')
    chosen = choose_subnet(network, [], "node1")
    assert network.allows(chosen)
    others = {choose_subnet(network, [chosen], f"node{seed}") for seed in range(200)}
    assert all(not other.overlaps(chosen) for other in others)


def test_a_big_network_with_thousands_of_leases_is_no_burden() -> None:
    network = config('{"Network":"10.0.0.0/8","SubnetLen":30}')
    taken = [subnet(f"10.{number >> 8}.{number & 255}.0/30") for number in range(3000)]
    assert network.allows(choose_subnet(network, taken, "node1"))
    # 10.0.0.0/30 lies below SubnetMin.
    assert count_free(network, taken) == FreeCount((1 << 22) - 1 - 2999, (1 << 22) - 1)


def test_a_node_likes_the_same_subnet_best_whatever_the_others_do() -> None:
    network = config('{"Network":"10.0.0.0/16"}')
    first = choose_subnet(network, [], "192.168.8.101")
    others = [choose_subnet(network, [first], f"192.168.8.{number}") for number in range(102, 120)]
    assert choose_subnet(network, others, "192.168.8.101") == first
    assert choose_subnet(network, [*others, first], "192.168.8.101") not in [*others, first]
    assert len({first, *others}) > 10, "nodes spread"
