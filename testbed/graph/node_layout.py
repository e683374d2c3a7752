"""The inside of a node, as a packet sees it on its way out: pods, docker0, flannel0, the agent, the uplink. Pure.

Every wire has its own channel, CHANNEL wide on either side, for the lines and numbers of a traced packet; texts are
outside the channels.
"""

from math import ceil

from testbed.graph.geometry import Box, DrawnWire, Part
from testbed.graph.model import DrawnNode

PAD = 12
HEADER = 34
CHANNEL = 17
"""From a wire to the nearest text: a traced packet's line, and half of a number on it."""
POD_WIDTH, POD_HEIGHT = 130, 54
POD_GAP = 24
"""Between pods; wires of the upper lines pass there."""
LANE = 6
"""Between wires that pass beside each other."""
BRIDGE_HEIGHT = 62
RUN = 23
"""From the bridge's upper edge to the packet's line, above the bridge's name."""
VETH = 40
"""From the pods to the bridge."""
ROUTE = 40
"""From the bridge to the overlay device."""
DEVICE_HEIGHT = 52
OVERLAY_WIDTH, AGENT_WIDTH, DEVICE_GAP = 160, 122, 50
OUT_OF_BRIDGE = 22
"""From the overlay device's right edge to the packets from the bridge."""
INTO_AGENT = 22
"""From the agent's left edge to the packets through it."""
OUT = 40
"""From agent and overlay device to the uplink."""
UPLINK_WIDTH, UPLINK_HEIGHT = 170, 40
UPLINK_PORT = 30
"""From the uplink's right edge to its cable and the packets through it."""
INNER = OVERLAY_WIDTH + DEVICE_GAP + AGENT_WIDTH
MORE = "…"
"""Represents the pods without a box of their own."""
MOST_PODS = 12


def shown_pods(node: DrawnNode) -> list[str]:
    """Return the pods that get a box, and MORE for the rest."""
    names = [pod.name for pod in node.pods]
    return names if len(names) <= MOST_PODS else [*names[: MOST_PODS - 1], MORE]


def lay_out_node(node: DrawnNode, pods_per_line: int, lines: int) -> Part:
    """Place the node with its pods at the top and its uplink at the bottom; `lines` lines of pods fit."""
    names = shown_pods(node)
    beside = CHANNEL + LANE * (lines - 1) if lines > 1 else 0
    gap = max(POD_GAP, 2 * CHANNEL + LANE * (lines - 1)) if lines > 1 else POD_GAP
    inner = max(INNER, pods_per_line * POD_WIDTH + (pods_per_line - 1) * gap + beside)
    width = inner + 2 * PAD
    bar_y = HEADER + lines * (POD_HEIGHT + POD_GAP) - POD_GAP + VETH if lines else HEADER
    bridge = Box(PAD, bar_y, inner, BRIDGE_HEIGHT)
    overlay = Box(PAD, bridge.bottom + ROUTE, OVERLAY_WIDTH, DEVICE_HEIGHT)
    agent = Box(overlay.right + DEVICE_GAP, overlay.y, AGENT_WIDTH, DEVICE_HEIGHT)
    uplink = Box(PAD + (INNER - UPLINK_WIDTH) / 2, overlay.bottom + OUT, UPLINK_WIDTH, UPLINK_HEIGHT)
    boxes = {
        ("node", node.name): Box(0, 0, width, uplink.bottom),
        ("bridge", node.name): bridge,
        **({("overlay", node.name): overlay} if node.device else {}),
        ("agent", node.name): agent,
        ("uplink", node.name): uplink,
    }
    wires: list[DrawnWire] = list(_device_wires(node, bridge, overlay, agent, uplink))
    used = min(pods_per_line, len(names)) or 1
    start = PAD + (inner - (used * POD_WIDTH + (used - 1) * gap)) / 2 if lines == 1 else PAD
    own_lines = ceil(len(names) / pods_per_line) if names else 0
    for number, name in enumerate(names):
        line, column = divmod(number, pods_per_line)
        # If it has fewer lines than its neighbours: next to the bridge, to keep wires short.
        y = HEADER + (line + lines - own_lines) * (POD_HEIGHT + POD_GAP)
        box = Box(start + column * (POD_WIDTH + gap), y, POD_WIDTH, POD_HEIGHT)
        boxes["pod", name if name != MORE else f"{node.name}{MORE}"] = box
        wires += _pod_wires(node, name, box, bridge, own_lines - 1 - line)
    return Part(width, uplink.bottom, boxes, tuple(wires))


def _pod_wires(node: DrawnNode, name: str, box: Box, bridge: Box, lines_below: int) -> list[DrawnWire]:
    """Return wires from the pod's eth0 to the bridge, beside the pods of the lines below."""
    x, y = box.center[0], box.bottom
    spots = [(x, y)]
    if lines_below:
        x = box.right + CHANNEL + LANE * (lines_below - 1)
        spots = [(box.right, box.center[1]), (x, box.center[1])]
    found = []
    for pod in node.pods:
        if pod.host_end is None:
            continue
        if pod.name != name and not (name == MORE and pod.name not in shown_pods(node)):
            continue
        port = (x, bridge.y)
        inside = (x, bridge.y + RUN)
        found += [
            DrawnWire("veth", ((pod.name, "eth0"), (node.name, pod.host_end)), (*spots, port)),
            DrawnWire("inside", ((node.name, pod.host_end), node.pods_point), (port, inside)),
            DrawnWire("inside", ((pod.name, "lo"), (pod.name, "eth0")), ((box.x, box.bottom), spots[0])),
        ]
    return found


def _device_wires(node: DrawnNode, bridge: Box, overlay: Box, agent: Box, uplink: Box) -> list[DrawnWire]:
    uplink_point = (node.name, node.uplink)
    device = (node.name, node.device)
    process = (node.name, "agent")
    way_out, way_in = (node.name, "bridge's way out"), (node.name, "uplink's way in")
    x, run = overlay.right - OUT_OF_BRIDGE, bridge.y + RUN
    between = (overlay.right + agent.x) / 2
    into = (uplink.right - UPLINK_PORT, uplink.y)
    turn = agent.bottom + OUT / 2
    always = [
        DrawnWire("inside", (node.pods_point, way_out), ((x, run), (x, bridge.bottom))),
        # Traffic outside the overlay (another underlay address, masqueraded) goes from bridge to uplink.
        DrawnWire("around", (node.pods_point, way_in), ((between, run), (between, turn), (into[0], turn), into)),
    ]
    inner = DrawnWire("inside", (way_in, uplink_point), (into, (into[0], uplink.center[1])))
    to_device = DrawnWire("kernel", (way_out, device), ((x, bridge.bottom), (x, overlay.y)))
    beside, below = (node.name, "device's side"), (node.name, "agent's underside")
    level, down = overlay.center[1], agent.x + INTO_AGENT
    through = [
        DrawnWire("inside", (device, beside), ((x, overlay.y), (x, level))),
        DrawnWire("agent", (beside, process), ((overlay.right, level), (agent.x, level))),
        DrawnWire("inside", (process, below), ((down, level), (down, agent.bottom))),
        DrawnWire("agent", (below, way_in), ((down, agent.bottom), (down, turn), (into[0], turn), into)),
    ]
    direct = DrawnWire("kernel", (device, way_in), ((x, overlay.bottom), (x, turn), (into[0], turn), into))
    bare = DrawnWire("kernel", (way_out, way_in), ((x, bridge.bottom), (x, turn), (into[0], turn), into))
    if not node.device:
        return [*always, bare, inner]
    return [*always, to_device, *(through if node.agent_carries else [direct]), inner]
