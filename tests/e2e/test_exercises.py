"""The broken labs: each shows its symptom, stays broken, and is well again after the repair that a student makes."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.control.questions import EXERCISE
from testbed.exercises.catalogue import EXERCISES
from testbed.pytest_plugin import NewLab
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab
from tests.waiting import wait_until

STAYS_S = 8.0
"""Longer than an agent takes to mend what it can, its slow checks (5 s) included."""


@pytest.fixture(scope="module")
def lab(new_lab: NewLab) -> Iterator[Lab]:
    """One lab for all: who has solved an exercise may begin the next."""
    with new_lab("nginx_tomcat") as handle:
        yield Lab(handle.name)


def wrong(lab: Lab) -> dict[str, list[str]]:
    return {one["check"]: one["wrong"] for one in lab.json("check")["checks"] if not one["holds"]}


def in_the_lab(lab: Lab, script: str) -> str:
    return lab.must("shell", stdin=script)


def end_the_squatter(lab: Lab) -> None:
    log = lab.must("logs", "node2", "--tail", "20")
    assert "already in use by" in log
    (pid,) = set(re.findall(r"already in use by \S+ \(pid (\d+)\)", log))
    lab.run("node2", "kill", pid)


def give_the_route_back(lab: Lab) -> None:
    assert "default" not in in_the_lab(lab, "ip netns exec tomcat ip route")
    in_the_lab(lab, "ip netns exec tomcat ip route add default via 10.0.90.1")


def open_the_way_to_etcd(lab: Lab) -> None:
    assert "blackhole 192.168.8.11" in lab.run("node2", "ip", "route")
    lab.run("node2", "ip", "route", "delete", "blackhole", "192.168.8.11")


def wake_the_agent(lab: Lab) -> None:
    assert "state DOWN" in lab.run("node2", "ip", "link", "show", "docker0")
    pid = lab.node("node2")["agent"]["pid"]
    assert lab.run("node2", "ps", "-o", "stat=", str(pid)).startswith("T")
    lab.run("node2", "kill", "-CONT", str(pid))


def take_the_firewall_away(lab: Lab) -> None:
    assert re.search(r"udp dport 8285 counter packets [1-9]\d* .*drop", lab.run("node2", "nft", "list", "ruleset"))
    lab.run("node2", "nft", "delete", "table", "ip", "company-firewall")


def raise_the_mtu(lab: Lab) -> None:
    assert "mtu 1400" in in_the_lab(lab, "ip link show s1-eth2")
    in_the_lab(lab, "ip link set s1-eth2 mtu 1500")


BETWEEN = {"nginx -> tomcat", "client -> tomcat", "tomcat -> nginx", "tomcat -> client"}
SOLUTIONS: dict[str, tuple[Callable[[Lab], None], set[str]]] = {
    "agent-killed": (end_the_squatter, {"agents", "forwarding tables", "routes", "small", "full"}),
    "route-deleted": (give_the_route_back, {"small", "full"}),
    "lease-revoked": (open_the_way_to_etcd, {"leases", "forwarding tables", "small", "full"}),
    "docker0-down": (wake_the_agent, {"agents", "forwarding tables", "routes", "small", "full"}),
    "nft-drop": (take_the_firewall_away, {"small", "full"}),
    "mtu-lowered": (raise_the_mtu, {"full"}),
}


TRACED = {
    "agent-killed": ("node2 uplink", "the agent of node2 does not answer: it does not run, and metrics-daemon (pid"),
    "route-deleted": ("tomcat eth0", "tomcat cannot answer: it has no route to 10.0.46.3"),
    "lease-revoked": ("node1 flannel0", "no node holds a lease for the destination"),
    "docker0-down": ("node2 uplink", "docker0 of node2 is down"),
    "nft-drop": ("node2 uplink", "a packet filter of node2 drops it: table ip company-firewall"),
    "mtu-lowered": ("s1 s1-eth1", "1496 bytes do not fit through s1's port s1-eth2 (MTU 1400)"),
}
"""Where a trace from client to tomcat ends, and what it says of that place."""


def trace_names_place_and_reason(name: str, lab: Lab) -> None:
    size = ("--size", "1472") if name == "mtu-lowered" else ()
    out = lab.testbed("trace", "client", "tomcat", *size, "-o", "json").json
    where, reason = TRACED[name]
    assert out["lost_at"]["where"] == where
    assert any(reason in said for said in out["reasons"]), out["reasons"]


def found(problems: dict[str, list[str]]) -> set[str]:
    """The checks, by the words of SOLUTIONS."""
    return {next((word for word in ("small", "full") if word in check), check) for check in problems}


def solve(name: str, lab: Lab) -> None:
    repair, symptoms = SOLUTIONS[name]
    problems = wrong(lab)
    until = time.monotonic() + STAYS_S
    while time.monotonic() < until:
        problems = wrong(lab)
        assert problems, "it mended itself"
    # The agent says whether it is ready only now and then while it is about to fail: what must be seen is seen.
    assert found(problems) <= symptoms | {"leases", "agents"}, problems
    assert {"full"} <= found(problems)
    pairs = {line.partition(":")[0] for check, lines in problems.items() if "full" in check for line in lines}
    assert pairs <= BETWEEN
    assert pairs
    trace_names_place_and_reason(name, lab)
    repair(lab)
    wait_until(lambda: not wrong(lab), timeout_s=40, what=f"{name} is solved")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SOLUTIONS))
def test_exercise_stays_broken_until_it_is_repaired_by_ordinary_commands(name: str, lab: Lab) -> None:
    wait_until(lambda: not wrong(lab), timeout_s=20, what="all is well before")
    answer = lab.handle.ask(EXERCISE, {"name": name}, timeout_s=60)
    assert answer["begun"] is True
    solve(name, lab)


def test_every_exercise_has_its_solution_here() -> None:
    assert set(SOLUTIONS) == set(TRACED) == set(EXERCISES)


@pytest.mark.slow
def test_up_broken_tells_the_symptom_and_the_judge_says_when_it_is_solved(no_lab: Lab) -> None:
    answer = no_lab.up("broken/nft-drop")
    assert answer.code == 0, answer
    assert EXERCISES["nft-drop"].symptom in answer.out
    assert answer.out.rstrip().splitlines()[-1].startswith("  sudo testbed check")
    judged = no_lab.testbed("check")
    assert judged.code == 1
    assert "client -> tomcat: no answer" in judged.out
    assert "not well yet" in judged.out
    for word in ("nft", "firewall", "8285"):
        assert word not in judged.out, "the judge does not give the answer"
    again = no_lab.up("broken/nft-drop")
    assert (again.code, "on since" in again.out) == (0, True)
    other = no_lab.up("broken/mtu-lowered")
    assert (other.code, "nft-drop is not solved yet" in other.err) == (1, True)
    take_the_firewall_away(no_lab)
    assert no_lab.testbed("check").code == 0


def test_check_holds_for_a_lab_that_nobody_broke(nginx_tomcat: Lab) -> None:
    answer: dict[str, Any] = nginx_tomcat.json("check")
    assert answer["well"] is True
    assert len(answer["checks"]) == 6
    out = nginx_tomcat.must("check")
    assert "all is well" in out
    assert "full-size packets (1472 bytes)" in out


def test_an_unknown_exercise_is_a_usage_error() -> None:
    answer = run_verb("up", "broken/nothing")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "broken/agent-killed" in answer.err


def test_exercises_are_listed() -> None:
    assert {one["name"] for one in run_verb("topologies", "-o", "json").json["exercises"]} == {
        f"broken/{name}" for name in EXERCISES
    }
