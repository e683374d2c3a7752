"""A lab's answers to a test: results of commands, pings and requests, and the state of nodes and pods.

Plain values. Each prints as one readable line, so that a failed `assert` shows what was observed.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from testbed.control.answers.faults import CheckAnswer
from testbed.control.answers.lab import NodeStatus, PingAnswer, PodLine
from testbed.control.answers.trace import TraceAnswer

SHOWN = 2000
"""Characters of each stream in a failure's text."""
SEPARATOR = "\x1e"
"""ASCII's record separator, which no message of curl and no header contains."""
CURL_REPORT = f"%{{stderr}}{SEPARATOR}%{{json}}{SEPARATOR}%{{header_json}}"
"""curl's --write-out: after its own messages, transfer data and the response's headers."""


class CommandFailed(AssertionError):
    """A command that had to succeed failed; the text has all its output."""


@dataclass(frozen=True, slots=True)
class Result:
    """A command's output in a pod or on a node, and its exit code."""

    target: str
    argv: tuple[str, ...]
    stdout: str
    stderr: str
    exit_code: int
    """128 + the signal's number if a signal ended it."""

    def check(self) -> str:
        """Return standard output. Raises CommandFailed unless the exit code is 0."""
        if self.exit_code != 0:
            raise CommandFailed(
                f"{self.target}: {shlex.join(self.argv)}: exit code {self.exit_code}\n"
                f"stdout: {self.stdout[-SHOWN:]}\nstderr: {self.stderr[-SHOWN:]}"
            )
        return self.stdout


@dataclass(frozen=True, slots=True)
class Ping:
    """Replies to ICMP echo requests from one pod or node to another."""

    source: str
    destination: str
    address: str
    sent: int
    received: int
    ttl: int | None
    """TTL of the last reply."""
    rtt_ms: tuple[float, ...]
    error: str | None
    """The last ICMP error in words, with its sender."""
    skipped: str | None
    """Why missing replies are not lost: a pod was terminated meanwhile; None if they count."""

    @property
    def lost(self) -> int:
        """Return how many requests should have got a reply and did not."""
        return 0 if self.skipped else self.sent - self.received

    @classmethod
    def from_json(cls, pair: PingAnswer) -> "Ping":
        """Parse one entry of `testbed ping -o json`."""
        return cls(
            source=pair["source"],
            destination=pair["destination"],
            address=pair["address"],
            sent=pair["sent"],
            received=pair["received"],
            ttl=pair["ttl"],
            rtt_ms=tuple(pair["rtt_ms"]),
            error=pair["error"],
            skipped=pair["skipped"],
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """The path of one real packet, as `testbed trace` shows it."""

    source: str
    destination: str
    outcome: str
    """answered, refused, unreachable, lost, unanswered, reply lost, data lost or not sent."""
    lost_at: str | None
    """The last place that saw it, e.g. `node2 uplink`; None if nothing was lost."""
    reasons: tuple[str, ...]
    """Reasons, one line each."""
    path: tuple[str, ...]
    """Every place that saw it, in order: `client eth0`, `node1 flannel0` …; for the request, then for the reply."""
    answer: TraceAnswer = field(repr=False)
    """The full answer of `testbed trace -o json`."""

    @property
    def answered(self) -> bool:
        """Return whether a reply came back."""
        return self.outcome == "answered"

    @classmethod
    def from_json(cls, source: str, destination: str, answer: TraceAnswer) -> "Trace":
        """Parse `testbed trace -o json`."""
        lost_at = answer["lost_at"]
        return cls(
            source=source,
            destination=destination,
            outcome=answer["outcome"],
            lost_at=None if lost_at is None else lost_at["where"],
            reasons=tuple(answer["reasons"]),
            path=tuple(hop["where"] for hop in answer["hops"]),
            answer=answer,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """The result of `testbed check`."""

    well: bool
    """Whether all checks passed."""
    problems: Mapping[str, tuple[str, ...]]
    """The failed checks, and the problems of each."""

    @classmethod
    def from_json(cls, answer: CheckAnswer) -> "Check":
        """Parse `testbed check -o json`."""
        failed = {one["check"]: tuple(one["wrong"]) for one in answer["checks"] if not one["holds"]}
        return cls(answer["well"], failed)


@dataclass(frozen=True, slots=True)
class Response:
    """The response to an HTTP request; status 0 with `error` if there was none."""

    url: str
    status: int
    body: str
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case; values of repeated headers joined by commas."""
    error: str | None
    """curl's own message."""
    remote_address: str | None
    local_address: str | None
    time_s: float


def response_of(url: str, result: Result) -> Response:
    """Parse curl's output with CURL_REPORT. Without a report (curl itself could not run) `error` has its message."""
    messages, *report = result.stderr.split(SEPARATOR)
    said = messages.strip() or None
    if len(report) != 2:
        return Response(url, 0, result.stdout, {}, said or f"curl ended with {result.exit_code}", None, None, 0.0)
    facts = json.loads(report[0])
    headers = {name.lower(): ", ".join(values) for name, values in json.loads(report[1]).items()}
    return Response(
        url=url,
        status=facts["http_code"],
        body=result.stdout,
        headers=headers,
        error=None if result.exit_code == 0 else said or facts["errormsg"],
        remote_address=facts["remote_ip"] or None,
        local_address=facts["local_ip"] or None,
        time_s=facts["time_total"],
    )


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node at the time of the query."""

    name: str
    address: str
    subnet: str | None
    agent_state: str
    """ready, not ready, fenced, starting, backoff, by hand …"""
    agent_pid: int | None
    """In the lab's PID namespace."""
    agent_restarts: int
    peers_known: int
    peers_expected: int
    backend: str
    device: str | None
    """The overlay's device; None where packets leave by the uplink itself."""

    @classmethod
    def from_json(cls, node: NodeStatus) -> "NodeSeen":
        """Parse a node's part of `testbed status -o json`."""
        agent, peers = node["agent"], node["peers"]
        return cls(
            name=node["name"],
            address=node["address"],
            subnet=node["subnet"],
            agent_state=agent["state"],
            agent_pid=agent["pid"],
            agent_restarts=agent["restarts"],
            peers_known=peers["known"],
            peers_expected=peers["expected"],
            backend=node["backend"],
            device=node["device"],
        )


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod at the time of the query."""

    name: str
    node: str
    address: str | None
    state: str
    """As kubectl shows it: Running, CrashLoopBackOff …"""
    ready: bool
    restarts: int

    @classmethod
    def from_json(cls, pod: PodLine) -> "PodSeen":
        """Parse a pod's part of `testbed status -o json`."""
        return cls(
            name=pod["name"],
            node=pod["node"],
            address=pod["address"],
            state=pod["state"],
            ready=pod["ready"],
            restarts=pod["restarts"],
        )
