"""Measurements inside a lab for `bench scale`: memory, processor time, neighbours, pings, recovery times.

Everything is read in the lab's own /proc: its PID namespace holds exactly its processes.
"""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

from agent.errors import AgentError
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.lease import LeaseAttrs, Subnet
from testbed.control.answers.bench import (
    EtcdRestartAnswer,
    ManyPingsAnswer,
    MemoryAnswer,
    NeighboursAnswer,
    SecondsAnswer,
)
from testbed.control.questions import (
    BENCH_AGENT_KILLED,
    BENCH_ETCD_RESTARTED,
    BENCH_MEMORY,
    BENCH_NEIGHBOURS,
    BENCH_PINGS,
    BENCH_PROCESSOR,
    AnswerT,
    Question,
)
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import TestbedError
from testbed.lab.node import LabNode
from testbed.lab.ping import PairResult, PingSender, PingTarget, ping_pairs
from testbed.lab.state import LabState

ASKERS = 8
LIMIT_S = 60.0
LOOK_S = 0.05
WATCHED_PAIRS = 20
"""Pinged ten times a second while etcd is down."""
PAIRS_AT_ONCE = 200
MARKER_ADDRESS = IPv4Address("203.0.113.1")
"""No node's address (RFC 5737): its lease shows whether the watches are back."""


def scale_verbs(state: LabState) -> Sequence[AnyVerb]:
    """Return the verbs."""
    verbs = ScaleVerbs(state)
    return (
        _verb(BENCH_MEMORY, verbs.memory),
        _verb(BENCH_PROCESSOR, lambda _: {"seconds": processor_seconds()}),
        _verb(BENCH_NEIGHBOURS, verbs.neighbours),
        _verb(BENCH_PINGS, verbs.pings),
        _verb(BENCH_AGENT_KILLED, verbs.agent_killed),
        _verb(BENCH_ETCD_RESTARTED, verbs.etcd_restarted),
    )


def _verb(question: Question[AnswerT], answer: Callable[[Request], AnswerT]) -> Verb[AnswerT]:
    def run(request: Request) -> AnswerT:
        what = question.name.removeprefix("bench_").replace("_", " ")
        try:
            return answer(request)
        except TestbedError as failure:
            raise failure.within(f"bench scale: {what}") from failure
        except (AgentError, OSError) as failure:
            raise TestbedError(f"bench scale: {what}: {failure}") from failure

    return Verb(question, run)


class ScaleVerbs:
    """One method per question."""

    def __init__(self, state: LabState) -> None:
        self._state = state

    def memory(self, _request: Request) -> MemoryAnswer:
        """Return proportional set sizes in KiB: each process gets its share of shared memory."""
        state = self._state
        agents = [node.agent.pid for node in state.nodes.values() if node.agent.pid is not None]
        pauses = [pod.pause_pid for pod in state.pods if pod.pause_pid is not None]
        return {
            "agents": pss_kib(agents),
            "pauses": pss_kib(pauses),
            "machines": pss_kib([machine.pid for machine in state.underlay.machines.values()]),
            "init": pss_kib([os.getpid()]),
            "etcd": pss_kib(
                [member.process.pid for member in state.registry.etcd.members if member.process.pid is not None]
            ),
            "everything": pss_kib(all_processes()),
            "threads": threading.active_count(),
        }

    def neighbours(self, _request: Request) -> NeighboursAnswer:
        """Count neighbour entries that the kernel may evict, and permanent ones, in all namespaces of the lab."""
        pids = [machine.pid for machine in self._state.underlay.machines.values()]
        pids += [pod.pause_pid for pod in self._state.pods if pod.pause_pid is not None]
        counts = [_count_neighbours(pid) for pid in pids]
        return {"collectable": sum(one[0] for one in counts), "permanent": sum(one[1] for one in counts)}

    def pings(self, request: Request) -> ManyPingsAnswer:
        """Send one ping for each of `count` random pairs of pods, some at a time."""
        count, seed = request.argument("count", int, 1000), request.argument("seed", int, 1)
        pairs = self._some_pairs(count, random.Random(seed))
        results: list[PairResult] = []
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            results += ping_pairs(pairs[start : start + PAIRS_AT_ONCE], 1)
        lost = [f"{one.source} to {one.destination}: {one.error or 'no answer'}" for one in results if not one.received]
        return {"sent": len(results), "lost": len(lost), "which": lost[:10]}

    def agent_killed(self, _request: Request) -> SecondsAnswer:
        """Return the seconds from a kill -9 of an agent until a new one has all peers."""
        node = next(node for node in self._state.nodes.values() if node.runs_our_agent and node.expected)
        before, started = node.agent.restarts, time.monotonic()
        node.agent.kill()
        peers = len(self._state.nodes) - 1

        def back() -> bool:
            state = node.state() if node.agent.restarts > before else None
            return state is not None and state["ready"] and len(state["forwarding"]) == peers

        _await(back, "the agent is not back")
        return {"seconds": time.monotonic() - started}

    def etcd_restarted(self, _request: Request) -> EtcdRestartAnswer:
        """Return the seconds until etcd answers again, and until a new lease is in every node's table;
        ping meanwhile.
        """
        etcd = self._state.registry.etcd
        marker = self._free_subnet()
        key = self._state.registry.key_of(Subnet(marker))
        stop, pings = threading.Event(), [0, 0]
        watcher = threading.Thread(target=self._ping_until, args=(stop, pings), daemon=True)
        watcher.start()
        started = time.monotonic()
        for member in etcd.members:
            member.process.restart()
        _await(lambda: all(member.healthy() for member in etcd.members), "etcd does not answer")
        answers_s = time.monotonic() - started
        etcd.put(key, LeaseAttrs(public_ip=MARKER_ADDRESS).to_json().encode())
        self._await_everywhere(str(marker), there=True)
        watches_s = time.monotonic() - started
        etcd.delete(key)
        self._await_everywhere(str(marker), there=False)
        stop.set()
        watcher.join()
        return {"answers_s": answers_s, "watches_s": watches_s, "pings_sent": pings[0], "pings_lost": pings[1]}

    def _ping_until(self, stop: threading.Event, counts: list[int]) -> None:
        pairs = self._some_pairs(WATCHED_PAIRS, random.Random(2))
        while not stop.wait(0.1) and pairs:
            results = ping_pairs(pairs, 1)
            counts[0] += sum(one.sent for one in results)
            counts[1] += sum(one.sent - one.received for one in results)

    def _some_pairs(self, count: int, chance: random.Random) -> list[tuple[PingSender, PingTarget]]:
        pods = [pod for pod in self._state.pods if pod.pause_pid is not None and pod.address is not None]
        if len(pods) < 2:
            return []
        chosen = [chance.sample(pods, 2) for _ in range(count)]
        return [
            (PingSender(one.name, one.pause_pid or 0), PingTarget(other.name, IPv4Address(other.address or "")))
            for one, other in chosen
        ]

    def _free_subnet(self) -> IPv4Network:
        taken = {lease.subnet.ipv4 for lease in self._state.registry.leases()}
        network = self._state.network
        return next(one for one in network.network.subnets(new_prefix=network.subnet_len) if one not in taken)

    def _await_everywhere(self, subnet: str, *, there: bool) -> None:
        left = [node for node in self._state.nodes.values() if node.expected and node.runs_our_agent]
        deadline = time.monotonic() + LIMIT_S
        with ThreadPoolExecutor(ASKERS) as askers:
            while left:
                found = list(askers.map(lambda node: _knows(node, subnet), left))
                left = [node for node, knows in zip(left, found, strict=True) if knows is not there]
                if left and time.monotonic() > deadline:
                    raise TestbedError(f"bench scale: {len(left)} nodes did not follow etcd within {LIMIT_S:g} s")
                time.sleep(LOOK_S)


def _knows(node: LabNode, subnet: str) -> bool | None:
    state = node.state()
    return None if state is None else any(entry["subnet"] == subnet for entry in state["forwarding"])


def _await(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"bench scale: {failure} after {LIMIT_S:g} s")
        time.sleep(LOOK_S)


def all_processes() -> list[int]:
    """List every process of the lab."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def pss_kib(pids: Iterable[int]) -> int:
    """Return the sum of their proportional set sizes in KiB; ended processes count nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def processor_seconds() -> float:
    """Return the processor time of the lab's processes so far, including children that they have waited for."""
    ticks = 0
    for pid in all_processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # Fields 14 to 17 (man 5 proc), counted after the name, which may contain spaces.
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _count_neighbours(pid: int) -> tuple[int, int]:
    """Count (collectable, permanent) entries of a process's network namespace."""
    with Kernel(SilentJournal(), pid) as kernel:
        return kernel.count_neighbours()
