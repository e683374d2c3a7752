"""The underlay interface: by name, by address, by --public-ip, by default route; else a list of what there is."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from agent.errors import EnvironmentMissing
from agent.underlay_interface import Candidate, UnderlayInterface, choose

E0 = Candidate("e0", True, 1500, (IPv4Interface("192.168.8.227/24"), IPv4Interface("192.168.8.100/32")))
E1 = Candidate("e1", True, 9000, (IPv4Interface("10.9.0.1/24"),))
DOWN = Candidate("down0", False, 1500, (IPv4Interface("10.8.0.1/24"),))
BARE = Candidate("bare0", True, 1500, ())
TWIN = Candidate("twin0", True, 1500, (IPv4Interface("10.9.0.1/24"),))
ALL = (E0, E1, DOWN, BARE)


def refusal(*iface: str, candidates: tuple[Candidate, ...] = ALL, public_ip: str | None = None) -> str:
    with pytest.raises(EnvironmentMissing) as caught:
        choose(candidates, iface, IPv4Address(public_ip) if public_ip else None, None)
    return str(caught.value)


def test_a_name_or_an_address_chooses_and_the_first_that_fits_wins() -> None:
    assert choose(ALL, ["e1"], None, "e0") == UnderlayInterface("e1", IPv4Address("10.9.0.1"), 9000)
    assert choose(ALL, ["nope", "192.168.8.100"], None, "e1") == UnderlayInterface(
        "e0", IPv4Address("192.168.8.100"), 1500
    )
    assert choose(ALL, ["down0", "bare0", "e1", "e0"], None, None).name == "e1"


def test_without_iface_the_public_ip_chooses_and_then_the_default_route() -> None:
    assert choose(ALL, [], IPv4Address("10.9.0.1"), "e0").name == "e1"
    assert choose(ALL, [], None, "e0").address == IPv4Address("192.168.8.227")


def test_a_public_ip_of_the_named_interface_is_the_address() -> None:
    assert choose(ALL, ["e0"], IPv4Address("192.168.8.100"), None).address == IPv4Address("192.168.8.100")
    assert choose(ALL, ["e0"], IPv4Address("1.2.3.4"), None).address == IPv4Address("192.168.8.227")


@pytest.mark.row("B3")
def test_an_unknown_name_lists_every_candidate_with_its_addresses() -> None:
    line = refusal("nope")
    assert line.startswith("--iface: no such interface or address (got nope; want ")
    for part in (
        "e0 (192.168.8.227/24, 192.168.8.100/32)",
        "e1 (10.9.0.1/24)",
        "down0 (10.8.0.1/24, down)",
        "bare0 (no IPv4",
    ):
        assert part in line


@pytest.mark.parametrize(("name", "reason"), [("down0", "is down"), ("bare0", "no IPv4 address")])
@pytest.mark.row("B3")
def test_an_interface_that_can_carry_nothing_is_refused(name: str, reason: str) -> None:
    assert reason in refusal(name)


@pytest.mark.row("B3")
def test_an_address_that_two_interfaces_have_needs_a_name() -> None:
    line = refusal("10.9.0.1", candidates=(E1, TWIN))
    assert "several interfaces" in line
    assert "twin0" in line


def test_a_public_ip_that_is_not_local_needs_iface_too() -> None:
    assert "want --iface beside it" in refusal(public_ip="1.2.3.4")


def test_no_default_route_asks_for_iface() -> None:
    assert "want --iface" in refusal()
    assert "no interface here but loopback" in refusal(candidates=())
