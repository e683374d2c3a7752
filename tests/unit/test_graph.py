"""Pictures of labs: nothing is missing, nothing lies upon another, states can be seen without colours."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import cast

import pytest

from testbed.cluster.spec import cluster_names
from testbed.control.answers.trace import TraceAnswer
from testbed.graph.drawing import fitted
from testbed.graph.geometry import Box, packed
from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import Graph, graph_of
from testbed.graph.path import STYLE, PathStep, way
from testbed.graph.svg import document, draw
from testbed.graph.text_forms import dot, html, mermaid
from testbed.graph.trace_path import steps_of, trace_way
from tests.drawn_svg import texts
from tests.pictures import Facts, facts_of_cluster, facts_of_topology

SVG = "{http://www.w3.org/2000/svg}"
TOPOLOGIES = (
    "single,nodes=1",
    "single,nodes=4",
    "single,nodes=7",
    "single,nodes=20",
    "linear,switches=5,hosts=1",
    "linear,switches=20,hosts=1",
    "linear,switches=4,hosts=5",
    "linear,switches=4,hosts=3",
    "tree,depth=2,fanout=3",
    "tree,depth=3,fanout=2",
    "leaf_spine,spines=2,leaves=3,hosts=4",
    "wan,sites=2,hosts=2",
    "wan,sites=4,hosts=4",
)


def draw_path(graph: Graph, steps: Sequence[PathStep], lost: str | None = None) -> str:
    """Return the picture with the steps of a packet on it."""
    layout = lay_out(graph)
    return document(layout, way(layout, steps, lost), STYLE)


def every_lab() -> list[tuple[str, Facts]]:
    clusters = [(name, facts_of_cluster(name)) for name in cluster_names()]
    return clusters + [(topology, facts_of_topology(topology)) for topology in TOPOLOGIES]


LABS = every_lab()
graph_ids = [name for name, _ in LABS]
each_lab = pytest.mark.parametrize("facts", [facts for _, facts in LABS], ids=graph_ids)


def layout_of(facts: Facts) -> GraphLayout:
    return lay_out(graph_of(facts))


def apart(one: Box, other: Box) -> bool:
    return one.right <= other.x or other.right <= one.x or one.bottom <= other.y or other.bottom <= one.y


def inside(one: Box, outer: Box) -> bool:
    edges = (one.x >= outer.x, one.y >= outer.y, one.right <= outer.right, one.bottom <= outer.bottom)
    return all(edges)


@each_lab
def test_everything_of_a_lab_has_its_place(facts: Facts) -> None:
    boxes = layout_of(facts).part.boxes
    nodes = {node["name"] for node in facts["nodes"]}
    assert {name for kind, name in boxes if kind == "node"} == nodes
    assert {name for kind, name in boxes if kind == "pod"} == {pod["name"] for pod in facts["pods"]}
    assert {name for kind, name in boxes if kind == "switch"} == {switch["name"] for switch in facts["switches"]}
    assert {name for kind, name in boxes if kind == "machine"} == {m["name"] for m in facts["machines"]} - nodes


@each_lab
def test_boxes_do_not_overlap_and_stay_in_the_picture(facts: Facts) -> None:
    layout = layout_of(facts)
    whole = Box(0, 0, layout.part.width, layout.part.height)
    outer = {name: box for name, box in layout.part.boxes.items() if name[0] in ("node", "switch", "machine")}
    wrong = [
        (one, other)
        for one, other in itertools.combinations(outer, 2)
        if not apart(layout.part.boxes[one], layout.part.boxes[other])
    ]
    assert wrong == []
    assert [name for name, box in layout.part.boxes.items() if not inside(box, whole)] == []
    parts = [(key, box) for key, box in layout.part.boxes.items() if key not in outer]
    for (one, box), (other, other_box) in itertools.combinations(parts, 2):
        assert apart(box, other_box), f"{one} lies upon {other}"


@each_lab
def test_no_room_is_left_between_title_and_nodes_and_cables_have_a_length(facts: Facts) -> None:
    part = layout_of(facts).part
    assert min(box.y for (kind, _), box in part.boxes.items() if kind == "node") < 150
    lengths = {w.ends: sum(abs(a - b) for a, b in zip(w.spots[0], w.spots[-1], strict=True)) for w in part.wires}
    assert [wire.ends for wire in part.wires if wire.kind == "cable" and lengths[wire.ends] < 10] == []


@each_lab
def test_every_cable_and_every_pods_link_is_drawn(facts: Facts) -> None:
    wires = layout_of(facts).part.wires
    cables = [frozenset(wire.ends) for wire in wires if wire.kind == "cable"]
    wanted = [frozenset((end["machine"], end["interface"]) for end in cable["ends"]) for cable in facts["cables"]]
    assert sorted(map(sorted, cables)) == sorted(map(sorted, wanted))
    assert {wire.ends[0][0] for wire in wires if wire.kind == "veth"} == {pod["name"] for pod in facts["pods"]}


@each_lab
def test_cables_of_nodes_do_not_run_through_nodes(facts: Facts) -> None:
    layout = layout_of(facts)
    frames = {name: box for (kind, name), box in layout.part.boxes.items() if kind == "node"}
    for wire in layout.part.wires:
        if wire.kind != "cable":
            continue
        for (x, y), (end_x, end_y) in itertools.pairwise(wire.spots):
            middle = Box((x + end_x) / 2, (y + end_y) / 2, 0, 0)
            through = [name for name, frame in frames.items() if not apart(middle, frame)]
            assert through == [], f"{wire.ends} runs through {through}"


@each_lab
def test_every_form_can_be_read_again(facts: Facts) -> None:
    graph = graph_of(facts)
    picture = ElementTree.fromstring(draw(graph))
    assert picture.tag == f"{SVG}svg"
    for pod in facts["pods"]:
        assert picture.find(f".//*[@data-pod='{pod['name']}']") is not None
    assert dot(graph).count("{") == dot(graph).count("}") == 1 + len(facts["nodes"])
    text = mermaid(graph)
    assert text.count("subgraph") == len(facts["nodes"])
    assert len([line for line in text.splitlines() if line == "  end"]) == len(facts["nodes"])
    assert "<svg" in html(graph)


def test_addresses_and_names_are_in_the_picture() -> None:
    words = draw(graph_of(facts_of_cluster("nginx_tomcat")))
    for word in (
        "nginx",
        "tomcat",
        "192.168.8.227",
        "10.0.1.1/24",
        "flannel0",
        "s1-eth1",
        "192.168.8.11",
        "etcd1",
        "gw",
    ):
        assert f">{word}<" in words, word


def broken(change: str) -> Facts:
    facts: Facts = json.loads(json.dumps(facts_of_cluster("nginx_tomcat")))
    node, machine = facts["nodes"][0], facts["machines"][0]
    if change == "agent":
        node["agent"]["state"] = "backoff"
    elif change == "bridge down":
        node["bridge"]["up"] = False
    elif change == "no device":
        node["overlay"] = None
    elif change == "no lease":
        node["subnet"] = None
    elif change == "cable":
        machine["interfaces"][0]["up"] = False
    elif change == "pod":
        facts["pods"][0] |= {"state": "CrashLoopBackOff", "ready": False}
    elif change == "pod's link":
        machine["interfaces"] = [link for link in machine["interfaces"] if link["name"] != "vethnginx"]
    elif change == "etcd":
        next(one for one in facts["machines"] if one["kind"] == "etcd")["healthy"] = False
    return facts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("agent", ">backoff<"),
        ("bridge down", "DOWN<"),
        ("no device", ">does not exist<"),
        ("no lease", ">no subnet<"),
        ("cable", "DOWN<"),
        ("pod", ">CrashLoopBackOff<"),
        ("pod's link", ">no link<"),
    ],
)
def test_problems_are_reported_as_text_too(change: str, said: str) -> None:
    well, wrong = draw(graph_of(facts_of_cluster("nginx_tomcat"))), draw(graph_of(broken(change)))
    assert said in wrong
    assert said not in well


@pytest.mark.parametrize("change", ["agent", "cable", "pod", "pod's link", "etcd"])
def test_wrong_has_another_shape_than_right(change: str) -> None:
    def crosses(picture: str) -> int:
        return sum(picture.count(f'class="{kind}"') for kind in ("mark bad", "cut"))

    # One cross is in the legend.
    assert crosses(draw(graph_of(facts_of_cluster("nginx_tomcat")))) == 1
    assert crosses(draw(graph_of(broken(change)))) > 1


WAY = [
    ("nginx", "eth0"),
    ("node1", "vethnginx"),
    ("node1", "docker0"),
    ("node1", "flannel0"),
    ("node1", "node1-eth0"),
    ("s1", "s1-eth1"),
    ("s1", "s1-eth2"),
    ("node2", "node2-eth0"),
    ("node2", "flannel0"),
    ("node2", "docker0"),
    ("node2", "vethtomcat"),
    ("tomcat", "eth0"),
]


def test_a_path_has_a_number_for_each_step_and_no_overlaps() -> None:
    graph = graph_of(facts_of_cluster("nginx_tomcat"))
    there = [PathStep(number, *point) for number, point in enumerate(WAY, 1)]
    back = [PathStep(number, *point, leg="reply") for number, point in enumerate(reversed(WAY), 13)]
    picture = ElementTree.fromstring(draw_path(graph, [*there, *back]))
    circles = picture.findall(".//*[@class='step']")
    assert [circle.get("data-step") for circle in circles] == [str(number) for number in range(1, 25)]
    places = [found for circle in circles if (found := circle.find(f"{SVG}circle")) is not None]
    spots = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in places]
    for one, other in itertools.combinations(spots, 2):
        assert (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 > 15**2
    assert len(picture.findall(".//*[@class='tip']")) == 2
    assert len(texts(draw(graph))) > 40
    words = [text.box for text in texts(draw(graph))]
    assert not [(spot, box) for spot in spots for box in words if not apart(Box(spot[0] - 7, spot[1] - 7, 14, 14), box)]


def test_a_path_passes_the_agent_and_goes_on_where_nothing_was_seen() -> None:
    graph = graph_of(facts_of_cluster("nginx_tomcat"))
    agent = lay_out(graph).part.boxes["agent", "node1"]
    seen = [PathStep(1, "nginx", "eth0"), PathStep(2, "node1", "flannel0"), PathStep(3, "node1", "node1-eth0")]
    lane = ElementTree.fromstring(draw_path(graph, [*seen, PathStep(4, "nowhere", "eth7")])).find(".//*[@class='lane']")
    assert lane is not None
    numbers = [float(word) for word in lane.get("d", "").replace("M", "").replace("L", "").split()]
    spots = list(zip(numbers[::2], numbers[1::2], strict=True))
    assert any(not apart(Box(x, y, 0, 0), agent) for x, y in spots)


def test_a_packet_that_got_lost_ends_with_a_cross() -> None:
    graph = graph_of(facts_of_cluster("nginx_tomcat"))
    steps = [PathStep(number, *point) for number, point in enumerate(WAY[:5], 1)]
    assert 'class="lost"' in draw_path(graph, steps, lost="request")
    assert 'class="lost"' not in draw_path(graph, steps)
    assert 'class="tip"' not in draw_path(graph, steps, lost="request")


def test_the_hops_of_a_trace_are_the_steps_on_the_picture() -> None:
    graph = graph_of(facts_of_cluster("nginx_tomcat"))
    legs = {"request": WAY, "error": [("node1", "docker0"), ("node1", "vethnginx"), ("nginx", "eth0")]}
    hops = [
        {"number": number, "leg": leg, "node": place, "interface": interface, "direction": "out", "why": "a < b"}
        for number, (leg, (place, interface)) in enumerate(((leg, at) for leg in legs for at in legs[leg]), 1)
    ]
    trace = {"hops": hops, "outcome": "unreachable", "lost_at": {"leg": "request"}}
    layout = lay_out(graph)
    picture = ElementTree.fromstring(document(layout, trace_way(layout, cast("TraceAnswer", trace))))
    assert [one.get("data-leg") for one in picture.findall(".//*[@data-leg]")] == ["request", "error"]
    assert len(picture.findall(".//*[@class='step']")) == len(hops)
    assert len(picture.findall(".//*[@class='lost']")) == 1


def with_bridge(name: str | None) -> Facts:
    """Return nginx_tomcat as CNI plugins make it: with this bridge, or with a route to each pod instead."""
    facts: Facts = json.loads(json.dumps(facts_of_cluster("nginx_tomcat")))
    for node in facts["nodes"]:
        node |= {"bridge_name": name, "bridge": name and node["bridge"] | {"name": name}}
    for link in (link for machine in facts["machines"] for link in machine["interfaces"]):
        link["master"] = link["master"] and name
    return facts


@pytest.mark.parametrize("bridge", ["cni0", None])
def test_pods_of_cni_plugins_are_drawn_at_the_plugins_bridge_or_without_one(bridge: str | None) -> None:
    graph = graph_of(with_bridge(bridge))
    points = [(place, bridge if interface == "docker0" else interface) for place, interface in WAY]
    steps = [PathStep(number, place, name) for number, (place, name) in enumerate(points, 1) if name is not None]
    drawn = draw_path(graph, steps)
    assert len(ElementTree.fromstring(drawn).findall(".//*[@class='step']")) == len(steps)
    for form in (drawn, html(graph), dot(graph), mermaid(graph)):
        assert "docker0" not in form
        assert "does not exist" not in form
        assert ("cni0" in form) == (bridge is not None)
    assert {pod.health for node in graph.nodes for pod in node.pods} == {"good"}


def test_a_missing_bridge_is_drawn_with_its_name() -> None:
    facts = with_bridge("cni0")
    facts["nodes"][0]["bridge"] = None
    graph = graph_of(facts)
    assert 'class="bridge missing"' in draw(graph)
    assert "cni0\\ndoes not exist" in dot(graph)


def test_the_overlay_device_of_ipv6_is_where_the_other_one_is() -> None:
    graph = graph_of(facts_of_cluster("nginx_tomcat"))
    hop = {"number": 1, "leg": "request", "node": "node1", "direction": "out", "why": ""}
    (step,) = steps_of(graph, cast("TraceAnswer", {"hops": [hop | {"interface": "flannel-v6.1"}]}))
    assert step.point == ("node1", "flannel0")
    (step,) = steps_of(graph, cast("TraceAnswer", {"hops": [hop | {"interface": "docker0"}]}))
    assert step.point == ("node1", "docker0")


def test_a_node_with_many_pods_names_some_and_counts_the_rest() -> None:
    facts = facts_of_topology("single,nodes=2", pods_per_node=20)
    words = draw(graph_of(facts))
    assert ">9 more pods<" in words


def test_things_in_a_row_are_placed_as_wanted_unless_they_would_touch() -> None:
    assert packed([50, 200], [40, 40], 10) == [30, 180]
    assert packed([100, 100], [40, 40], 10) == [55, 105]
    assert packed([10, 100, 100], [10, 40, 40], 10) == [5, 55, 105]
    assert packed([], [], 10) == []


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert fitted("tomcat", 100, "mono") == "tomcat"
    assert fitted("backend-b90c1a2f-4626w", 84, "mono") == "backend…4626w"
    assert fitted("backend-b90c1a2f-4626w", 31, "mono") == "back…"


def test_names_are_no_markup() -> None:
    facts = facts_of_cluster("two_nodes") | {"lab": '<b>&"'}
    ElementTree.fromstring(draw(graph_of(facts)))
    assert "<b>" not in html(graph_of(facts))
    assert r"\"" in dot(graph_of(facts))
