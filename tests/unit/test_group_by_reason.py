"""What a phase waits for stays one line, however many nodes it has."""

from testbed.supervisor.start import group_by_reason


def test_one_is_reported_as_it_is() -> None:
    assert group_by_reason(["node1: agent: subnet lease: not yet"]) == "node1: agent: subnet lease: not yet"
    assert group_by_reason(["etcd is not there"]) == "etcd is not there"
    assert group_by_reason([]) == ""


def test_those_with_the_same_gap_are_reported_together_and_counted() -> None:
    starting = [f"node{number}: no answer yet" for number in range(1, 3)]
    coming = [f"node{number}: not started yet" for number in range(3, 201)]
    assert group_by_reason([*starting, *coming]) == (
        "node1, node2: no answer yet; node3, node4, node5 and 195 more: not started yet"
    )
