"""The page's tables, as headings and rows, from what the lab's verbs answer. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.cluster.columns import NAMESPACE
from testbed.cluster.kinds import Kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE, key_of_object
from testbed.control.answers.faults import FaultAnswer
from testbed.control.answers.graph import GraphAnswer
from testbed.control.answers.lab import EventLine

Object = Mapping[str, Any]
Table = dict[str, list[Any]]
EVENTS_SHOWN = 200


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return one table in the page's form."""
    return {"headings": list(headings), "rows": [[_cell(value) for value in row] for row in rows]}


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def nodes(facts: GraphAnswer) -> Table:
    """Return nodes with their agents and drops."""
    headings = ("node", "address", "subnet", "agent", "peers", "restarts", "drops", "why not ready")
    return table(
        headings,
        [
            (
                node["name"],
                node["address"],
                node["subnet"],
                node["agent"]["state"],
                f"{node['peers']['known']}/{node['peers']['expected']}",
                node["agent"]["restarts"],
                ", ".join(f"{reason} {count}" for reason, count in node["drops"].items() if count),
                "; ".join(node["why_not_ready"]),
            )
            for node in facts["nodes"]
        ],
    )


def pods(facts: GraphAnswer) -> Table:
    """Return pods and their links."""
    return table(
        ("pod", "node", "address", "state", "ready", "restarts", "link on the node"),
        [
            (
                pod["name"],
                pod["node"],
                pod["address"],
                pod["state"],
                "yes" if pod["ready"] else "no",
                pod["restarts"],
                pod["host_end"] or "the node's network",
            )
            for pod in facts["pods"]
        ],
    )


def forwarding(facts: GraphAnswer) -> Table:
    """Return every agent's forwarding table."""
    return table(
        ("node", "subnet", "sent to"),
        [
            (node["name"], entry["subnet"], entry["via"])
            for node in facts["nodes"]
            for entry in node["forwarding"] or ()
        ],
    )


def objects(kind: Kind, found: Sequence[Object]) -> Table:
    """Return objects of a kind, as `get` shows them; with their namespaces if one is not the default one."""
    shown = [column for column in kind.columns if not column.wide]
    if any(key_of_object(one).namespace != DEFAULT_NAMESPACE for one in found):
        shown = [NAMESPACE, *shown]
    return table([column.heading for column in shown], [[column.cell(one) for column in shown] for one in found])


def events(found: Sequence[EventLine]) -> Table:
    """Return the last events, newest first."""
    return table(
        ("at", "type", "object", "reason", "message"),
        [
            (one["at"], one["type"], one["object"], one["reason"], one["message"])
            for one in reversed(found[-EVENTS_SHOWN:])
        ],
    )


def faults(found: Sequence[FaultAnswer]) -> Table:
    """Return active faults."""
    return table(
        ("number", "fault", "since", "what was done"),
        [(one["number"], one["fault"], one["since"], one["did"]) for one in found],
    )


def ports(found: Sequence[Object], services: Sequence[Object] = ()) -> dict[str, int]:
    """Return the first TCP port of each pod and Service: the default destination of a trace."""
    first: dict[str, int] = {}
    for service in services:
        for port in service["ports"]:
            if port["protocol"] == "TCP":
                first.setdefault(f"svc/{service['name']}", port["port"])
    for pod in found:
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                if port.get("protocol", "TCP") == "TCP":
                    first.setdefault(str(key_of_object(pod)), port["containerPort"])
    return first
