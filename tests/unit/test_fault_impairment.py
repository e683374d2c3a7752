from ipaddress import ip_network

import pytest

from testbed.faults.impairment import Impairment, loss_script, netem_arguments
from testbed.faults.partition_faults import drop_script


@pytest.mark.parametrize(
    ("impairment", "words"),
    [
        (Impairment(loss=30), "loss 30%"),
        (Impairment(delay=100, jitter=50, loss=0.5), "delay 100ms 50ms loss 0.5%"),
        (Impairment(duplicate=5, corrupt=1), "duplicate 5% corrupt 1%"),
        (Impairment(reorder=10), "delay 10ms reorder 10%"),  # netem does not reorder without a delay
        (Impairment(), ""),
    ],
)
def test_netem_gets_the_wanted_settings(impairment: Impairment, words: str) -> None:
    assert " ".join(netem_arguments(impairment)) == words


def test_only_a_cable_that_does_nothing_but_lose_can_do_with_rules() -> None:
    assert Impairment(loss=3).only_loses
    assert not Impairment(loss=3, delay=1).only_loses
    assert not Impairment().only_loses
    assert Impairment().is_none


def test_rules_lose_the_asked_for_share() -> None:
    assert "numgen random mod 10000 < 250 counter drop" in loss_script("t", "eth0", 2.5)


def test_a_partition_names_every_address_that_is_not_heard() -> None:
    script = drop_script("t", [ip_network("192.168.8.11"), ip_network("10.0.46.0/24"), ip_network("fd00:8::227")])
    assert "ip saddr { 192.168.8.11/32, 10.0.46.0/24 } counter drop" in script
    assert "ip6 saddr { fd00:8::227/128 } counter drop" in script
    assert "ip6" not in drop_script("t", [ip_network("192.168.8.11")])
