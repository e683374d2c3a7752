"""The lines below a table. Pure."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.control.answers.lab import MachineStatus, NodeStatus


def warning_lines(nodes: "Iterable[NodeStatus]") -> list[str]:
    """Return the agents' warnings, each once with its nodes."""
    sources: dict[str, list[str]] = {}
    for node in nodes:
        for warning in node["warnings"]:
            sources.setdefault(warning, []).append(node["name"])
    return [f"{', '.join(names)}: {warning}" for warning, names in sources.items()]


def machine_lines(machines: "Sequence[MachineStatus]") -> list[tuple[str, bool]]:
    """Describe problems of the processes that hold machines' namespaces, and whether they are serious."""
    lost = [one["name"] for one in machines if one["pid"] is None]
    again = [one["name"] for one in machines if one["pid"] is not None and one["restarts"]]
    lines = [(f"{', '.join(lost)}: no process holds the namespaces (testbed events)", True)] if lost else []
    what = "the process that holds the namespaces was restarted (testbed events)"
    return [*lines, *([(f"{', '.join(again)}: {what}", False)] if again else [])]
