"""Which active faults can explain a loss between two places: those on its path, and no others."""

from dataclasses import replace

import pytest

from testbed.control.answers.faults import FaultAnswer
from testbed.exercises.judge import NameSeen, PairSeen, ServiceSeen, losses
from testbed.faults.catalogue import KINDS
from testbed.faults.explain import Loss, Paths, explain, sentence
from tests.unit.test_judge import WELL

# Two sites behind a router, two nodes each; node4 has two pods. s1 and s3 are connected twice.
CABLES = "node1 s1, node2 s1, etcd1 s1, gw s1, s1 s3, s1 s4, s3 s4, r1 s1, r1 s2, node3 s2, node4 s2"
PATHS = Paths(
    machine_of={name: name for name in ("node1", "node2", "node3", "node4", "etcd1", "gw", "r1")}
    | {"a": "node1", "b": "node2", "c": "node3", "d": "node4", "e": "node4"},
    cables={frozenset(cable.split()) for cable in CABLES.split(", ")},
    routers=frozenset({"r1"}),
    etcd=frozenset({"etcd1"}),
    gateway="gw",
)


def fault(words: str, number: int = 1) -> FaultAnswer:
    return {"number": number, "fault": words, "since": "", "did": "", "undone": "", "on": True}


def explained(words: str, *loss: str | None) -> bool:
    source, destination = loss
    assert source is not None
    return bool(explain([fault(words)], [(source, destination)], PATHS))


@pytest.mark.parametrize(
    ("words", "loss"),
    [
        ("partition node1 / node2", ("a", "b")),
        ("partition node1 / node2", ("b", "a")),
        ("partition node1 / node2", ("node1", "b")),
        ("partition node1,etcd1", ("a", "d")),
        ("oneway node1 / node2", ("b", "a")),
        ("partition node1 / r1", ("a", "c")),
        ("partition node2 / etcd1", ("a", "b")),
        ("agent stop node2", ("a", "b")),
        ("agent pause node1", ("a", None)),
        ("node crash node4", ("d", "e")),
        ("lease steal node1", ("a", "b")),
        ("certificate expire node1", ("b", "a")),
        ("etcd pause etcd1", ("etcd1", None)),
        ("link down s1 node1", ("a", "c")),
        ("link loss node1 s1 30", ("b", "a")),
        ("link loss r1 s2 30", ("a", "c")),
        ("link rate s1 s3 1", ("a", "b")),
        ("link down node1 s1", ("a", None)),
        ("dns stop", ("a", "gw")),
        ("link down gw s1", ("a", "gw")),
    ],
)
def test_a_fault_on_the_path_explains_a_loss(words: str, loss: tuple[str, str | None]) -> None:
    assert explained(words, *loss)


@pytest.mark.parametrize(
    ("words", "loss"),
    [
        ("partition node1 / node2", ("a", "c")),
        ("partition node1 / node2", ("d", "e")),
        ("partition node1 / etcd1", ("b", "c")),
        ("partition etcd1 / gw", ("a", "b")),
        ("partition node4", ("d", "e")),
        ("agent stop node3", ("a", "b")),
        ("agent stop node3", ("a", None)),
        ("link down node3 s2", ("a", "b")),
        ("link down s1 etcd1", ("a", "b")),
        ("link loss r1 s2 30", ("a", "b")),
        ("link loss node4 s2 30", ("d", "e")),
        ("link duplicate node1 s1 30", ("a", "b")),
        ("link reorder node1 s1 30", ("a", "b")),
        ("disk full node1", ("a", "b")),
        ("dns stop", ("a", "b")),
        ("etcd pause etcd1", ("a", "b")),
    ],
)
def test_a_fault_elsewhere_explains_nothing(words: str, loss: tuple[str, str | None]) -> None:
    assert not explained(words, *loss)


def test_the_sentence_names_number_kind_and_place() -> None:
    assert sentence(fault("partition node1 / node2")) == "fault 1 (partition) is on: node1 / node2"
    assert sentence(fault("link loss node1 s1 30", 7)) == "fault 7 (link loss) is on: node1 s1 30"
    assert sentence(fault("dns stop")) == "fault 1 (dns stop) is on"


def test_without_a_loss_every_active_fault_is_named_and_with_several_each_once() -> None:
    on = [fault("disk full node1", 1), fault("agent stop node2", 2)]
    assert len(explain(on, None, PATHS)) == 2
    lost: list[Loss] = [("a", "b"), ("b", "a"), ("b", "c")]
    assert explain(on, lost, PATHS) == ["fault 2 (agent stop) is on: node2"]
    assert explain(on, [], PATHS) == []


def test_every_fault_that_loses_packets_has_parameters_for_the_place() -> None:
    wanted = {"cable": ["name", "name"], "sides": ["names", "word", "names"], "machine": ["name"]}
    for kind in KINDS:
        given = [parameter.kind for parameter in kind.parameters]
        assert given[: len(wanted.get(kind.loses, ()))] == wanted.get(kind.loses, []), kind.name
    assert {kind.loses for kind in KINDS} == {"", "machine", "cable", "sides", "names"}


def test_loss_found_by_a_check_is_between_these_places() -> None:
    assert losses(WELL) == []
    silent = (PairSeen("a", "b", answered=False), PairSeen("b", "a", answered=True))
    assert losses(replace(WELL, small=silent)) == [("a", "b")]
    seen = replace(WELL, services=(ServiceSeen("a", "web:80", "no answer"),), names=(NameSeen("b", answered=False),))
    assert losses(seen) == [("a", None), ("b", "gw")]
    first, second = WELL.nodes
    assert losses(replace(WELL, nodes=(first, replace(second, ready=False)))) == [("node2", None)]
    assert losses(replace(WELL, leases=WELL.leases[:1] if WELL.leases else None)) == [("node2", None)]
    assert losses(replace(WELL, leases=None, etcd=("etcd1",))) == [("etcd1", None)]
