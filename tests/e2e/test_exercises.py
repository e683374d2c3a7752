"""The broken labs: each shows its symptom, stays broken, and is well after the lecturer's solution is typed."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.control.answers.faults import ExerciseAnswer
from testbed.control.questions import EXERCISE
from testbed.exercises.catalogue import EXERCISES
from testbed.exercises.variant import variant_of
from testbed.pytest_plugin import NewLab
from testbed.testing.bundle import write_bundle
from tests.documents import ROOT, blocks
from tests.e2e.command import environment_with, run_verb
from tests.e2e.lab import Lab
from tests.e2e.pages import missing
from tests.e2e.typed import Typed, commands_of, type_in
from tests.waiting import wait_until

STAYS_S = 8.0
"""Longer than an agent takes to repair what it can, its slow checks (5 s) included."""
SHELL = f"""
testbed() {{ "{sys.executable}" -m testbed "$@"; }}
sudo() {{ "$@"; }}
"""
PODS = {"node1": ["nginx", "client"], "node2": ["tomcat"]}
PAIRS = {"small", "full", "Services"}
NO_AGENT = {"agents", "forwarding tables", "routes"}
SYMPTOMS: Mapping[str, set[str]] = {
    "exercise/1": PAIRS | {"names"},
    "exercise/2": PAIRS,
    "exercise/3": PAIRS | {"names"},
    "exercise/4": PAIRS | NO_AGENT,
    "exercise/5": PAIRS | NO_AGENT | {"names"},
    "exercise/6": PAIRS | {"leases", "forwarding tables"},
    "exercise/7": {"full"},
    "exercise/8": {"Services"},
    "exercise/9": {"names"},
    "exercise/10": PAIRS,
    "exercise/11": PAIRS,
    "exercise/12": PAIRS | NO_AGENT | {"names"},
    "exercise/13": {"small", "full"},
    "exercise/14": {"small", "full"},
}
"""The checks that fail, by their first words."""
TRACED = {
    "exercise/1": ("tomcat eth0", "tomcat cannot answer: it has no route to 10.0.46.3"),
    "exercise/2": ("node2 uplink", "a packet filter of node2 drops it: table ip company-firewall"),
    "exercise/4": ("node2 uplink", "the agent of node2 does not answer: it is not running, and metrics-daemon (pid"),
    "exercise/5": ("node2 uplink", "docker0 of node2 is down"),
    "exercise/6": ("node1 flannel0", "no node holds a lease for the destination"),
    "exercise/10": (
        "node2 docker0",
        "a routing rule of node2 comes before its main table, where the route is 10.0.0.0/16",
    ),
    "exercise/13": (
        "node2 flannel0",
        "dropped by policy default/team-baseline (ingress of tomcat): no rule allows client → tomcat",
    ),
    "exercise/14": ("node2 flannel0", "dropped by policy default/team-baseline (ingress of tomcat)"),
    "exercise/7": ("s1 s1-eth1", "1496 bytes do not fit through s1's port s1-eth2 (MTU 1400)"),
}
"""Where a trace from client to tomcat ends, and what it says of that place."""


FIRST_FINDING = {
    "exercise/1": "pod tomcat: no default route",
    "exercise/2": "node node2: table ip company-firewall has: udp dport 8285 counter",
    "exercise/3": "node node2: frames for 10.0.90.2 go to 02:00:5e:00:53:01",
    "exercise/4": "node node2: agent is ",
    "exercise/5": "nodes/node2: docker0 is down",
    "exercise/6": "node node2: a route drops packets: blackhole 192.168.8.11",
    "exercise/7": "switches: s1-eth2 has an MTU of 1400, others 1500",
    "exercise/8": "service nginx: no ready pod is behind it",
    "exercise/9": "node node2: a route drops packets: blackhole 10.96.0.10",
    "exercise/10": "node node2: a routing rule comes before the main table: 100: from all to 10.0.46.0/24 lookup 77",
    "exercise/11": "node node2: table ip company-firewall has: udp dport 8285 counter",
    "exercise/12": "pod nginx: no default route",
    "exercise/13": "networkpolicy team-baseline: isolates pods app=tomcat for ingress",
    "exercise/14": "networkpolicy team-baseline: isolates pods app=tomcat for ingress",
}
"""What a bundle about the lab names first."""


@pytest.fixture(scope="module")
def lab(new_lab: NewLab) -> Iterator[Lab]:
    """Yield one lab for all: who has solved an exercise may begin the next."""
    with new_lab("nginx_tomcat") as handle:
        yield Lab(handle.name)


def wrong(lab: Lab) -> dict[str, list[str]]:
    """Return the checks that do not hold, by the words of SYMPTOMS."""
    problems = {one["check"]: one["wrong"] for one in lab.json("check")["checks"] if not one["holds"]}
    return {
        next((word for word in ("small", "full") if word in check), check): lines for check, lines in problems.items()
    }


def typed(lab: Lab, command: str) -> str:
    """Return what a line of a page says, in a shell."""
    done = subprocess.run(
        ["bash", "-c", f"{SHELL}\n{command}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment_with({"PYTHONPATH": str(ROOT), **lab.environment}),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 or " check" in command, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def begin(lab: Lab, name: str, seed: int = 0) -> ExerciseAnswer:
    wait_until(lambda: not wrong(lab), timeout_s=20, what="all checks pass before")
    answer: ExerciseAnswer = lab.handle.ask(EXERCISE, {"name": name, "seed": seed}, timeout_s=60)
    assert answer["begun"] is True
    return answer


def solved(lab: Lab, name: str) -> None:
    wait_until(lambda: not wrong(lab), timeout_s=40, what=f"{name} is solved")
    assert f"all checks passed: {name} is solved" in lab.must("check")


def stays_broken(lab: Lab, name: str) -> None:
    # The agent says whether it is ready only now and then while it is about to fail: what must be seen is seen.
    seen = set[str]()
    until = time.monotonic() + STAYS_S
    while time.monotonic() < until:
        problems = wrong(lab)
        assert problems, "it repaired itself"
        assert set(problems) <= SYMPTOMS[name] | {"leases", "agents"}, problems
        seen |= set(problems)
    assert seen >= SYMPTOMS[name] - NO_AGENT - {"leases"}


def trace_names_place_and_reason(lab: Lab, name: str) -> None:
    size = ("--size", "1472") if name == "exercise/7" else ()
    out = lab.testbed("trace", "client", "tomcat", *size, "-o", "json").json
    where, reason = TRACED[name]
    assert out["lost_at"]["where"] == where
    assert any(reason in said for said in out["reasons"]), out["reasons"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_exercise_stays_broken_until_the_solution_is_typed(name: str, lab: Lab, tmp_path: Path) -> None:
    begin(lab, name)
    stays_broken(lab, name)
    if name in TRACED:
        trace_names_place_and_reason(lab, name)
    found = write_bundle(lab.handle, tmp_path, title=name).findings
    assert found[0].startswith(FIRST_FINDING[name]), found
    page = [block for block in blocks(ROOT / "docs" / "exercises-solutions.md") if block.section == name]
    commands = [one for block in page for one in commands_of(block)]
    assert commands
    for one in commands[:-1]:
        said = typed(lab, one.command)
        assert missing(one.shown, said) == [], f"{one.command}\n{said}"
        assert wrong(lab), "only the last command is the solution"
    typed(lab, commands[-1].command)
    solved(lab, name)


def a_seed_with(**wanted: object) -> int:
    return next(
        seed
        for seed in range(1, 100)
        if all(getattr(variant_of(PODS, seed), name) == value for name, value in wanted.items())
    )


@pytest.mark.slow
def test_a_seed_breaks_another_node_with_another_table(lab: Lab) -> None:
    seed = a_seed_with(victim="node1", table="hardening")
    assert begin(lab, "exercise/2", seed)["complaint"].startswith("Nothing passes between node1 and node2")
    assert "hardening" in lab.run("node1", "nft", "list", "tables")
    lab.run("node1", "nft", "delete", "table", "ip", "hardening")
    solved(lab, "exercise/2")


@pytest.mark.slow
def test_a_seed_breaks_the_service_in_another_way(lab: Lab) -> None:
    begin(lab, "exercise/8", a_seed_with(service_fault="port"))
    assert set(wrong(lab)) == {"Services"}
    typed(
        lab,
        "testbed get service nginx -o yaml | sed 's/8088/80/; /uid:/d; /creation/d; /^status/,$d' | testbed apply -f -",
    )
    solved(lab, "exercise/8")


@pytest.mark.slow
def test_up_prints_the_complaint_and_hints_come_one_at_a_time(no_lab: Lab) -> None:
    answer = no_lab.up("broken/nft-drop", "--seed", "0")
    assert answer.code == 0, answer
    said = " ".join(answer.out.split())
    assert "exercise/2 (level 1) Nothing passes between node2 and node1 any more." in said
    assert re.search(r"sudo testbed check( --lab \S+)?\n  sudo testbed hint( --lab \S+)?$", answer.out.rstrip())
    judged = no_lab.testbed("check")
    assert judged.code == 1
    assert "client -> tomcat: no reply" in judged.out
    assert "3 of 8 checks failed" in judged.out
    for word in ("nft", "firewall", "8285"):
        assert word not in judged.out, "the judge does not give the answer"
    hints = [no_lab.must("hint") for _ in range(4)]
    assert [re.findall(r"hint (\d) of 3", one)[0] for one in hints] == ["1", "2", "3", "3"]
    assert "nft list ruleset" in hints[2]
    assert "nft list ruleset" not in hints[0] + hints[1]
    again = no_lab.up("exercise/2")
    assert (again.code, ", started " in again.out) == (0, True)
    other = no_lab.up("exercise/7")
    assert (other.code, "exercise/2 is not solved yet" in other.err) == (1, True)
    graded = no_lab.json("check")
    assert (graded["lab"], graded["well"]) == (no_lab.name, False)
    assert {**graded["exercise"], "since": ""} == {
        "name": "exercise/2", "level": 1, "seed": 0, "since": "", "hints": 3,
    }  # fmt: skip
    no_lab.run("node2", "nft", "delete", "table", "ip", "company-firewall")
    assert no_lab.testbed("check").code == 0


@pytest.mark.slow
def test_a_class_is_graded_a_line_for_each_lab(tmp_path: Path) -> None:
    graded = "sudo testbed check --all"
    said = type_in(
        [
            Typed("sudo testbed up exercise/2 --seed 17 --lab anna", ()),
            Typed("sudo testbed up two_nodes --lab ben", ()),
            Typed(graded, ()),
            Typed(f"{graded} -o json", ()),
        ],
        tmp_path,
        "",
    )
    anna, ben = (line.split() for line in said[2].said.splitlines() if line.startswith(("anna", "ben")))
    assert (anna[1:3], anna[4], ben[1]) == (["exercise/2", "17"], "0", "7/7")
    passed, total = anna[3].split("/")
    assert int(passed) < int(total) == 8
    # The labs' end is reported behind it.
    lines, _ = json.JSONDecoder().raw_decode(said[3].said)
    assert [(one["lab"], one["well"], bool(one["exercise"])) for one in lines] == [
        ("anna", False, True),
        ("ben", True, False),
    ]


def test_check_holds_for_a_lab_that_nothing_broke(nginx_tomcat: Lab) -> None:
    answer: dict[str, Any] = nginx_tomcat.json("check")
    assert answer["well"] is True
    assert answer["exercise"] is None
    assert len(answer["checks"]) == 8
    out = nginx_tomcat.must("check")
    assert "all checks passed" in out
    assert "full-size packets (1472 bytes)" in out
    hint = nginx_tomcat.testbed("hint")
    assert (hint.code, "this lab has no exercise (want: sudo testbed up exercise/1)" in hint.err) == (1, True)


def test_an_unknown_exercise_is_a_usage_error() -> None:
    for words in (["exercise/nothing"], ["broken/nothing"], ["two_nodes", "--seed", "3"]):
        answer = run_verb("up", *words)
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert "exercise/" in answer.err


def test_exercises_are_listed_by_neutral_names() -> None:
    answer = run_verb("topologies")
    assert "exercise/1, exercise/2" in answer.out
    assert "broken/" not in answer.out
    assert [one["name"] for one in run_verb("topologies", "-o", "json").json["exercises"]] == list(EXERCISES)
