"""What a phase waits for stays one line, however many nodes it has."""

from testbed.lab.in_few_words import in_few_words


def test_one_is_said_as_it_is() -> None:
    assert in_few_words(["node1: agent: subnet lease: not yet"]) == "node1: agent: subnet lease: not yet"
    assert in_few_words(["etcd is not there"]) == "etcd is not there"
    assert in_few_words([]) == ""


def test_those_that_lack_the_same_are_said_together_and_counted() -> None:
    starting = [f"node{number}: no answer yet" for number in range(1, 3)]
    coming = [f"node{number}: not started yet" for number in range(3, 201)]
    assert in_few_words([*starting, *coming]) == (
        "node1, node2: no answer yet; node3, node4, node5 and 195 more: not started yet"
    )
