"""Invariants of every healthy lab, whatever was done to it before: I1 to I5."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.control.questions import RESOURCES
from testbed.testing.lab_handle import LabHandle

MAY_GROW = {"agent RSS kB", "agent CPU ticks"}
NEEDED = {"links", "routes", "nftables tables", "nftables rules", "network namespaces", "agent descriptors"}
"""Of the last, an agent with fewer is not connected to etcd: the next trial must not start in that state."""
SLACK = {"agent descriptors": 3, "agent threads": 4, "zombies": 2}
"""Health requests in progress, threads that grpc starts at will, processes that are just ending."""
BAD_LINE = re.compile(r"Traceback|Error:|CRITICAL|Exception in thread")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The state of a lab before anything was done to it."""

    resources: Mapping[str, int]
    log_sizes: Mapping[str, int]
    subnets: Mapping[str, str | None]

    @classmethod
    def of(cls, lab: LabHandle) -> "Baseline":
        """Return the current state."""
        nodes = lab.nodes
        logs = {name: len(lab.logs(name)) for name in nodes}
        return cls(lab.ask(RESOURCES), logs, {name: node.subnet for name, node in nodes.items()})


def broken(lab: LabHandle, before: Baseline, *, keeps_subnets: bool = True, expected: str = "(?!)") -> list[str]:
    """Return every broken invariant, one line each. `expected` matches lines of agents that are no surprise."""
    nodes, leases = lab.nodes, lab.get("leases")
    problems = []
    for name, node in nodes.items():
        if keeps_subnets and node.subnet != before.subnets[name]:
            problems.append(f"{name} has {node.subnet} and had {before.subnets[name]}")
    problems += _leases(leases, {node.address: name for name, node in nodes.items()})
    states = {name: lab.agent(name).state() for name in nodes}
    problems += _renewed(states)
    problems += _forwarding(lab, leases, states)
    problems += _resources(lab.ask(RESOURCES), before.resources)
    for name in nodes:
        for line in lab.logs(name)[before.log_sizes[name] :].splitlines():
            if BAD_LINE.search(line) and not re.search(expected, line):
                problems.append(f"I5: the agent of {name} logged: {line}")
    return problems


def _leases(leases: Sequence[Any], names: Mapping[str, str]) -> list[str]:
    """Check I1: one key for each node, with a lease, and no subnet twice."""
    owners: dict[str, list[str]] = {}
    for lease in leases:
        owners.setdefault(lease["spec"]["publicIP"], []).append(lease["spec"]["subnet"])
    subnets = [lease["spec"]["subnet"] for lease in leases]
    problems = [f"I1: {subnet} is listed twice" for subnet in set(subnets) if subnets.count(subnet) > 1]
    for address, name in names.items():
        if len(owners.get(address, [])) != 1:
            problems.append(f"I1: {name} has the keys {owners.get(address, [])} in etcd (want one)")
    return problems


def _renewed(states: Mapping[str, dict[str, Any]]) -> list[str]:
    """Check I1: every lease was renewed recently; another may expire in the middle of the next trial."""
    problems = []
    for name, state in states.items():
        lease = state["lease"] or {}
        left_s = lease.get("seconds_left")
        if left_s is not None and left_s < lease["ttl_s"] / 3:
            problems.append(f"I1: the lease of {name} has {left_s} of {lease['ttl_s']} s left (want a third or more)")
    return problems


def _forwarding(lab: LabHandle, leases: Sequence[Any], states: Mapping[str, dict[str, Any]]) -> list[str]:
    """Check I2: every node's table equals etcd's leases without its own."""
    problems = []
    for name, node in lab.nodes.items():
        known = {entry["subnet"]: entry["via"].partition(":")[0] for entry in states[name]["forwarding"]}
        wanted = {
            lease["spec"]["subnet"]: lease["spec"]["publicIP"]
            for lease in leases
            if lease["spec"]["publicIP"] != node.address
        }
        if known != wanted:
            problems.append(f"I2: {name} forwards by {known} (want {wanted})")
    return problems


def kind_of(resource: str) -> str:
    """Return the kind of resource without its owner: `node1 links` → `links`."""
    return re.sub(r"^\S*\d ", "", resource)


def _resources(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """Check I4: no resource has grown, and a node has what it needs."""
    problems = []
    for what, count in before.items():
        if (kind := kind_of(what)) in NEEDED and now.get(what, 0) < count - SLACK.get(kind, 0):
            problems.append(f"I4: {what}: {now.get(what, 0)}, and were {count}")
    for what, count in now.items():
        kind = kind_of(what)
        if kind not in MAY_GROW and count > before.get(what, count) + SLACK.get(kind, 0):
            problems.append(f"I4: {what}: {count}, and were {before[what]}")
    return problems
