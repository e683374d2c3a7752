"""The underlay interface: by name, by address, by --public-ip, by default route; else a list of what there is."""

from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_interface

import pytest

from agent.errors import EnvironmentMissing
from agent.kernel.values import ROUTE_SCOPES, AssignedAddress, Route
from agent.node.underlay_interface import Candidate, UnderlayInterface, Wish, choose, choose_ipv6, keep, source_of
from agent.options.go_regex import compile_go_regex


def held(*texts: str) -> tuple[AssignedAddress, ...]:
    """Return addresses in the kernel's order, with the flags of `ip address`."""
    found = []
    for text in texts:
        address, *words = text.split()
        one = AssignedAddress(ip_interface(address), device=2, permanent="dynamic" not in words)
        if "scope" in words:
            one = replace(one, scope=ROUTE_SCOPES[words[words.index("scope") + 1]])
        one = replace(one, secondary="secondary" in words, temporary="temporary" in words)
        found.append(replace(one, deprecated="deprecated" in words, duplicate="dadfailed" in words))
    return tuple(found)


def candidate(*addresses: str) -> Candidate:
    return Candidate("e0", True, 1500, held(*addresses))


def by(device: str | None, *, source: str | None = None, gateway: str | None = None) -> Route:
    return Route(
        IPv4Network("0.0.0.0/0"),
        device,
        gateway=None if gateway is None else IPv4Address(gateway),
        source=None if source is None else IPv4Address(source),
    )


E0 = candidate("192.168.8.227/24", "192.168.8.100/32")
E1 = Candidate("e1", True, 9000, held("10.9.0.1/24"))
DOWN = Candidate("down0", False, 1500, held("10.8.0.1/24"))
BARE = Candidate("bare0", True, 1500, ())
TWIN = Candidate("twin0", True, 1500, held("10.9.0.1/24"))
ALL = (E0, E1, DOWN, BARE)


def wish(*iface: str, public_ip: str | None = None) -> Wish:
    return Wish(iface, public_ip=IPv4Address(public_ip) if public_ip else None)


def refusal(*iface: str, candidates: tuple[Candidate, ...] = ALL, public_ip: str | None = None) -> str:
    with pytest.raises(EnvironmentMissing) as caught:
        choose(candidates, wish(*iface, public_ip=public_ip), None)
    return str(caught.value)


def test_a_name_or_an_address_chooses_and_the_first_that_fits_wins() -> None:
    assert choose(ALL, wish("e1"), by("e0")) == UnderlayInterface("e1", IPv4Address("10.9.0.1"), 9000)
    assert choose(ALL, wish("nope", "192.168.8.100"), by("e1")) == UnderlayInterface(
        "e0", IPv4Address("192.168.8.100"), 1500
    )
    assert choose(ALL, wish("down0", "bare0", "e1", "e0"), None).name == "e1"


def test_without_iface_the_public_ip_chooses_and_then_the_default_route() -> None:
    assert choose(ALL, wish(public_ip="10.9.0.1"), by("e0")).name == "e1"
    assert choose(ALL, wish(), by("e0")).address == IPv4Address("192.168.8.227")


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
    assert "also want --iface" in refusal(public_ip="1.2.3.4")


def test_no_default_route_asks_for_iface() -> None:
    assert "want --iface" in refusal()
    assert "loopback is the only interface" in refusal(candidates=())


def test_a_regex_is_looked_for_in_addresses_and_then_in_names() -> None:
    """flannel's TestLookupExtIface: by regex of an address and of a name."""
    assert choose(ALL, Wish(regex=[compile_go_regex(r"^10\.9\.")]), by("e0")).name == "e1"
    assert choose(ALL, Wish(regex=[compile_go_regex("e1")]), by("e0")).name == "e1"
    assert choose(ALL, Wish(regex=[compile_go_regex("nope"), compile_go_regex("e0")]), by("e1")).name == "e0"
    # «8» is in an address of e0 first, although another one's name has it too.
    assert choose((E1, E0), Wish(regex=[compile_go_regex("8")]), None).name == "e0"


def test_the_order_is_names_then_regexes_then_the_way_to_an_address() -> None:
    there = IPv4Address("8.8.8.8")
    assert choose(ALL, Wish(["nope"], [compile_go_regex("e1")], there), by("e0"), lambda _: by("e0")).name == "e1"
    assert choose(ALL, Wish(["nope"], [compile_go_regex("nope")], there), by("e1"), lambda _: by("e0")).name == "e0"
    assert choose(ALL, Wish(can_reach=there), by("e1"), lambda _: by("e0")).name == "e0"


def test_the_gap_of_the_first_flag_is_reported_when_none_fits() -> None:
    with pytest.raises(EnvironmentMissing, match=r"--iface: no such interface or address \(got nope"):
        choose(ALL, Wish(["nope"], [compile_go_regex("none")]), by("e0"))
    with pytest.raises(EnvironmentMissing, match=r"--iface-regex: matches no address and no name \(got 'none'"):
        choose(ALL, Wish(regex=[compile_go_regex("none")]), by("e0"))
    with pytest.raises(EnvironmentMissing, match=r"--iface-can-reach: no interface reaches it \(got 8\.8\.8\.8"):
        choose(ALL, Wish(can_reach=IPv4Address("8.8.8.8")), by("e0"))


@pytest.mark.parametrize(
    ("addresses", "wanted"),
    [
        (("192.168.8.22/24", "10.64.5.9/24"), "192.168.8.22"),
        (("192.168.8.22/24", "192.168.8.5/24 secondary"), "192.168.8.22"),
        (("192.168.8.22/24 dynamic", "192.168.8.5/24 secondary"), "192.168.8.22"),
        (("192.168.8.22/24 deprecated", "192.168.8.5/24 secondary"), "192.168.8.22"),
        (("192.168.8.22/24 dynamic", "10.64.5.9/24"), "10.64.5.9"),
        (("192.168.8.22/24 dynamic", "10.64.5.9/24 dynamic"), "192.168.8.22"),
        (("192.168.8.22/24 deprecated", "10.64.5.9/24 dynamic"), "10.64.5.9"),
        (("192.168.8.22/24 dynamic", "192.168.8.5/32"), "192.168.8.22"),
        (("192.168.8.5/32", "192.168.8.22/24"), "192.168.8.22"),
        (("192.168.8.5/32", "192.168.8.22/32"), "192.168.8.5"),
        (("169.254.3.4/16", "192.168.8.22/24 deprecated"), "192.168.8.22"),
        (("10.64.5.9/24 scope link", "192.168.8.22/24"), "192.168.8.22"),
        (("10.64.5.9/24 scope host", "169.254.3.4/16 scope link"), "169.254.3.4"),
    ],
)
def test_the_kernels_first_address_is_taken_that_lasts(addresses: tuple[str, ...], wanted: str) -> None:
    assert choose([candidate(*addresses)], wish("e0"), None).address == IPv4Address(wanted)


def test_an_address_of_only_this_machine_is_unusable() -> None:
    with pytest.raises(EnvironmentMissing, match="--iface: no IPv4 address"):
        choose([candidate("10.64.5.9/24 scope host")], wish("e0"), None)


def test_a_secondary_address_is_taken_only_when_it_is_named() -> None:
    both = [candidate("192.168.8.22/24", "192.168.8.5/24 secondary")]
    assert choose(both, wish("192.168.8.5"), None).address == IPv4Address("192.168.8.5")
    assert choose(both, wish(public_ip="192.168.8.5"), None).address == IPv4Address("192.168.8.5")
    assert choose(both, Wish(regex=[compile_go_regex(r"^192\.168\.")]), None).address == IPv4Address("192.168.8.22")
    assert choose(both, Wish(regex=[compile_go_regex(r"8\.5$")]), None).address == IPv4Address("192.168.8.5")


def test_a_route_gives_its_own_source_also_one_that_its_device_does_not_have() -> None:
    there = IPv4Address("8.8.8.8")
    for source in ("192.168.8.100", "10.99.0.1"):
        found = UnderlayInterface("e0", IPv4Address(source), 1500)
        towards = partial(dict.get, {there: by("e0", source=source)})
        assert choose(ALL, Wish(can_reach=there), None, towards) == found
        assert choose(ALL, Wish(), by("e0", source=source)) == found
    named = Wish(can_reach=there, public_ip=IPv4Address("192.168.8.227"))
    assert choose(ALL, named, None, lambda _: by("e0", source="192.168.8.100")).address == named.public_ip


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        (by("e0", gateway="192.168.8.1"), "192.168.8.22"),
        (by("e0", gateway="10.64.5.1"), "10.64.5.9"),
        (by("e0", gateway="203.0.113.1"), "10.64.5.9"),
        (by("e0", gateway="192.168.8.1", source="192.168.8.5"), "192.168.8.5"),
        (by("e0", gateway="10.1.1.1"), "10.64.5.9"),
        (replace(by("e0"), scope="link"), "10.1.1.9"),
    ],
)
def test_the_source_of_a_route_without_one_is_the_kernels(route: Route, wanted: str) -> None:
    addresses = held("10.1.1.9/24 scope link", "10.64.5.9/24", "192.168.8.22/24", "192.168.8.5/24 secondary")
    assert source_of(route, addresses) == IPv4Address(wanted)


def test_an_agent_keeps_an_address_while_the_interface_has_it() -> None:
    worse = candidate("10.64.5.9/24", "192.168.8.22/24 deprecated dynamic")
    now = keep((E1, worse), "e0", IPv4Address("192.168.8.22"))
    assert now == UnderlayInterface("e0", IPv4Address("192.168.8.22"), 1500)
    assert keep((E1, worse), "e0", IPv4Address("192.168.8.23")) is None
    assert keep((E1, worse), "e1", IPv4Address("192.168.8.22")) is None, "it is at another interface now"
    with pytest.raises(EnvironmentMissing, match="underlay: the interface is down"):
        keep([replace(worse, up=False)], "e0", IPv4Address("192.168.8.22"))


@pytest.mark.parametrize(
    ("addresses", "wanted"),
    [
        (("fd00:8::22/64", "fd00:8::5/64"), "fd00:8::22"),
        (("fe80::1/64 scope link", "fd00:8::22/64"), "fd00:8::22"),
        (("fe80::1/64 scope link",), None),
        (("fd00:8::5/64 dynamic temporary", "fd00:8::22/64 dynamic"), "fd00:8::22"),
        (("fd00:8::5/64 dynamic", "fd00:8::22/64"), "fd00:8::22"),
        (("fd00:8::5/64 deprecated", "fd00:8::22/64 dynamic temporary"), "fd00:8::22"),
        (("fd00:8::5/128", "fd00:8::22/64 dynamic"), "fd00:8::22"),
        (("fd00:8::5/64 dadfailed", "fd00:8::22/64 deprecated"), "fd00:8::22"),
        (("fd00:8::5/64 dadfailed",), None),
        ((), None),
    ],
)
def test_of_ipv6_addresses_the_same_is_taken(addresses: tuple[str, ...], wanted: str | None) -> None:
    assert choose_ipv6(held(*addresses), ()) == (None if wanted is None else IPv6Address(wanted))


def test_an_ipv6_address_that_is_kept_or_named_comes_first_if_it_is_there() -> None:
    here = held("fd00:8::22/64", "fd00:8::5/64 deprecated", "fd00:8::6/64")
    kept, public, gone, loopback = map(IPv6Address, ("fd00:8::5", "fd00:8::6", "fd00:8::7", "fd00:9::1"))
    assert choose_ipv6(here, (kept, public)) == kept
    assert choose_ipv6(here, (None, public)) == public
    assert choose_ipv6(here, (gone, public)) == public
    assert choose_ipv6(here, (gone, None), loopback) == loopback
    assert choose_ipv6(here, (gone, None)) == IPv6Address("fd00:8::22")
