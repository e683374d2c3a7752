"""Every picture of a lab, with and without a traced packet: no text upon another, none crossed by a line."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
from math import dist
from typing import Any

import pytest

from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import DrawnNode, graph_of
from testbed.graph.path import RADIUS, SMALL_RADIUS, PathStep, way
from testbed.graph.svg import document
from testbed.graph.text_forms import dot, html, mermaid
from testbed.graph.trace_path import draw_trace
from tests.drawn_svg import SVG, crossed, overlapping
from tests.pictures import Facts, facts_of_cluster
from tests.traces import recorded
from tests.unit.test_graph import LABS, graph_ids

each_lab = pytest.mark.parametrize("facts", [facts for _, facts in LABS], ids=graph_ids)
BACKENDS = ("udp", "vxlan", "host-gw", "wireguard")


def with_services(facts: Facts) -> Facts:
    names = ("web", "a-service-with-a-very-long-name-of-its-own", "dns")
    port = {"port": 80, "protocol": "TCP", "node_port": None}
    services = [
        {"name": name, "type": "ClusterIP", "cluster_ip": f"10.96.0.{number}", "ports": [port], "endpoints": number}
        for number, name in enumerate(names)
    ]
    return facts | {"services": services}


def steps_between(layout: GraphLayout, one: str, other: str) -> list[PathStep]:
    """Return a request and its reply between two pods, seen at both ends' nodes, as a trace sees them."""
    pods = {pod.name: (pod, node) for node in layout.graph.nodes for pod in node.pods}
    (first, near), (second, far) = pods[one], pods[other]

    def inside(node: DrawnNode) -> list[tuple[str, str]]:
        return [(node.name, "docker0"), *([(node.name, node.device)] if node.device else [])]

    places = [
        (one, "eth0"),
        (near.name, first.host_end or ""),
        *inside(near),
        (near.name, near.uplink),
        (far.name, far.uplink),
        *reversed(inside(far)),
        (far.name, second.host_end or ""),
        (other, "eth0"),
    ]
    there = [PathStep(number, *place) for number, place in enumerate(places, 1)]
    back = [PathStep(number, *place, leg="answer") for number, place in enumerate(reversed(places), len(places) + 1)]
    return [*there, *back]


@each_lab
def test_no_text_overlaps_another_and_no_line_crosses_one(facts: Facts) -> None:
    picture = document(lay_out(graph_of(with_services(facts))))
    assert overlapping(picture) == []
    assert crossed(picture) == []


@each_lab
def test_a_packet_to_the_farthest_pod_crosses_no_text(facts: Facts) -> None:
    layout = lay_out(graph_of(facts))
    pods = [pod["name"] for pod in facts["pods"]]
    if len({pod["node"] for pod in facts["pods"]}) < 2:
        pytest.skip("all pods are on one node")
    picture = document(layout, way(layout, steps_between(layout, pods[0], pods[-1])))
    assert crossed(picture) == []
    assert overlapping(picture) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_real_trace_crosses_no_text(backend: str) -> None:
    answer = recorded(backend)
    picture = draw_trace(graph_of(answer["graph"]), answer["trace"])
    assert crossed(picture) == []
    assert overlapping(picture) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_payload_on_the_path_of_its_request_has_numbers_of_its_own(backend: str) -> None:
    answer = recorded(backend)
    request = [hop for hop in answer["trace"]["hops"] if hop["leg"] == "request"]
    answer["trace"]["hops"] += [
        {**hop, "leg": "data", "number": len(answer["trace"]["hops"]) + at} for at, hop in enumerate(request, 1)
    ]
    picture = draw_trace(graph_of(answer["graph"]), answer["trace"])
    assert (overlapping(picture), crossed(picture)) == ([], [])
    spots = numbers_of(picture).values()
    assert len(spots) == len(answer["trace"]["hops"])
    assert not [pair for pair in itertools.combinations(spots, 2) if dist(*pair) < 2 * SMALL_RADIUS - 0.2]


def numbers_of(picture: str) -> dict[int, tuple[float, float]]:
    found = {}
    for step in ElementTree.fromstring(picture).findall(".//*[@class='step']"):
        circle = step.find(f"{SVG}circle")
        assert circle is not None
        found[int(step.get("data-step", ""))] = (float(circle.get("cx", "")), float(circle.get("cy", "")))
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_are_in_their_order_and_at_their_places(backend: str) -> None:
    answer = recorded(backend)
    graph = graph_of(answer["graph"])
    boxes = lay_out(graph).part.boxes
    spots = numbers_of(draw_trace(graph, answer["trace"]))
    hops: list[dict[str, Any]] = answer["trace"]["hops"]
    assert list(spots) == [hop["number"] for hop in hops]
    assert not [pair for pair in itertools.combinations(spots.values(), 2) if dist(*pair) < 2 * RADIUS - 0.2]
    for hop in hops:
        kind = {"docker0": "bridge"}.get(hop["interface"], "uplink" if hop["where"].endswith("uplink") else "")
        if kind:
            box, (x, y) = boxes[kind, hop["node"]], spots[hop["number"]]
            assert box.x <= x <= box.right, hop["number"]
            assert box.y <= y <= box.bottom, hop["number"]
    # On its way down a node every number is below the one before it, on its way up above it.
    for one, other in itertools.pairwise(hops):
        if one["leg"] == other["leg"] and one["node"] == other["node"] and one["node"].startswith("node"):
            down = (one["leg"] == "request") == (one["node"] == "node1")
            assert (spots[other["number"]][1] - spots[one["number"]][1]) * (1 if down else -1) > -1, other["number"]


def test_where_the_packet_is_wrapped_the_line_is_a_double_one() -> None:
    answer = recorded("udp")
    picture = draw_trace(graph_of(answer["graph"]), answer["trace"])
    assert picture.count('class="wrapped"') == 2
    answer = recorded("host-gw")
    assert 'class="wrapped"' not in draw_trace(graph_of(answer["graph"]), answer["trace"])


def test_services_are_drawn_with_address_and_number_of_pods() -> None:
    picture = document(lay_out(graph_of(with_services(facts_of_cluster("nginx_tomcat")))))
    assert {one.get("data-service") for one in ElementTree.fromstring(picture).findall(".//*[@data-service]")} == {
        "web",
        "a-service-with-a-very-long-name-of-its-own",
        "dns",
    }
    assert ">10.96.0.0 80/TCP<" in picture
    assert ">1 pod<" in picture


def test_services_and_active_faults_are_in_every_form() -> None:
    faults = [{"number": 7, "fault": "agent stop node1"}]
    graph = graph_of(with_services(facts_of_cluster("nginx_tomcat")) | {"faults": faults})
    assert r'"service web" [style=dotted, label="svc/web\n10.96.0.0 80/TCP"];' in dot(graph)
    assert '["svc/web<br/>10.96.0.0 80/TCP"]' in mermaid(graph)
    assert "<td>web</td><td>10.96.0.0</td><td>80/TCP</td><td>0</td>" in html(graph)
    assert "<td>7</td><td>agent stop node1</td>" in html(graph)


@pytest.mark.parametrize(
    ("fault", "signs"),
    [("agent stop node1", 1), ("link loss node1 s1 30", 1), ("partition node1,node2 / etcd1", 3), ("dns stop", 0)],
)
def test_an_active_fault_has_a_sign_at_everything_it_is_about(fault: str, signs: int) -> None:
    facts = facts_of_cluster("nginx_tomcat") | {"faults": [{"number": 7, "fault": fault}]}
    picture = document(lay_out(graph_of(facts)))
    assert picture.count(">fault 7<") == signs
    assert overlapping(picture) == []
    assert crossed(picture) == [] or signs


def test_long_names_stay_in_their_boxes() -> None:
    facts = json.loads(json.dumps(facts_of_cluster("nginx_tomcat")).replace("tomcat", "t" * 40).replace("gw", "w" * 30))
    picture = document(lay_out(graph_of(facts)))
    assert overlapping(picture) == []
    assert crossed(picture) == []
