"""The picture of what NetworkPolicies allow: a marker for each pair, whole names, namespaces apart."""

from collections.abc import Mapping
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

from testbed.command import policy_command
from testbed.command.command_line import verbs
from testbed.control.answers.policy import PolicyAnswer, PolicyPair
from testbed.graph.drawing import text_width
from testbed.graph.policy_matrix import draw_matrix

SVG = "{http://www.w3.org/2000/svg}"
Ports = Mapping[tuple[str, str], list[str]]

SHOP: Ports = {
    ("client", "shop/web"): ["80/tcp", "8080-8081/tcp"],
    ("client", "shop/db"): [],
    ("shop/web", "client"): ["all"],
    ("shop/web", "shop/db"): ["all"],
    ("shop/db", "client"): ["all"],
    ("shop/db", "shop/web"): [],
}


def answer(pods: list[str], ports: Ports) -> PolicyAnswer:
    pairs: list[PolicyPair] = [{"source": one, "target": other, "ports": ports[one, other]} for one, other in ports]
    return {"pods": pods, "pairs": pairs}


def drawn(pods: list[str], ports: Ports) -> ElementTree.Element:
    return ElementTree.fromstring(draw_matrix("shop", answer(pods, ports)))


def of_class(picture: ElementTree.Element, tag: str, class_: str) -> list[ElementTree.Element]:
    return [one for one in picture.iter(f"{SVG}{tag}") if one.get("class") == class_]


def titles(picture: ElementTree.Element) -> set[str | None]:
    return {one.text for one in picture.iter(f"{SVG}title")}


def test_each_pair_has_a_marker_whose_tooltip_has_the_ports_that_pass() -> None:
    picture = drawn(["client", "shop/web", "shop/db"], SHOP)
    assert titles(picture) == {
        "client → shop/web: 80/tcp, 8080-8081/tcp pass",
        "client → shop/db: nothing passes",
        "shop/web → client: everything passes",
        "shop/web → shop/db: everything passes",
        "shop/db → client: everything passes",
        "shop/db → shop/web: nothing passes",
    }
    assert [len(of_class(picture, "g", f"pair {word}")) for word in ("good", "busy", "bad")] == [3, 1, 2]
    assert len(of_class(picture, "rect", "itself")) == 3


def test_rows_send_and_columns_receive() -> None:
    picture = drawn(["a", "b"], {("a", "b"): [], ("b", "a"): ["all"]})
    (denied,), (allowed,) = of_class(picture, "g", "pair bad"), of_class(picture, "g", "pair good")
    first_x, first_y = denied[1].get("d", "").split()[1:3]
    assert float(first_x) > float(allowed[1].get("cx", "")), "a → b is in the second column"
    assert float(first_y) < float(allowed[1].get("cy", "")), "a → b is in the first row"


def test_namespaces_stand_together_with_a_thick_line_between_them() -> None:
    picture = drawn(["shop/a", "b", "shop/c"], {})
    rows = [one.text for one in of_class(picture, "text", "end")]
    assert rows == ["b", "shop/a", "shop/c"]
    assert len(of_class(picture, "path", "grid namespace")) == 2
    assert not of_class(drawn(["a", "b"], {}), "path", "grid namespace")


@pytest.mark.parametrize("count", [0, 1, 2, 9, 30])
def test_every_name_is_whole_and_inside_the_picture(count: int) -> None:
    pods = [f"a-namespace-of-a-long-name/{'pod' * (number % 7)}{number}" for number in range(count)]
    picture = drawn(pods, {})
    width, height = float(picture.get("width", "")), float(picture.get("height", ""))
    by_row = of_class(picture, "text", "end")
    upright = [one for one in picture.iter(f"{SVG}g") if one.get("transform")]
    assert {one.text for one in by_row} == set(pods) == {one[0].text for one in upright}
    for one in by_row:
        assert float(one.get("x", "")) - text_width(one.text or "") >= 0
        assert 0 < float(one.get("y", "")) < height
    for one in upright:
        x, y = map(float, one.get("transform", "").removeprefix("translate(").partition(")")[0].split())
        assert 0 < x < width
        assert y - text_width(one[0].text or "") >= 50, "below the headings"
    for one in picture.iter(f"{SVG}text"):
        if one.get("class") in ("title", "mono", "small"):
            assert float(one.get("x", "")) + text_width(one.text or "", one.get("class", "")) <= width


@pytest.mark.parametrize("option", ["--udp", "--sctp", "--icmp"])
def test_a_protocol_beside_the_matrix_is_wrong_usage(option: str) -> None:
    assert policy_command.policy.name in verbs.commands
    with pytest.raises(click.UsageError, match=rf"--matrix shows every protocol \(got {option} too"):
        CliRunner().invoke(verbs, ["policy", "--matrix", option], standalone_mode=False, catch_exceptions=False)
