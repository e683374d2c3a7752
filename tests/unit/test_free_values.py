"""What messages suggest instead of a value that is taken; and that every message suggests something."""

import ast
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from testbed.cluster.free_values import free_address, free_name, free_port, free_subnet
from testbed.cluster.name_rules import MAX_NODE_NAME, check_node_name

ROOT = Path(__file__).parents[2]
WITHOUT_A_VALUE = re.compile(r"want (another|another value|fewer|more|it in quotes|something else|\w+: …)\)")


def test_a_name_gets_the_next_number() -> None:
    assert free_name("web", {"web"}) == "web-2"
    assert free_name("web", {"web", "web-2"}) == "web-3"
    assert free_name("web-2", {"web-2"}) == "web-3"
    assert free_name("node1", {"node1", "node2"}, between="") == "node3"


@pytest.mark.parametrize("name", ["node1", "abcdefghi", "a", "abcdefg99"])
def test_a_suggested_node_name_is_one_that_a_node_may_have(name: str) -> None:
    suggested = free_name(name, {name}, between="", longest=MAX_NODE_NAME)
    assert check_node_name(suggested) == suggested != name


def test_a_port_is_the_next_above_else_the_lowest_free_one() -> None:
    assert free_port(80, {80, 81}) == 82
    assert free_port(65535, {65535, 1}) == 2
    assert free_port(32767, {32767, 30000}, 30000, 32767) == 30001


def test_an_address_is_the_first_free_one_from_the_offset_on() -> None:
    network = IPv4Network("10.9.0.0/28")
    assert free_address(network, {IPv4Address("10.9.0.5")}, 5) == IPv4Address("10.9.0.6")
    above = {network[number] for number in range(5, 15)}
    assert free_address(network, above, 5) == IPv4Address("10.9.0.1")
    assert free_address(network, set(), 101) == IPv4Address("10.9.0.14")


def test_a_subnet_is_the_first_free_one() -> None:
    first, last = IPv4Address("10.0.1.0"), IPv4Address("10.0.255.0")
    assert free_subnet(first, last, 24, {IPv4Network("10.0.1.0/24")}) == IPv4Network("10.0.2.0/24")
    wide = free_subnet(IPv6Address("fd00:0:0:1::"), IPv6Address("fd00:0:0:ff::"), 64, set())
    assert str(wide) == "fd00:0:0:1::/64"


@pytest.mark.parametrize("file", sorted((ROOT / "tests" / "unit" / "errors").glob("*.txt")), ids=lambda file: file.stem)
def test_every_message_about_a_file_describes_a_valid_value(file: Path) -> None:
    assert WITHOUT_A_VALUE.findall(file.read_text(encoding="utf-8")) == []


def test_no_message_in_the_code_asks_for_another_value_without_naming_it() -> None:
    texts = (
        (path, node.value)
        for package in ("agent", "testbed")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert [f"{path}: {text}" for path, text in texts if WITHOUT_A_VALUE.search(text)] == []
