"""Arrows for what NetworkPolicies allow a pod: one for each direction, from edge to edge, apart from each other."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from testbed.control.answers.policy import PolicyPair
from testbed.graph.geometry import Box
from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import graph_of
from testbed.graph.policy_edges import draw_edges, edge_toward
from tests.pictures import facts_of_cluster

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def layout() -> GraphLayout:
    return lay_out(graph_of(facts_of_cluster("nginx_tomcat")))


def pair(source: str, target: str, *ports: str) -> PolicyPair:
    return {"source": source, "target": target, "ports": list(ports)}


def arrows(layout: GraphLayout, *pairs: PolicyPair) -> dict[str, ElementTree.Element]:
    """Return the drawn arrows by their tooltips."""
    drawn = ElementTree.fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{draw_edges(layout, pairs)}</svg>')
    return {
        one.findtext(f"{SVG}title", ""): one for one in drawn.iter(f"{SVG}g") if one.find(f"{SVG}title") is not None
    }


def test_each_direction_has_an_arrow_of_its_kind(layout: GraphLayout) -> None:
    found = arrows(
        layout, pair("client", "tomcat"), pair("nginx", "tomcat", "8080/tcp"), pair("tomcat", "nginx", "all")
    )
    assert {words: one.get("class") for words, one in found.items()} == {
        "client → tomcat: nothing passes": "policy bad",
        "nginx → tomcat: 8080/tcp pass": "policy busy",
        "tomcat → nginx: everything passes": "policy good",
    }
    crosses = {words: len(one.findall(f"{SVG}path[@class='no']")) for words, one in found.items()}
    assert list(crosses.values()) == [1, 0, 0]


def test_nothing_is_drawn_where_no_policy_forbids_anything(layout: GraphLayout) -> None:
    assert draw_edges(layout, [pair("client", "tomcat", "all"), pair("tomcat", "client", "all")]) == ""
    assert draw_edges(layout, []) == ""


def test_a_pod_without_a_box_of_its_own_has_no_arrow(layout: GraphLayout) -> None:
    assert arrows(layout, pair("client", "shop/hidden"), pair("client", "client")) == {}


def test_an_arrow_goes_from_edge_to_edge_and_the_two_of_a_pair_lie_apart(layout: GraphLayout) -> None:
    found = arrows(layout, pair("client", "tomcat"), pair("tomcat", "client"))
    bends = []
    for (source, target), one in zip((("client", "tomcat"), ("tomcat", "client")), found.values(), strict=True):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", one[1].get("d", ""))]
        for name, (x, y) in ((source, numbers[:2]), (target, numbers[4:])):
            box = layout.part.boxes["pod", name]
            assert is_on_edge(box, x, y), (name, x, y, box)
        bends.append(tuple(numbers[2:4]))
    assert all(one != other for one, other in pairwise(bends))


def is_on_edge(box: Box, x: float, y: float) -> bool:
    beside = min(abs(x - box.x), abs(x - box.right)) < 0.1 and box.y - 0.1 <= y <= box.bottom + 0.1
    above = min(abs(y - box.y), abs(y - box.bottom)) < 0.1 and box.x - 0.1 <= x <= box.right + 0.1
    return beside or above


@pytest.mark.parametrize(
    ("toward", "edge"),
    [((100, 5), (10, 5)), ((-100, 5), (0, 5)), ((5, 100), (5, 10)), ((25, 25), (10, 10)), ((5, 5), (5, 5))],
)
def test_the_edge_lies_on_the_way_to_a_place(toward: tuple[float, float], edge: tuple[float, float]) -> None:
    assert edge_toward(Box(0, 0, 10, 10), toward) == edge
