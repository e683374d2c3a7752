"""A layout as SVG. What is drawn carries its name and state as attributes, so that a page can find it again. Pure."""

import itertools

from testbed.graph.drawing import STYLE, Figure, cross, element, group, label, line, marker, rectangle
from testbed.graph.geometry import Box, DrawnWire, Spot
from testbed.graph.layout import LEGEND, MARGIN, GraphLayout, lay_out
from testbed.graph.model import Device, DrawnMachine, DrawnNode, DrawnPod, Graph, Switch
from testbed.graph.node_layout import HEADER, MORE, PAD, shown_pods

DRAWN = ("cable", "veth", "kernel", "agent")
PORT_LABEL_ROOM = 96
"""Pixels between cables at which their ports' names do not run into each other."""


def draw(graph: Graph) -> str:
    """The whole picture as an SVG document."""
    return document(lay_out(graph))


def document(
    layout: GraphLayout,
    above: str = "",
    extra_style: str = "",
    styled: bool = True,
    headings: tuple[str, str] | None = None,
    below: Figure | None = None,
) -> str:
    """Return the picture with `above` (more elements) drawn over it, and a figure that was drawn `below` it.

    Not `styled`: for a page that has the stylesheet. `headings` stand for the lab's own title.
    """
    graph, part = layout.graph, layout.part
    width, height = part.width, part.height
    if below is not None:
        width, height = max(width, below.width), height + below.height
    content = [
        element("style", STYLE + extra_style) if styled else "",
        _title(headings or (f"lab {graph.lab}: {graph.state}", facts_line(graph)), width),
        *(_node(layout, node) for node in graph.nodes),
        *(_wire(graph, wire) for wire in part.wires if wire.kind in DRAWN),
        *(_switch(switch, part.boxes.get(("switch", switch.name))) for switch in graph.switches),
        *(_machine(machine, part.boxes.get(("machine", machine.name))) for machine in graph.machines),
        *_ports(layout),
        _legend(part.height),
        above,
        below.content if below is not None else "",
    ]
    return element(
        "svg",
        "\n".join(piece for piece in content if piece),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=round(width),
        height=round(height),
        class_="lab",
    )


def facts_line(graph: Graph) -> str:
    """Return what the lab is, in a line."""
    backends = ", ".join(sorted({node.backend for node in graph.nodes})) or "no backend"
    ports = f" on UDP {graph.port}" if backends == "udp" else ""
    return f"pod network {graph.network} · backend {backends}{ports}"


def _title(headings: tuple[str, str], width: float) -> str:
    room = width - 2 * MARGIN
    return label(headings[0], (MARGIN, MARGIN + 16), "title", room) + label(
        headings[1], (MARGIN, MARGIN + 36), "mono", room
    )


def _legend(height: float) -> str:
    y = height - MARGIN / 2 - LEGEND / 4
    pieces, x = [], float(MARGIN)
    for health, words in (("good", "ready"), ("busy", "not yet"), ("bad", "wrong")):
        pieces += [marker(health, (x + 6, y - 4)), label(words, (x + 18, y), "small")]  # type: ignore[arg-type]
        x += 40 + 6 * len(words)
    for kind, words in (("cable", "cable"), ("veth", "veth"), ("kernel", "kernel"), ("agent", "the agent's process")):
        pieces.append(element("path", d=line([(x, y - 4), (x + 22, y - 4)]), class_=f"wire {kind}"))
        pieces.append(label(words, (x + 28, y), "small"))
        x += 48 + 6 * len(words)
    pieces.append(element("path", d=line([(x, y - 4), (x + 22, y - 4)]), class_="wire down"))
    pieces.append(label("down", (x + 28, y), "small"))
    return element("g", "".join(pieces), class_="legend")


def _node(layout: GraphLayout, node: DrawnNode) -> str:
    boxes = layout.part.boxes
    frame = boxes["node", node.name]
    header_y = frame.bottom - HEADER if node.name in layout.upside_down else frame.y
    pieces = [
        rectangle(frame, "box frame", 8),
        marker(node.health, (frame.x + PAD + 6, header_y + 17)),
        label(node.name, (frame.x + PAD + 18, header_y + 21), "name", frame.width / 2 - 20),
        label(node.subnet or "no subnet", (frame.right - PAD, header_y + 21), "mono end"),
        _bridge(node, boxes["bridge", node.name], node.name in layout.upside_down),
        _overlay(node, boxes["overlay", node.name]) if node.device else "",
        _agent(node, boxes["agent", node.name]),
        _uplink(node, boxes["uplink", node.name]),
    ]
    pods = {pod.name: pod for pod in node.pods}
    for name in shown_pods(node):
        if name != MORE:
            pieces.append(_pod(pods[name], boxes["pod", name]))
            continue
        box, hidden = boxes["pod", f"{node.name}{MORE}"], [n for n in pods if n not in shown_pods(node)]
        text = label(f"{len(hidden)} more pods", (box.center[0], box.center[1] + 4), "middle")
        pieces.append(group(rectangle(box) + text, "pod more", ", ".join(hidden)))
    title = f"{node.name}, {node.address}: agent {node.agent}, {node.peers_known} of {node.peers_expected} peers"
    return group("".join(pieces), f"node state-{node.health}", title, data_node=node.name)


def _word(state: str, health: str, spot: Spot, width: float, extra: str = "") -> str:
    return label(state, spot, f"small word-{health} {extra}".strip(), width)


def _pod(pod: DrawnPod, box: Box) -> str:
    left, wide = box.x + 20, box.width - 24
    pieces = [
        rectangle(box),
        marker(pod.health, (box.x + 10, box.y + 13)),
        label(pod.name, (left, box.y + 17), "name", wide),
        label(pod.address or "no address", (left, box.y + 32), "mono", wide),
    ]
    if pod.health != "good":
        pieces.append(
            _word(pod.state if not pod.ready else "no link", pod.health, (box.x + 8, box.bottom - 4), box.width - 12)
        )
    title = f"pod {pod.name}: {pod.state}{'' if pod.ready else ', not ready'}; its link on the node is {pod.host_end}"
    return group("".join(pieces), f"pod state-{pod.health}", title, data_pod=pod.name)


def _device_class(kind: str, device: Device | None) -> str:
    return f"{kind} missing" if device is None else kind if device.up else f"{kind} down"


def _bridge(node: DrawnNode, box: Box, upside_down: bool) -> str:
    device = node.bridge
    words = "does not exist" if device is None else (device.address or "no address") + ("" if device.up else "  DOWN")
    y = box.bottom - 8 if upside_down else box.y + 17
    text = label(device.name if device else "docker0", (box.x + 8, y), "name")
    text += label(words, (box.x + 68, y), "mono", box.width - 76)
    title = f"{node.name}'s bridge" + (f", MTU {device.mtu}" if device else "")
    return group(rectangle(box) + text, _device_class("bridge", device), title)


def _overlay(node: DrawnNode, box: Box) -> str:
    device = node.overlay
    kind = {"tun": "TUN"}.get(device.kind, device.kind) if device else ""
    first = label(node.device, (box.x + 8, box.y + 16), "name", 76) + label(
        kind, (box.right - 20, box.y + 16), "small end"
    )
    if device is None:
        first += _word("does not exist", "bad", (box.x + 8, box.y + 31), box.width - 12)
    elif not device.up:
        first += _word("DOWN", "bad", (box.x + 8, box.y + 31), box.width - 12)
    else:
        words = (device.address or "no address").removesuffix("/32")
        first += label(words, (box.x + 8, box.y + 31), "mono", 72)
        first += label(f"mtu {device.mtu}", (box.right - 6, box.y + 31), "small end")
    return group(rectangle(box) + first, _device_class("overlay", device), f"{node.name}'s overlay device")


def _agent(node: DrawnNode, box: Box) -> str:
    text = label("agent", (box.x + 34, box.y + 16), "name")
    text += marker(node.health, (box.x + 22, box.y + 12))
    peers = f"{node.agent} {node.peers_known}/{node.peers_expected} peers"
    words = peers if node.agent == "ready" else node.agent
    text += _word(words, node.health, (box.x + 20, box.y + 32), box.width - 22)
    title = f"{node.name}'s agent: {node.agent}; knows {node.peers_known} of {node.peers_expected} other nodes"
    return group(rectangle(box, radius=12) + text, "agent", title, data_agent=node.name)


def _uplink(node: DrawnNode, box: Box) -> str:
    x = box.x + 52
    text = label(node.uplink + ("" if node.uplink_up else "  DOWN"), (x, box.y + 14), "middle small", 98)
    text += label(node.address, (x, box.y + 27), "mono middle", 98)
    return group(rectangle(box), "uplink" if node.uplink_up else "uplink down", f"MTU {node.mtu}") + text


def _switch(switch: Switch, box: Box | None) -> str:
    if box is None:
        return ""
    text = label(switch.name, (box.x + 12, box.y + 15), "name", box.width - 60)
    text += label("switch", (box.x + 12, box.bottom - 6), "small")
    title = f"switch {switch.name}: a Linux bridge of the underlay"
    return group(rectangle(box, radius=6) + text, "switch" if switch.up else "switch down", title)


def _machine(machine: DrawnMachine, box: Box | None) -> str:
    if box is None:
        return ""
    x = box.center[0]
    health = "good" if machine.healthy else "bad"
    text = label(machine.name, (box.x + 22, box.y + 16), "name", 60)
    text += label(machine.kind, (box.right - 8, box.y + 16), "small end")
    text += marker(health, (box.x + 12, box.y + 12))  # type: ignore[arg-type]
    addresses = ", ".join(address.partition("/")[0] for address in machine.addresses)
    text += label(addresses, (x, box.y + 31), "mono middle", box.width - 8)
    title = f"{machine.kind} {machine.name}: {', '.join(machine.addresses)}"
    return group(rectangle(box) + text, machine.kind, title)


def _wire(graph: Graph, wire: DrawnWire) -> str:
    classes, extra, title = f"wire {wire.kind}", "", f"{wire.ends[0][1]} - {wire.ends[1][1]}"
    data = " ".join("/".join(end) for end in wire.ends)
    if wire.kind == "cable":
        cable = next(one for one in graph.cables if set(one.ends) == set(wire.ends))
        classes += " spare" if cable.spare else ""
        middle = _middle(wire)
        if not cable.up:
            classes, extra = f"{classes} down", cross(middle, "cut")
        if cable.note:
            extra += label(cable.note, (middle[0] + 6, middle[1] + 12), "small")
    elif wire.kind == "veth":
        pod = next((p for node in graph.nodes for p in node.pods if p.name == wire.ends[0][0]), None)
        if pod is not None and not pod.linked:
            classes, extra = f"{classes} down", cross(_middle(wire), "cut")
    return group(element("path", d=line(wire.spots), class_=classes) + extra, "link", title, data_link=data)


def _middle(wire: DrawnWire) -> Spot:
    (x, y), (end_x, end_y) = wire.spots[-2:]
    return (x + end_x) / 2, (y + end_y) / 2


def _ports(layout: GraphLayout) -> list[str]:
    """Names of switch ports where cables leave room for them."""
    by_switch: dict[tuple[str, float], list[tuple[float, str]]] = {}
    switches = {switch.name for switch in layout.graph.switches}
    for wire in layout.part.wires:
        if wire.kind != "cable":
            continue
        for end, (x, y), (_, beside) in (
            (wire.ends[0], wire.spots[0], wire.spots[1]),
            (wire.ends[1], wire.spots[-1], wire.spots[-2]),
        ):
            if end[0] in switches and y != beside:
                by_switch.setdefault((end[0], y + (-15 if beside < y else 20)), []).append((x, end[1]))
    written = []
    for (_, y), ports in by_switch.items():
        ports.sort()
        close = any(second[0] - first[0] < PORT_LABEL_ROOM for first, second in itertools.pairwise(ports))
        written += [] if close else [label(name, (x + 5, y), "small") for x, name in ports]
    return written
