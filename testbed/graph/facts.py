"""What a picture is made from, asked of a running lab: everything in it, and its active faults."""

from typing import Any

from testbed.control.client import LabRecord, ask


def facts_of_lab(record: LabRecord, answer_within_s: float | None = None) -> dict[str, Any]:
    """Return what `graph_of` reads. Raises TestbedError when the lab does not answer."""
    facts: dict[str, Any] = ask(record, "graph", answer_within_s=answer_within_s)
    return facts | {"faults": ask(record, "faults", answer_within_s=answer_within_s)}
