"""What a picture is made from, asked of a running lab: everything in it, and its active faults."""

from testbed.control.answers.graph import GraphAnswer
from testbed.control.client import LabRecord, ask
from testbed.control.questions import FAULTS, GRAPH


def facts_of_lab(record: LabRecord, answer_within_s: float | None = None) -> GraphAnswer:
    """Return what `graph_of` reads. Raises TestbedError when the lab does not answer."""
    facts = ask(record, GRAPH, answer_within_s=answer_within_s)
    faults = ask(record, FAULTS, answer_within_s=answer_within_s)
    return {**facts, "faults": list(faults)}
