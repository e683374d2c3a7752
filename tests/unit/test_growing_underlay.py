"""A node that comes or goes changes its own place in the underlay and what its neighbours know, and nothing else."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from testbed.cluster.addresses import AddressPlan, UnderlayFull, plan_addresses, with_node
from testbed.cluster.underlay_plan import plan_underlay
from testbed.cluster.wiring import Cable, Wiring

ONE_SWITCH = Wiring(("a", "b"), ("s1",), (Cable("a", "s1"), Cable("b", "s1")))
TWO_SITES = Wiring(
    ("a", "b"), ("s1", "s2"), (Cable("a", "s1"), Cable("b", "s2"), Cable("r", "s1"), Cable("r", "s2")), ("r",)
)


def addresses(wiring: Wiring, cidr: str = "192.168.8.0/24") -> AddressPlan:
    return plan_addresses(IPv4Network(cidr), None, 1, dict.fromkeys(wiring.nodes), wiring)


def test_a_new_node_gets_the_next_address_and_all_others_keep_theirs() -> None:
    before = addresses(ONE_SWITCH)
    after = with_node(before, "c", None, 0)
    assert str(after.nodes["c"]) == "192.168.8.103"
    assert replace(after, nodes=before.nodes) == before
    assert with_node(before, "c", IPv4Address("192.168.8.7"), 0).nodes["c"] == IPv4Address("192.168.8.7")


def test_an_address_that_a_gone_node_had_is_given_again() -> None:
    before = addresses(ONE_SWITCH)
    without_a = replace(before, nodes={"b": before.nodes["b"]})
    assert with_node(without_a, "c", None, 0).nodes["c"] == before.nodes["a"]


def test_a_full_segment_takes_no_more() -> None:
    full = with_node(with_node(addresses(ONE_SWITCH, "192.168.8.0/29"), "c", None, 0), "d", None, 0)
    with pytest.raises(UnderlayFull):
        with_node(full, "e", None, 0)


def test_the_machines_of_its_segment_learn_a_new_node_and_other_plans_are_unchanged() -> None:
    wiring = TWO_SITES.with_node("c", "s2")
    before = plan_underlay(TWO_SITES, addresses(TWO_SITES), 1500)
    segment = TWO_SITES.segment_of_switch["s2"]
    after = plan_underlay(wiring, with_node(addresses(TWO_SITES), "c", None, segment), 1500)
    assert "c" in [one.name for one in after.machines["b"].neighbours]
    assert after.machines["a"] == before.machines["a"]
    assert str(after.machines["c"].ports[0].address.network) == str(after.machines["b"].ports[0].address.network)
    assert after.machines["c"].routes


def test_adding_and_taking_away_leaves_the_wiring_as_it_was() -> None:
    assert TWO_SITES.with_node("c", "s2").without_node("c") == TWO_SITES
