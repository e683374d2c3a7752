"""A running agent's underlay: what is gone for a moment is waited for, what is gone for good ends the agent."""

import logging
import math
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from agent.backends.base import Underlay
from agent.errors import EnvironmentMissing
from agent.node.underlay_watch import ADDRESS_GONE_S, UnderlayWatch

OWN = IPv4Address("192.168.8.22")
BEGAN = Underlay("eth0", OWN, 1500, OWN, IPv6Address("fd00:8::22"), IPv6Address("fd00:8::22"))
OTHER = replace(BEGAN, address=IPv4Address("192.168.8.5"), public_ip=IPv4Address("192.168.8.5"))
OTHER_IPV6 = replace(BEGAN, ipv6_address=IPv6Address("fd00:8::5"), public_ipv6=IPv6Address("fd00:8::5"))


class Machine:
    """What a new choice would find, and a watch on it."""

    def __init__(self, *beside: Underlay) -> None:
        self.now: Underlay | None = BEGAN
        self.addresses = {address for one in (BEGAN, *beside) for address in (one.address, one.ipv6_address) if address}
        self.watch = UnderlayWatch(BEGAN, self._choose, lambda: self.addresses)

    def _choose(self, current: Underlay) -> Underlay:
        assert current == BEGAN
        if self.now is None:
            raise EnvironmentMissing("eth0 has nothing")
        return self.now

    def look(self, now: Underlay | None, at_s: float) -> Underlay | None:
        self.now = now
        return self.watch.look(at_s)


def test_an_unchanged_state_is_not_checked_again() -> None:
    machine = Machine()
    assert machine.look(BEGAN, 100) is None
    assert machine.watch.due_at_s == math.inf


@pytest.mark.parametrize("other", [OTHER, OTHER_IPV6])
def test_another_address_is_taken_when_ours_does_not_return(other: Underlay, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(other)
    with caplog.at_level(logging.WARNING):
        assert machine.look(other, 100) is None
    assert f"eth0 lost {OWN if other is OTHER else 'fd00:8::22'}" in caplog.text
    assert machine.watch.due_at_s == 100 + ADDRESS_GONE_S
    assert machine.look(other, 100.5) is None
    assert machine.watch.due_at_s == 100 + ADDRESS_GONE_S
    assert machine.look(other, machine.watch.due_at_s) == other


def test_an_address_that_is_back_in_time_is_forgotten_to_have_gone() -> None:
    machine = Machine(OTHER)
    for start in (100, 100.9, 200):
        assert machine.look(OTHER, start) is None
        assert machine.look(BEGAN, start + 0.5) is None
        assert machine.watch.due_at_s == math.inf


def test_an_address_that_came_in_place_of_ours_is_taken_at_once() -> None:
    assert Machine().look(OTHER, 100) == OTHER
    assert Machine(OTHER).look(replace(OTHER, ipv6_address=IPv6Address("fd00:8::6")), 100) is not None


def test_an_address_that_came_later_was_beside_ours_too() -> None:
    machine = Machine()
    machine.addresses |= {OTHER.address}
    assert machine.look(BEGAN, 100) is None
    assert machine.look(OTHER, 200) is None
    assert machine.watch.due_at_s == 200 + ADDRESS_GONE_S


@pytest.mark.parametrize("other", [replace(BEGAN, mtu=1400), replace(BEGAN, interface="br0")])
def test_another_mtu_or_interface_of_the_same_addresses_is_taken_at_once(other: Underlay) -> None:
    assert Machine().look(other, 100) == other


def test_without_any_choice_the_agent_waits_and_then_takes_the_first_at_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    for at_s in (100, 100.1, 1000):
        assert machine.look(None, at_s) is None
        assert machine.watch.due_at_s == math.inf
    assert caplog.messages == ["underlay: eth0 has nothing"], "once, however often it is looked at"
    assert machine.look(OTHER, 1001) == OTHER
    assert machine.look(BEGAN, 1002) is None
