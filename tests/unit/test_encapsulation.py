"""The picture of encapsulation: right values, what is wrapped within a double line, nothing upon anything else."""

import ipaddress
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from testbed.graph.drawing import svg_document
from testbed.graph.encapsulation import draw_each_stack, draw_stack, draw_stacks
from testbed.graph.headers import row_of, rows_of
from testbed.graph.model import graph_of
from testbed.graph.trace_page import trace_page
from testbed.graph.trace_path import draw_trace
from testbed.output.trace_bytes import all_bytes
from tests.documented_pictures import DIRECTORY, pictures
from tests.drawn_svg import SVG, crossed, overlapping
from tests.traces import recorded

BACKENDS = ("udp", "vxlan", "host-gw", "wireguard")
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def picture_of(backend: str) -> str:
    stacks = draw_stacks(recorded(backend)["trace"])
    return svg_document(stacks.content, stacks.width, stacks.height)


def hops_of(backend: str) -> list[dict[str, Any]]:
    hops: list[dict[str, Any]] = recorded(backend)["trace"]["hops"]
    return hops


@each_backend
def test_no_text_overlaps_another_and_no_line_crosses_one(backend: str) -> None:
    assert overlapping(picture_of(backend)) == []
    assert crossed(picture_of(backend)) == []


@each_backend
def test_one_hop_alone_is_drawn_as_cleanly(backend: str) -> None:
    before = None
    for hop in hops_of(backend):
        picture = draw_stack(hop, before if before and before["leg"] == hop["leg"] else None)
        assert (overlapping(picture), crossed(picture)) == ([], []), hop["number"]
        before = hop


@each_backend
def test_everything_stays_in_the_picture(backend: str) -> None:
    root = ElementTree.fromstring(picture_of(backend))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for box in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(box.get(name, -1)) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height


def names(row: Any) -> list[str]:  # noqa: ANN401 - a row
    return ["+" * cell.wrapped + cell.name for cell in row.cells]


@pytest.mark.parametrize(
    ("backend", "stacks"),
    [
        (
            "udp",
            [
                "Ethernet IPv4 TCP",
                "IPv4 TCP",
                "Ethernet IPv4 UDP +IPv4 +TCP",
                "IPv4 TCP",
                "Ethernet IPv4 TCP",
            ],
        ),
        (
            "vxlan",
            [
                "Ethernet IPv4 TCP",
                "Ethernet IPv4 TCP",
                "Ethernet IPv4 UDP VXLAN +Ethernet +IPv4 +TCP",
                "Ethernet IPv4 TCP",
                "Ethernet IPv4 TCP",
            ],
        ),
        ("host-gw", ["Ethernet IPv4 TCP"] * 3),
        (
            "wireguard",
            [
                "Ethernet IPv4 TCP",
                "IPv4 TCP",
                "Ethernet IPv4 UDP WireGuard +encrypted tag",
                "IPv4 TCP",
                "Ethernet IPv4 TCP",
            ],
        ),
    ],
)
def test_the_stack_grows_and_shrinks_along_the_path(backend: str, stacks: list[str]) -> None:
    rows = rows_of(hops_of(backend))
    for leg in ("request", "reply"):
        assert [" ".join(names(row)) for row in rows if row.leg == leg] == stacks


@each_backend
def test_a_row_is_as_large_as_its_headers_together(backend: str) -> None:
    for row in rows_of(hops_of(backend)):
        assert row.size == sum(cell.size for cell in row.cells)


@each_backend
def test_the_carried_packet_remains_in_its_column(backend: str) -> None:
    for row in rows_of(hops_of(backend)):
        columns = {cell.column: cell.name for cell in row.cells}
        assert columns[0] in ("IPv4", "encrypted")
        assert columns.get(1, "TCP") == "TCP"
        assert len(columns) == len(row.cells)


@each_backend
def test_fields_are_those_of_the_captured_bytes(backend: str) -> None:
    read: dict[str, Callable[[bytes], str]] = {
        "destination": lambda raw: raw.hex(":") if len(raw) == 6 else str(ipaddress.ip_address(raw)),
        "source": lambda raw: raw.hex(":") if len(raw) == 6 else str(ipaddress.ip_address(raw)),
        "receiver": lambda raw: f"0x{int.from_bytes(raw, 'little'):08x}",
        "counter": lambda raw: str(int.from_bytes(raw, "little")),
    }
    for number in ("ttl", "source port", "destination port", "sequence", "VNI", "length", "total length"):
        read[number] = lambda raw: str(int.from_bytes(raw, "big"))
    for hop in hops_of(backend):
        raw = bytes.fromhex(hop["frame"]["hex"])
        assert len(raw) == hop["frame"]["length"]
        for layer in hop["frame"]["layers"]:
            for one in layer["fields"]:
                if one["name"] in read:
                    assert one["value"] == read[one["name"]](raw[one["offset"] : one["offset"] + one["length"]])
        innermost = [layer for layer in hop["frame"]["layers"] if layer["name"] == "IPv4"][-1]
        ttl = {one["name"]: one["value"] for one in innermost["fields"]}["ttl"]
        if "encrypted" not in [layer["name"] for layer in hop["frame"]["layers"]]:
            assert ttl == str(hop["inner"]["ttl"])


@each_backend
def test_a_double_line_surrounds_only_wrapped_packets(backend: str) -> None:
    root = ElementTree.fromstring(picture_of(backend))
    rows = {row.numbers: row for row in rows_of(hops_of(backend))}
    for drawn in root.findall(f".//{SVG}g[@class='stack']"):
        wrapped = any(cell.wrapped for cell in rows[drawn.get("data-hops", "")].cells)
        assert len(drawn.findall(f"{SVG}rect[@class='double']")) == (2 if wrapped else 0)


@pytest.mark.parametrize(("backend", "borders"), [("udp", 4), ("vxlan", 0), ("host-gw", 0), ("wireguard", 0)])
def test_a_border_is_drawn_where_a_packet_leaves_the_kernel_for_the_agent(backend: str, borders: int) -> None:
    rows = rows_of(hops_of(backend))
    assert len([row for row in rows if row.change is not None and row.change.by_agent]) == borders
    shown = draw_stacks(recorded(backend)["trace"]).content
    assert ("border between kernel and agent" in shown) == bool(borders)
    assert shown.count('class="border"') == 2 * borders + bool(borders)


def test_no_border_is_drawn_where_the_kernel_makes_the_datagrams_of_udp() -> None:
    hops = [{**hop, "interface": hop["interface"].replace("flannel0", "flfou-c0a808e4")} for hop in hops_of("udp")]
    changes = [row.change for row in rows_of(hops) if row.change is not None]
    assert not any(change.by_agent for change in changes)
    assert len([change for change in changes if change.text.startswith("kernel of")]) == 4


def test_a_node_whose_kernel_makes_the_datagrams_is_drawn_without_the_agents_way() -> None:
    facts = recorded("udp")["graph"]
    assert all(node.agent_carries for node in graph_of(facts).nodes)
    by_kernel: Any = {**facts, "nodes": [{**node, "datapath": "kernel"} for node in facts["nodes"]]}
    assert not any(node.agent_carries for node in graph_of(by_kernel).nodes)


@each_backend
def test_request_and_reply_are_distinguished_by_a_legend(backend: str) -> None:
    root = ElementTree.fromstring(picture_of(backend))
    legend = root.find(f".//{SVG}g[@class='legend']")
    assert legend is not None
    assert [text.text for text in legend.iter(f"{SVG}text")][:2] == ["request", "reply"]
    assert [one.get("data-stacks") for one in root.iter() if one.get("data-stacks")] == ["request", "reply"]


def test_what_a_hop_changed_is_reported_and_marked() -> None:
    hops = hops_of("udp")
    row = row_of(hops[3], hops[2])
    network = next(cell for cell in row.cells if cell.name == "IPv4")
    assert row.change is not None
    assert row.change.text == "node1: routes it: ttl 64 → 63; flannel0 has no Ethernet header"
    assert {network.lines[at] for at in network.changed} == {"ttl 63, tcp"}


def test_address_translation_is_reported() -> None:
    hops = hops_of("udp")
    translated = hops[1] | {"inner": hops[1]["inner"] | {"dst": "10.0.46.9"}}
    change = row_of(translated, hops[0]).change
    assert change is not None
    assert "translates the destination 10.0.90.2 → 10.0.46.9" in change.text


@each_backend
def test_the_picture_of_a_trace_is_titled_by_it_and_has_way_and_headers(backend: str) -> None:
    answer = recorded(backend)
    root = ElementTree.fromstring(draw_trace(graph_of(answer["graph"]), answer["trace"]))
    title = next(text.text for text in root.iter(f"{SVG}text") if text.get("class") == "title")
    assert re.fullmatch(r"nginx → tomcat:8080: answered in \d+ µs", title or "")
    assert len(root.findall(".//*[@class='step']")) == len(answer["trace"]["hops"])
    assert len(root.findall(".//*[@class='stack']")) == len(rows_of(answer["trace"]["hops"]))


@each_backend
def test_the_page_of_a_trace_has_every_hop_with_its_headers_and_bytes(backend: str) -> None:
    answer = recorded(backend)
    page = trace_page(graph_of(answer["graph"]), answer["trace"])
    assert page.count('<details name="hop">') == len(answer["trace"]["hops"])
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=", page)
    for hop in answer["trace"]["hops"]:
        first = bytes.fromhex(hop["frame"]["hex"])[: hop["frame"]["layers"][0]["length"]]
        assert first[:16].hex(" ") in page


@each_backend
def test_bytes_of_a_hop_are_complete_and_at_most_80_columns_wide(backend: str) -> None:
    hops = hops_of(backend)
    for hop in hops:
        lines = list(all_bytes([hop]))
        assert max(map(len, lines)) <= 80
        shown = "".join(line.split("  ", 3)[-1] for line in lines if re.match(r" +[0-9a-f]{4}  ", line))
        assert bytes.fromhex(shown).hex() == hop["frame"]["hex"]
    assert "5-8  node1 uplink out … node2 uplink in" in "\n".join(all_bytes(hops)) or backend == "host-gw"


def test_a_packet_that_was_not_sent_has_no_headers() -> None:
    assert draw_each_stack([]) == []
    assert rows_of([]) == []


def test_a_large_payload_is_cut_and_said_so() -> None:
    hop = hops_of("udp")[0]
    hop["frame"]["layers"].append({"name": "payload", "offset": 74, "length": 900, "depth": 0, "fields": []})
    assert any("… 900 more bytes" in line for line in all_bytes([hop]))


def test_pictures_of_the_documentation_are_as_drawn_today() -> None:
    for name, content in pictures().items():
        kept = (DIRECTORY / name).read_text()
        assert kept == content + "\n", f"{name} is another (want: python -m tests.documented_pictures)"
