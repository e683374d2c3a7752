"""A layout as SVG. Elements carry their name and state as attributes, so that a page can find them. Pure."""

from collections.abc import Iterator, Sequence

from testbed.graph.cable_texts import place_texts
from testbed.graph.drawing import (
    STYLE,
    Figure,
    cross,
    element,
    group,
    label,
    line,
    marker,
    rectangle,
    svg_document,
    text_width,
)
from testbed.graph.geometry import Box, DrawnWire, Spot
from testbed.graph.layout import LEGEND, MARGIN, GraphLayout, lay_out
from testbed.graph.model import (
    Device,
    DrawnFault,
    DrawnMachine,
    DrawnNode,
    DrawnPod,
    DrawnService,
    Graph,
    Health,
    Switch,
)
from testbed.graph.node_layout import (
    CHANNEL,
    DEVICE_GAP,
    HEADER,
    INTO_AGENT,
    MORE,
    OUT_OF_BRIDGE,
    OVERLAY_WIDTH,
    PAD,
    UPLINK_PORT,
    shown_pods,
)
from testbed.graph.underlay_layout import ADDRESS_LINE, is_bar, is_passed, text_left

DRAWN = ("cable", "veth", "kernel", "agent")
FAULT_WIDTH, FAULT_HEIGHT = 46, 14
HALF_NUMBER = 9
"""The part of a pod's box that a traced packet's number covers, at the edge with its eth0."""
WORDS_OF_WIRES = (("cable", "cable"), ("veth", "veth"), ("kernel", "kernel"), ("agent", "the agent's process"))


def draw(graph: Graph) -> str:
    """Draw the whole picture as an SVG document."""
    return document(lay_out(graph))


def document(
    layout: GraphLayout,
    above: str = "",
    extra_style: str = "",
    styled: bool = True,
    headings: tuple[str, str] | None = None,
    below: Figure | None = None,
) -> str:
    """Return the picture with the elements `above` drawn over it, and the figure `below` placed under it.

    Without `styled`, for a page that has the stylesheet. `headings` replace the lab's own title.
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
        *(_switch(layout, switch) for switch in graph.switches),
        *(_machine(layout, machine) for machine in graph.machines),
        *(_service(service, part.boxes["service", service.name]) for service in graph.services),
        *_cable_texts(layout),
        *_faults(layout),
        _legend(graph, part.height),
        above,
        below.content if below is not None else "",
    ]
    return svg_document("\n".join(piece for piece in content if piece), width, height)


def facts_line(graph: Graph) -> str:
    """Describe the lab in a line."""
    backends = ", ".join(sorted({node.backend for node in graph.nodes})) or "no backend"
    ports = f" on UDP {graph.port}" if backends == "udp" else ""
    return f"pod network {graph.network} · backend {backends}{ports}"


def _title(headings: tuple[str, str], width: float) -> str:
    room = width - 2 * MARGIN
    return label(headings[0], (MARGIN, MARGIN + 16), "title", room) + label(
        headings[1], (MARGIN, MARGIN + 36), "mono", room
    )


def _legend(graph: Graph, height: float) -> str:
    y = height - MARGIN / 2 - LEGEND / 4
    pieces, x = [], float(MARGIN)
    signs: tuple[tuple[Health, str], ...] = (("good", "ready"), ("busy", "not yet"), ("bad", "wrong"))
    for health, words in signs:
        pieces += [marker(health, (x + 6, y - 4)), label(words, (x + 18, y), "small")]
        x += 34 + text_width(words, "small")
    borders = (("border", "border of the kernel"),) if any(node.agent_carries for node in graph.nodes) else ()
    for kind, words in (*WORDS_OF_WIRES, ("down", "down"), *borders):
        class_ = kind if kind == "border" else f"wire {kind}"
        pieces.append(element("path", d=line([(x, y - 4), (x + 22, y - 4)]), class_=class_))
        pieces.append(label(words, (x + 28, y), "small"))
        x += 42 + text_width(words, "small")
    return element("g", "".join(pieces), class_="legend")


def _node(layout: GraphLayout, node: DrawnNode) -> str:
    boxes = layout.part.boxes
    frame = boxes["node", node.name]
    upside_down = node.name in layout.upside_down
    header_y = frame.bottom - HEADER if upside_down else frame.y
    subnet = node.subnet or "no subnet"
    room = frame.width - 2 * PAD - 28 - text_width(subnet, "mono")
    pieces = [
        rectangle(frame, "box frame", 8),
        marker(node.health, (frame.x + PAD + 6, header_y + 17)),
        label(node.name, (frame.x + PAD + 18, header_y + 21), "name", room),
        label(subnet, (frame.right - PAD, header_y + 21), "mono end"),
        _bridge(node, boxes["bridge", node.name], upside_down),
        _overlay(node, boxes["overlay", node.name]) if node.device else "",
        _agent(node, boxes["agent", node.name]),
        _uplink(node, boxes["uplink", node.name]),
    ]
    pods = {pod.name: pod for pod in node.pods}
    for name in shown_pods(node):
        if name != MORE:
            pieces.append(_pod(pods[name], boxes["pod", name], upside_down))
            continue
        box, hidden = boxes["pod", f"{node.name}{MORE}"], [n for n in pods if n not in shown_pods(node)]
        text = label(f"{len(hidden)} more pods", (box.center[0], box.center[1] + 4), "middle")
        pieces.append(group(rectangle(box) + text, "pod more", ", ".join(hidden)))
    title = f"{node.name}, {node.address}: agent {node.agent}, {node.peers_known} of {node.peers_expected} peers"
    return group("".join(pieces), f"node state-{node.health}", title, data_node=node.name)


def _word(state: str, health: str, spot: Spot, width: float) -> str:
    return label(state, spot, f"small word-{health}", width)


def _pod(pod: DrawnPod, box: Box, upside_down: bool) -> str:
    left, wide = box.x + 20, box.width - 24
    y = box.y + (HALF_NUMBER if upside_down else 0)
    pieces = [
        rectangle(box),
        marker(pod.health, (box.x + 10, y + 13)),
        label(pod.name, (left, y + 17), "name", wide),
        label(pod.address or "no address", (left, y + 31), "mono", wide),
    ]
    if pod.health != "good":
        word = pod.state if not pod.ready else "no link"
        pieces.append(_word(word, pod.health, (left, y + 42), wide))
    title = f"pod {pod.name}: {pod.state}{'' if pod.ready else ', not ready'}; its link on the node is {pod.host_end}"
    return group("".join(pieces), f"pod state-{pod.health}", title, data_pod=pod.name)


def _device_class(kind: str, device: Device | None) -> str:
    return f"{kind} missing" if device is None else kind if device.up else f"{kind} down"


def _bridge(node: DrawnNode, box: Box, upside_down: bool) -> str:
    device, name = node.bridge, node.bridge_name
    words = "does not exist" if device is None else (device.address or "no address") + ("" if device.up else "  DOWN")
    y = box.y + 15 if upside_down else box.bottom - 8
    beside = OVERLAY_WIDTH + DEVICE_GAP / 2 + CHANNEL + 3  # right of the wires from it
    room = OVERLAY_WIDTH - OUT_OF_BRIDGE - 28
    if name is None:
        text = label("no bridge", (box.x + 8, y), "name", room)
        text += label("a route to each pod", (box.x + beside, y), "mono", box.width - beside - 4)
        return group(rectangle(box) + text, "bridge", f"{node.name} has a route to each of its pods, and no bridge")
    text = label(name, (box.x + 8, y), "name", room)
    text += label(words, (box.x + beside, y), "mono", box.width - beside - 4)
    title = f"{node.name}'s bridge" + (f", MTU {device.mtu}" if device else "")
    return group(rectangle(box) + text, _device_class("bridge", device), title, data_device=f"{node.name}/{name}")


def _overlay(node: DrawnNode, box: Box) -> str:
    device = node.overlay
    room = box.width - OUT_OF_BRIDGE - CHANNEL - 8
    first = label(node.device, (box.x + 8, box.y + 16), "name", room)
    if device is None or not device.up:
        first += _word("does not exist" if device is None else "DOWN", "bad", (box.x + 8, box.y + 31), room)
    else:
        words = (device.address or "no address").removesuffix("/32")
        kind = {"tun": "TUN"}.get(device.kind, device.kind)
        first += label(words, (box.x + 8, box.y + 30), "mono", room)
        first += label(f"{kind} mtu {device.mtu}", (box.x + 8, box.y + 44), "small", room)
    title = f"{node.name}'s overlay device"
    name = f"{node.name}/{node.device}"
    return group(rectangle(box) + first, _device_class("overlay", device), title, data_device=name)


def _agent(node: DrawnNode, box: Box) -> str:
    left = box.x + INTO_AGENT + CHANNEL + 3
    room = box.right - left - 4
    text = label("agent", (left + 14, box.y + 16), "name")
    text += marker(node.health, (left + 5, box.y + 12))
    text += _word(node.agent, node.health, (left, box.y + 31), room)
    if node.agent == "ready":
        text += label(f"{node.peers_known}/{node.peers_expected} peers", (left, box.y + 44), "small", room)
    title = f"{node.name}'s agent: {node.agent}; knows {node.peers_known} of {node.peers_expected} other nodes"
    around = Box(box.x - 5, box.y - 5, box.width + 10, box.height + 10)
    border = rectangle(around, "border", 15) if node.agent_carries else ""
    return group(border + rectangle(box, radius=12) + text, "agent", title, data_agent=node.name)


def _uplink(node: DrawnNode, box: Box) -> str:
    room = box.width - UPLINK_PORT - CHANNEL - 8
    text = label(node.uplink + ("" if node.uplink_up else "  DOWN"), (box.x + 8, box.y + 16), "small", room)
    text += label(node.address, (box.x + 8, box.y + 30), "mono", room)
    classes = "uplink" if node.uplink_up else "uplink down"
    return group(rectangle(box) + text, classes, f"MTU {node.mtu}", data_device=f"{node.name}/{node.uplink}")


def _switch(layout: GraphLayout, switch: Switch) -> str:
    box = layout.part.boxes.get(("switch", switch.name))
    if box is None:
        return ""
    if is_bar(box):
        words = text_width(switch.name, "name")
        x = _beside_ports(layout, box, words + 46)
        text = label(switch.name, (x, box.bottom - 9), "name") + label(
            "switch", (x + words + 8, box.bottom - 9), "small"
        )
    else:
        x = box.x + text_left(layout.graph, switch.name)
        text = label(switch.name, (x, box.y + 18), "name", box.right - x - 4)
        text += label("switch", (x, box.y + 33), "small")
    title = f"switch {switch.name}: a Linux bridge of the underlay"
    classes = "switch" if switch.up else "switch down"
    return group(rectangle(box, radius=6) + text, classes, title, data_machine=switch.name)


def _beside_ports(layout: GraphLayout, box: Box, width: float) -> float:
    """Return the start of a bar's name: next to its left end, but not at a cable from its lower edge."""
    ends = (spot for wire in layout.part.wires if wire.kind == "cable" for spot in (wire.spots[0], wire.spots[-1]))
    x = box.x + 12
    for port in sorted(port for port, y in ends if abs(y - box.bottom) < 1 and box.x <= port <= box.right):
        if x - CHANNEL < port < x + width + CHANNEL:
            x = port + CHANNEL + 2
    return min(x, box.right - width)


def _machine(layout: GraphLayout, machine: DrawnMachine) -> str:
    box = layout.part.boxes.get(("machine", machine.name))
    if box is None:
        return ""
    graph = layout.graph
    addresses = [address.partition("/")[0] for address in machine.addresses]
    health: Health = "good" if machine.healthy else "bad"
    kind = text_width(machine.kind, "small")
    if is_bar(box):
        lines = [", ".join(addresses)]
        names = text_width(machine.name, "name") + kind + 34
        x = _beside_ports(layout, box, names + text_width(lines[0], "mono"))
        y, room = box.bottom - 27, text_width(machine.name, "name")
        spots = [(x + names, box.bottom - 9)]
    else:
        x = box.x + (text_left(graph, machine.name) if is_passed(graph, machine.name) else 8)
        y, room = box.y, box.right - x - 30 - kind
        lines, spots = addresses, [(x, box.y + 33 + ADDRESS_LINE * at) for at in range(len(addresses))]
    text = label(machine.name, (x + 14, y + 18), "name", room)
    text += label(machine.kind, (x + 22 + min(room, text_width(machine.name, "name")), y + 18), "small")
    text += marker(health, (x + 5, y + 14))
    text += "".join(
        label(words, spot, "mono", box.right - spot[0] - 4) for words, spot in zip(lines, spots, strict=True)
    )
    title = f"{machine.kind} {machine.name}: {', '.join(machine.addresses)}"
    return group(rectangle(box) + text, machine.kind, title, data_machine=machine.name)


def _service(service: DrawnService, box: Box) -> str:
    address = service.address or "headless"
    words = f"{address} {' '.join(service.ports)}"
    endpoints = f"{service.endpoints} pod{'s' if service.endpoints != 1 else ''}"
    count = text_width(endpoints, "small")
    text = label(f"svc/{service.name}", (box.x + 8, box.y + 16), "name", box.width - count - 24)
    text += label(endpoints, (box.right - 8, box.y + 16), "small end")
    text += label(words, (box.x + 8, box.y + 30), "mono", box.width - 12)
    title = f"service {service.name}: {words}; {endpoints} ready endpoints"
    return group(rectangle(box) + text, "service", title, data_service=service.name)


def _wire(graph: Graph, wire: DrawnWire) -> str:
    classes, extra, title = f"wire {wire.kind}", "", f"{wire.ends[0][1]} - {wire.ends[1][1]}"
    data = " ".join("/".join(end) for end in wire.ends)
    if wire.kind == "cable":
        cable = next(one for one in graph.cables if set(one.ends) == set(wire.ends))
        classes += " spare" if cable.spare else ""
        if cable.note:
            title += f": {cable.note}"
        if not cable.up:
            classes, extra = f"{classes} down", cross(_middle(wire), "cut")
    elif wire.kind == "veth":
        pod = next((p for node in graph.nodes for p in node.pods if p.name == wire.ends[0][0]), None)
        if pod is not None and not pod.linked:
            classes, extra = f"{classes} down", cross(_middle(wire), "cut")
    return group(element("path", d=line(wire.spots), class_=classes) + extra, "link", title, data_link=data)


def _middle(wire: DrawnWire) -> Spot:
    (x, y), (end_x, end_y) = wire.spots[-2:]
    return (x + end_x) / 2, (y + end_y) / 2


def _cable_texts(layout: GraphLayout) -> list[str]:
    """Draw names of switch ports, and cables' differences from perfect ones, without overlaps."""
    switches = {switch.name for switch in layout.graph.switches}
    notes = {frozenset(cable.ends): cable.note for cable in layout.graph.cables if cable.note}
    wanted = []
    for wire in layout.part.wires:
        if wire.kind != "cable":
            continue
        if frozenset(wire.ends) in notes:
            wanted.append((notes[frozenset(wire.ends)], _middle(wire), _middle(wire)))
        for end, spot, beside in (
            (wire.ends[0], wire.spots[0], wire.spots[1]),
            (wire.ends[1], wire.spots[-1], wire.spots[-2]),
        ):
            if end[0] in switches and spot[1] != beside[1]:
                wanted.append((end[1], spot, beside))
    return [label(words, spot, "small") for words, spot in place_texts(layout, wanted)]


def _faults(layout: GraphLayout) -> Iterator[str]:
    """Draw a numbered sign at every object that an active fault affects."""
    for (kind, name), box in layout.part.boxes.items():
        found = layout.graph.faults_of(name) if kind in ("node", "pod", "switch", "machine") else ()
        yield from _signs(found, (box.right - FAULT_WIDTH, box.y - FAULT_HEIGHT - 2))
    for wire in layout.part.wires:
        if wire.kind == "cable":
            (x, y), found = _middle(wire), layout.graph.faults_of_cable(wire.ends[0][0], wire.ends[1][0])
            yield from _signs(found, (x + 10, y - FAULT_HEIGHT / 2))


def _signs(faults: Sequence[DrawnFault], spot: Spot) -> Iterator[str]:
    for number, fault in enumerate(faults):
        box = Box(spot[0], spot[1] - number * FAULT_HEIGHT, FAULT_WIDTH, FAULT_HEIGHT)
        text = label(f"fault {fault.number}", (box.center[0], box.bottom - 4), "small middle")
        yield group(rectangle(box, "", 7) + text, "fault", f"fault {fault.number}: {fault.text}")
