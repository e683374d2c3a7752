"""The lab in other formats: Graphviz's dot, Mermaid, and a standalone page. Pure."""

import itertools
import re
from collections.abc import Sequence
from html import escape

from testbed.graph.model import DrawnNode, DrawnService, Graph, Health
from testbed.graph.svg import draw

SIGNS: dict[Health, str] = {"good": "", "busy": " (not yet)", "bad": " (wrong)"}


def dot(graph: Graph) -> str:
    """Return the graph for `dot -Tsvg` and other readers of Graphviz's language."""
    lines = [
        f"graph {_quoted(graph.lab)} {{",
        f"  label={_quoted(f'lab {graph.lab}: {graph.state}; pod network {graph.network}')};",
        '  graph [fontname="Helvetica"]; node [shape=box, fontname="Helvetica", fontsize=11]; edge [fontsize=9];',
    ]
    for number, node in enumerate(graph.nodes):
        lines += [
            f"  subgraph cluster_{number} {{",
            f"    label={_quoted(_heading(node))};",
            *(f"    {_quoted(_place(*part))} [label={_quoted(text)}];" for part, text in _parts(node)),
            "  }",
        ]
    for switch in graph.switches:
        lines.append(f'  {_quoted(switch.name)} [style=filled, fillcolor="#d0d7de"];')
    for machine in graph.machines:
        text = "\n".join([f"{machine.name} ({machine.kind})", *machine.addresses])
        lines.append(f"  {_quoted(machine.name)} [label={_quoted(text)}];")
    for service in graph.services:
        lines.append(f"  {_quoted(_service_place(service))} [style=dotted, label={_quoted(_service_text(service))}];")
    for near, far, style in _edges(graph):
        lines.append(f"  {_quoted(near)} -- {_quoted(far)}{' [style=dashed, color=red]' if style == 'down' else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: Graph) -> str:
    """Return the graph for Markdown that renders Mermaid, in ```mermaid fences."""
    lines = ["flowchart TB"]
    for node in graph.nodes:
        lines += [
            f'  subgraph {_identifier(node.name)}["{_heading(node)}"]',
            *(f'    {_identifier(_place(*part))}["{_mermaid_text(text)}"]' for part, text in _parts(node)),
            "  end",
        ]
    lines += [f'  {_identifier(switch.name)}["{switch.name} (switch)"]' for switch in graph.switches]
    for machine in graph.machines:
        text = "\n".join([f"{machine.name} ({machine.kind})", *machine.addresses])
        lines.append(f'  {_identifier(machine.name)}["{_mermaid_text(text)}"]')
    for service in graph.services:
        lines.append(f'  {_identifier(_service_place(service))}["{_mermaid_text(_service_text(service))}"]')
    for near, far, style in _edges(graph):
        lines.append(f"  {_identifier(near)} {'-. down .-' if style == 'down' else '---'} {_identifier(far)}")
    return "\n".join(lines) + "\n"


def html(graph: Graph) -> str:
    """Return a standalone page with the picture and the tables."""
    nodes = [
        (node.name, node.address, node.subnet or "-", node.agent, f"{node.peers_known}/{node.peers_expected}")
        for node in graph.nodes
    ]
    pods = [(pod.name, pod.node, pod.address or "-", pod.state) for node in graph.nodes for pod in node.pods]
    services = [
        (one.name, one.address or "headless", " ".join(one.ports), str(one.endpoints)) for one in graph.services
    ]
    faults = [(str(one.number), one.text) for one in graph.faults]
    style = (
        "body{font-family:sans-serif;margin:1.5em;color:#1f2328}svg{max-width:100%;height:auto}"
        "table{border-collapse:collapse;margin:1em 0}td,th{text-align:left;padding:.25em 1em .25em 0;"
        "border-bottom:1px solid #d0d7de}"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>lab {escape(graph.lab)}</title><style>{style}</style></head><body>\n{draw(graph)}\n"
        + _table(("node", "address", "subnet", "agent", "peers"), nodes)
        + _table(("pod", "node", "address", "state"), pods)
        + (_table(("service", "address", "ports", "ready pods"), services) if services else "")
        + (_table(("fault", "active"), faults) if faults else "")
        + "</body></html>\n"
    )


def _service_place(service: DrawnService) -> str:
    return f"service {service.name}"


def _service_text(service: DrawnService) -> str:
    return f"svc/{service.name}\n{service.address or 'headless'} {' '.join(service.ports)}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"


def _heading(node: DrawnNode) -> str:
    return f"{node.name}  {node.subnet or 'no subnet'}"


def _place(owner: str, what: str) -> str:
    return f"{owner}/{what}"


def _parts(node: DrawnNode) -> list[tuple[tuple[str, str], str]]:
    """Return a node's parts, each with its text."""
    bridge, overlay = node.bridge, node.overlay
    found = [((pod.name, "pod"), f"{pod.name}\n{pod.address or 'no address'}{SIGNS[pod.health]}") for pod in node.pods]
    words = (bridge.address or "no address") if bridge else "does not exist"
    found.append(((node.name, "bridge"), f"{node.bridge_name}\n{words}" if node.bridge_name else "no bridge"))
    if node.device:
        words = f"{overlay.address or 'no address'} mtu {overlay.mtu}" if overlay else "does not exist"
        found.append(((node.name, "overlay"), f"{node.device}\n{words}"))
    found.append(((node.name, "agent"), f"agent\n{node.agent}, {node.peers_known}/{node.peers_expected} peers"))
    found.append(((node.name, "uplink"), f"{node.uplink}\n{node.address}"))
    return found


def _edges(graph: Graph) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for node in graph.nodes:
        bridge, overlay = _place(node.name, "bridge"), _place(node.name, "overlay")
        agent, uplink = _place(node.name, "agent"), _place(node.name, "uplink")
        found += [
            (_place(pod.name, "pod"), bridge if pod.host_end else uplink, "" if pod.linked else "down")
            for pod in node.pods
        ]
        way = [bridge, *([overlay] if node.device else []), *([agent] if node.agent_carries else []), uplink]
        found += [(one, other, "") for one, other in itertools.pairwise(way)]
    uplinks = {(node.name, node.uplink): _place(node.name, "uplink") for node in graph.nodes}
    for cable in graph.cables:
        near, far = (uplinks.get(end, end[0]) for end in cable.ends)
        found.append((near, far, "" if cable.up else "down"))
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _identifier(text: str) -> str:
    # Mermaid reserves `end` and some other words.
    return "x_" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", text)


def _mermaid_text(text: str) -> str:
    return escape(text).replace("\n", "<br/>")
