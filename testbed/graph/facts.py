"""The data of a picture, read from a running lab: all its objects and active faults."""

from testbed.control.answers.graph import GraphAnswer
from testbed.control.client import LabRecord, ask
from testbed.control.questions import FAULTS, GRAPH


def facts_of_lab(record: LabRecord, answer_within_s: float | None = None) -> GraphAnswer:
    """Return the input of `graph_of`. Raises TestbedError if the lab does not answer."""
    facts = ask(record, GRAPH, answer_within_s=answer_within_s)
    faults = ask(record, FAULTS, answer_within_s=answer_within_s)
    return {**facts, "faults": list(faults)}
