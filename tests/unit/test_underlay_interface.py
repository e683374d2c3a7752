"""The underlay interface: by name, by address, by --public-ip, by default route; else a list of what there is."""

import re
from ipaddress import IPv4Address, IPv4Interface

import pytest

from agent.errors import EnvironmentMissing
from agent.node.underlay_interface import Candidate, UnderlayInterface, Wish, choose

E0 = Candidate("e0", True, 1500, (IPv4Interface("192.168.8.227/24"), IPv4Interface("192.168.8.100/32")))
E1 = Candidate("e1", True, 9000, (IPv4Interface("10.9.0.1/24"),))
DOWN = Candidate("down0", False, 1500, (IPv4Interface("10.8.0.1/24"),))
BARE = Candidate("bare0", True, 1500, ())
TWIN = Candidate("twin0", True, 1500, (IPv4Interface("10.9.0.1/24"),))
ALL = (E0, E1, DOWN, BARE)


def wish(*iface: str, public_ip: str | None = None) -> Wish:
    return Wish(iface, public_ip=IPv4Address(public_ip) if public_ip else None)


def refusal(*iface: str, candidates: tuple[Candidate, ...] = ALL, public_ip: str | None = None) -> str:
    with pytest.raises(EnvironmentMissing) as caught:
        choose(candidates, wish(*iface, public_ip=public_ip), None)
    return str(caught.value)


def test_a_name_or_an_address_chooses_and_the_first_that_fits_wins() -> None:
    assert choose(ALL, wish("e1"), "e0") == UnderlayInterface("e1", IPv4Address("10.9.0.1"), 9000)
    assert choose(ALL, wish("nope", "192.168.8.100"), "e1") == UnderlayInterface(
        "e0", IPv4Address("192.168.8.100"), 1500
    )
    assert choose(ALL, wish("down0", "bare0", "e1", "e0"), None).name == "e1"


def test_without_iface_the_public_ip_chooses_and_then_the_default_route() -> None:
    assert choose(ALL, wish(public_ip="10.9.0.1"), "e0").name == "e1"
    assert choose(ALL, wish(), "e0").address == IPv4Address("192.168.8.227")


def test_a_public_ip_of_the_named_interface_is_the_address() -> None:
    assert choose(ALL, wish("e0", public_ip="192.168.8.100"), None).address == IPv4Address("192.168.8.100")
    assert choose(ALL, wish("e0", public_ip="1.2.3.4"), None).address == IPv4Address("192.168.8.227")


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


def test_a_regex_is_looked_for_in_addresses_and_then_in_names() -> None:
    """flannel's TestLookupExtIface: by regex of an address and of a name."""
    assert choose(ALL, Wish(regex=[re.compile(r"^10\.9\.")]), "e0").name == "e1"
    assert choose(ALL, Wish(regex=[re.compile("e1")]), "e0").name == "e1"
    assert choose(ALL, Wish(regex=[re.compile("nope"), re.compile("e0")]), "e1").name == "e0"
    # «8» is in an address of e0 first, although another one's name has it too.
    assert choose((E1, E0), Wish(regex=[re.compile("8")]), None).name == "e0"


def test_the_order_is_names_then_regexes_then_the_way_to_an_address() -> None:
    there = IPv4Address("8.8.8.8")
    assert choose(ALL, Wish(["nope"], [re.compile("e1")], there), "e0", lambda _: "e0").name == "e1"
    assert choose(ALL, Wish(["nope"], [re.compile("nope")], there), "e1", lambda _: "e0").name == "e0"
    assert choose(ALL, Wish(can_reach=there), "e1", lambda _: "e0").name == "e0"


def test_what_the_first_flag_lacks_is_told_when_none_fits() -> None:
    with pytest.raises(EnvironmentMissing, match=r"--iface: no such interface or address \(got nope"):
        choose(ALL, Wish(["nope"], [re.compile("none")]), "e0")
    with pytest.raises(EnvironmentMissing, match=r"--iface-regex: in no address and no name \(got 'none'"):
        choose(ALL, Wish(regex=[re.compile("none")]), "e0")
    with pytest.raises(EnvironmentMissing, match=r"--iface-can-reach: no interface leads there \(got 8\.8\.8\.8"):
        choose(ALL, Wish(can_reach=IPv4Address("8.8.8.8")), "e0")
