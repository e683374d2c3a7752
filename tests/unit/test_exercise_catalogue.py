"""The exercises as students and lecturers read them: neutral names, levels, hints, and a variant for each seed."""

import re
from collections.abc import Iterator

import pytest

from testbed.errors import InvalidInput
from testbed.exercises.breakage import BREAKERS
from testbed.exercises.catalogue import EXERCISES, exercise_of
from testbed.exercises.variant import NotFit, Variant, variant_of
from tests.documents import ROOT, blocks

PODS = {"node1": ["nginx", "client"], "node2": ["tomcat"]}
FORMER = {
    "broken/route-deleted": "exercise/1",
    "broken/nft-drop": "exercise/2",
    "broken/agent-killed": "exercise/4",
    "broken/docker0-down": "exercise/5",
    "broken/lease-revoked": "exercise/6",
    "broken/mtu-lowered": "exercise/7",
}


def test_there_are_fourteen_in_three_levels() -> None:
    assert list(EXERCISES) == [f"exercise/{number}" for number in range(1, 15)]
    levels = [one.level for one in EXERCISES.values()]
    assert levels == sorted(levels)
    assert set(levels) == {1, 2, 3}


def test_three_have_two_faults_and_one_each_is_about_a_service_dns_and_a_policy() -> None:
    faults = [one.faults for one in EXERCISES.values()]
    assert [len(one) for one in faults].count(2) == 3
    assert {fault.removeprefix("/") for one in faults for fault in one} == set(BREAKERS)
    assert ("service",) in faults
    assert ("dns",) in faults
    assert ("policy",) in faults


def test_former_names_start_the_same_exercises() -> None:
    for former, name in FORMER.items():
        assert exercise_of(former) is EXERCISES[name]
        assert exercise_of(former.replace("-", "_")) is EXERCISES[name]
    for name in EXERCISES:
        assert exercise_of(name) is EXERCISES[name]
    for other in (None, "nginx_tomcat", "broken/own.yaml", "exercise/1.yaml", "./exercise/1"):
        assert exercise_of(other) is None


@pytest.mark.parametrize("name", ["exercise/15", "exercise/0", "exercise/", "broken/nothing"])
def test_an_unknown_exercise_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"got {name}; want exercise/1 to exercise/14; list: testbed topologies"):
        exercise_of(name)


def texts() -> Iterator[str]:
    for exercise in EXERCISES.values():
        yield from (exercise.complaint, *exercise.hints)


def test_every_text_has_names_for_every_variant() -> None:
    variant = Variant("left", "right", "web", "db")
    for text in texts():
        filled = variant.fill(text)
        assert "{" not in filled
        assert not re.search(r"\bnode[12]\b|tomcat", text), "a variant has another node and pod"


def test_a_complaint_does_not_name_the_fault() -> None:
    words = r"\b(nft|nftables|MTU|ARP|MAC|neighbour|blackhole|SIGSTOP|lease|selector|UDP|squat\w*)\b"
    for exercise in EXERCISES.values():
        assert not re.search(words, exercise.complaint), exercise.name


def test_without_a_seed_an_exercise_is_as_the_solutions_have_it() -> None:
    assert variant_of(PODS, 0) == Variant("node2", "node1", "tomcat", "nginx")


def test_a_seed_is_always_the_same_variant_and_seeds_differ() -> None:
    variants = [variant_of(PODS, seed) for seed in range(1, 60)]
    assert variants == [variant_of(PODS, seed) for seed in range(1, 60)]
    assert {one.victim for one in variants} == {"node1", "node2"}
    assert {one.pod for one in variants} == {"nginx", "client", "tomcat"}
    for name in ("table", "squatter", "mtu", "service_fault", "route_table"):
        assert len({getattr(one, name) for one in variants}) > 1, name
    assert all(one.pod in PODS[one.victim] and one.peer in PODS[one.other] for one in variants)


def test_a_lab_with_pods_on_one_node_does_not_fit() -> None:
    with pytest.raises(NotFit, match="two nodes with pods"):
        variant_of({"node1": ["nginx"], "node2": []}, 3)


def test_solutions_are_apart_from_the_students_page_and_complete() -> None:
    solved = {block.section for block in blocks(ROOT / "docs" / "exercises-solutions.md")}
    assert solved == set(EXERCISES)
    page = (ROOT / "docs" / "exercises.md").read_text(encoding="utf-8")
    for word in ("company-firewall", "metrics-daemon", "blackhole", "PERMANENT"):
        assert word not in page
