"""`bench scale`: labs of growing size, each brought up, measured and taken down; plain Mininet of the
same size beside.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.bench.own_lab import launch_own
from testbed.bench.scale_plan import ScalePlan, growth
from testbed.bench.session import this_machine
from testbed.cluster.generated import choose, generate
from testbed.cluster.spec import Cluster
from testbed.control.answers.bench import BenchScaleAnswer, ScaleFailure, ScaleMeasured, ScaleSize
from testbed.control.client import LabRecord, ask
from testbed.control.questions import (
    BENCH_AGENT_KILLED,
    BENCH_ETCD_RESTARTED,
    BENCH_MEMORY,
    BENCH_NEIGHBOURS,
    BENCH_PINGS,
    BENCH_PROCESSOR,
    NODE,
)
from testbed.errors import TestbedError
from testbed.host.launch import Launched
from testbed.host.up import check_capacity
from testbed.lab.clock import now

PINGS = 1000
NEW_NODE = "newcomer"
PLAIN_LIMIT_S = 900.0
IDLE_LOOK_S, IDLE_SHARE, QUIET_LOOKS, IDLE_LIMIT_S = 0.5, 0.2, 3, 60.0
SETTLE_S = 5.0
"""Work left over from a start (lists after the first watch, caches) is not load at rest."""


def run(plan: ScalePlan, report: Callable[[str], None]) -> BenchScaleAnswer:
    """Measure every size and return the result; nothing of the labs is left. Raises TestbedError, KeyboardInterrupt.

    A size that fails ends the run and is named in `failed`, unless it is the first.
    """
    # Check all of them before making the first.
    for nodes in plan.nodes:
        check_capacity(nodes, nodes * plan.pods_per_node)
    clusters = [generate(choose(None, nodes), plan.pods_per_node) for nodes in plan.nodes]
    since, started = now(), time.monotonic()
    sizes: list[ScaleSize] = []
    failed: ScaleFailure | None = None
    for cluster in clusters:
        try:
            sizes.append(_size(plan, cluster, report))
        except TestbedError as error:
            if not sizes:
                raise
            # Keep the results of smaller sizes, which may have taken half an hour.
            failed = {"nodes": len(cluster.nodes), "why": str(error).removeprefix("bench scale: ")}
            break
    machine = this_machine()
    return {
        "since": since,
        "took_s": round(time.monotonic() - started, 1),
        "machine": machine,
        "pods_per_node": plan.pods_per_node,
        "rest_seconds": plan.rest_s,
        "sizes": sizes,
        "growth": growth(sizes),
        "failed": failed,
    }


def _size(plan: ScalePlan, cluster: Cluster, report: Callable[[str], None]) -> ScaleSize:
    nodes, pods, load = len(cluster.nodes), cluster.pod_count, round(os.getloadavg()[0], 2)
    plain_s = None
    if plan.plain:
        report(f"{nodes} nodes: plain Mininet with {nodes + pods} hosts")
        await_idle()
        plain_s = plain_mininet(nodes + pods)
    report(f"{nodes} nodes: up")
    await_idle()
    started = time.monotonic()
    launched = launch_own(f"scale-{nodes}-{os.getpid()}", cluster)
    gone = False
    try:
        phases = _phases(launched)
        up_s = round(time.monotonic() - started, 2)
        measured = _measured(launched.record, plan, lambda what: report(f"{nodes} nodes: {what}"))
        report(f"{nodes} nodes: down")
        started = time.monotonic()
        launched.abandon()
        gone = True
        down_s = round(time.monotonic() - started, 2)
    finally:
        if not gone:
            launched.abandon()
    result: ScaleSize = {
        "cores_at_rest": measured["cores_at_rest"],
        "memory_kib": measured["memory_kib"],
        "pings": measured["pings"],
        "neighbours": measured["neighbours"],
        "join_s": measured["join_s"],
        "leave_s": measured["leave_s"],
        "agent_killed_s": measured["agent_killed_s"],
        "etcd_restarted": measured["etcd_restarted"],
        "nodes": nodes,
        "pods": pods,
        "load": load,
        "phases_s": phases,
        "up_s": up_s,
        "down_s": down_s,
    }
    if plain_s is not None:
        result["plain_mininet_s"] = plain_s
        result["times_plain_mininet"] = round(up_s / plain_s, 2)
    report(f"{nodes} nodes: up {up_s:.1f} s, down {down_s:.1f} s")
    return result


def _phases(launched: Launched) -> dict[str, float]:
    """Return seconds of each phase; the time before the first one is `launch`.

    Raises TestbedError if it is not ready.
    """
    found: dict[str, float] = {}
    before = 0.0
    message: dict[str, Any] = {}
    for message in launched.messages():
        if message.get("state") == "start" and not found:
            found["launch"] = before = message["seconds"]
        elif message.get("state") == "done":
            found[message["phase"]] = round(message["seconds"] - before, 2)
            before = message["seconds"]
    if "ready" not in message:
        raise TestbedError(f"bench scale: its lab did not become ready: {message.get('failed') or 'it ended'}")
    return found


def _measured(lab: LabRecord, plan: ScalePlan, report: Callable[[str], None]) -> ScaleMeasured:
    """Collect every measurement of a running lab."""
    report("at rest")
    time.sleep(SETTLE_S)
    before, started = ask(lab, BENCH_PROCESSOR)["seconds"], time.monotonic()
    time.sleep(plan.rest_s)
    cores = (ask(lab, BENCH_PROCESSOR)["seconds"] - before) / (time.monotonic() - started)
    memory = ask(lab, BENCH_MEMORY)
    report(f"{PINGS} pings")
    pings, neighbours = ask(lab, BENCH_PINGS, count=PINGS), ask(lab, BENCH_NEIGHBOURS)
    report("a node joins, a node leaves")
    join_s, leave_s = (_change_node(lab, action) for action in ("add", "delete"))
    report("an agent is killed, etcd is restarted")
    return {
        "cores_at_rest": round(cores, 3),
        "memory_kib": memory,
        "pings": pings,
        "neighbours": neighbours,
        "join_s": join_s,
        "leave_s": leave_s,
        "agent_killed_s": round(ask(lab, BENCH_AGENT_KILLED)["seconds"], 2),
        "etcd_restarted": ask(lab, BENCH_ETCD_RESTARTED),
    }


def _change_node(lab: LabRecord, action: str) -> float:
    """Return the seconds that it takes."""
    started = time.monotonic()
    ask(lab, NODE, action=action, name=NEW_NODE)
    return round(time.monotonic() - started, 2)


def await_idle() -> None:
    """Wait until this machine is mostly idle, if it ever is: the kernel takes seconds to release hundreds of
    namespaces, which must not disturb the next measurement.
    """
    deadline, quiet, before = time.monotonic() + IDLE_LIMIT_S, 0, processor_ticks()
    while quiet < QUIET_LOOKS and time.monotonic() < deadline:
        time.sleep(IDLE_LOOK_S)
        now_is = processor_ticks()
        busy, whole = now_is[0] - before[0], now_is[1] - before[1]
        quiet = quiet + 1 if busy < IDLE_SHARE * whole else 0
        before = now_is


def processor_ticks() -> tuple[int, int]:
    """Return ticks of all processors since the machine's start: busy, all (man 5 proc_stat)."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def plain_mininet(hosts: int) -> float:
    """Return the seconds that Mininet itself takes for this many hosts with a link each. Raises TestbedError."""
    inside = [sys.executable, "-P", "-m", "testbed.bench.plain_mininet", str(hosts)]
    apart = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    try:
        done = subprocess.run([*apart, *inside], capture_output=True, text=True, timeout=PLAIN_LIMIT_S, check=False)
        return float(done.stdout.strip())
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"bench scale: plain Mininet: no end after {PLAIN_LIMIT_S:g} s") from error
    except ValueError as error:
        raise TestbedError(f"bench scale: plain Mininet: {done.stderr.strip()[-300:] or 'no answer'}") from error
