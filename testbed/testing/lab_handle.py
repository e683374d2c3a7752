"""A running lab for a test: commands, pings, requests, agents and objects, over the lab's control socket.

    lab = find("my-lab")                                  # any lab that runs; pytest's fixture `lab` gives the same
    lab.ping("client", "tomcat").lost == 0
    lab.curl("client", "http://10.0.90.2:8080/").status == 200
    lab.exec("node1", "ip", "route").check()              # standard output, or CommandFailed with all output

Every method raises TestbedError if the lab has no such pod or does not answer.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from testbed.cluster.kinds import BY_WORD
from testbed.control.answers.faults import FaultAnswer
from testbed.control.answers.lab import (
    ChangedObject,
    Description,
    EndedAnswer,
    EventLine,
    NodeAnswer,
    StatusAnswer,
)
from testbed.control.client import LabRecord, NoAnswer, ask, ask_with_contents, find_lab
from testbed.control.questions import (
    APPLY,
    CHECK,
    DELETE,
    DESCRIBE,
    ETCDCTL,
    EVENTS,
    EXEC,
    FAULT,
    FAULTS,
    GET,
    HEAL,
    LOGS,
    NODE,
    PING,
    RESTART,
    SCALE,
    SHELL,
    STATUS,
    TRACE,
    AnswerT,
    Question,
)
from testbed.errors import InvalidInput, TestbedError
from testbed.faults.catalogue import HEAL_LIMIT_S
from testbed.testing.lab_answers import (
    CURL_REPORT,
    Check,
    NodeSeen,
    Ping,
    PodSeen,
    Response,
    Result,
    Trace,
    response_of,
)
from testbed.testing.point_capture import PointCapture
from testbed.testing.waiting import wait_until
from testbed.trace.arguments import arguments_of

T = TypeVar("T")
Manifests = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]

ANSWER_LIMIT_S = 30.0
EXEC_LIMIT_S = 60.0
CURL_LIMIT_S = 10.0
CHANGE_LIMIT_S = 60.0
"""For objects and nodes to reach the requested state."""
FAULT_LIMIT_S = 120.0
"""The slowest injection is that of `etcd quota`: two starts of a member and two looks at its alarm, 20 s each."""
PING_TIMEOUT_S = 1.2  # seconds per request, pauses included: what the lab itself waits
HEALTH = "http://127.0.0.1:8286"
"""URL at which each agent answers, on its own node."""
SHOWN = 500

Arguments = Mapping[str, object]
NOTHING: Arguments = MappingProxyType({})


class Command(NamedTuple):
    """A program's name in results and messages."""

    target: str
    argv: tuple[str, ...]


class LabHandle:
    """A running lab. Cheap to create, holds nothing open, may be used by several threads."""

    def __init__(self, record: LabRecord) -> None:
        self.record = record
        self.requests = 0
        """Number of requests through this handle."""

    def __repr__(self) -> str:
        return f"LabHandle({self.name!r})"

    @property
    def name(self) -> str:
        """Return the lab's name, for `--lab`."""
        return self.record.name

    @property
    def alive(self) -> bool:
        """Return whether the lab runs."""
        return self.record.alive

    def ask(
        self,
        question: Question[AnswerT],
        arguments: Arguments = NOTHING,
        descriptors: tuple[int, ...] = (),
        timeout_s: float = ANSWER_LIMIT_S,
    ) -> AnswerT:
        """Call any verb of the control socket. Raises TestbedError; NoAnswer after `timeout_s` seconds."""
        self.requests += 1
        return ask(self.record, question, descriptors, answer_within_s=timeout_s, **arguments)

    def exec(
        self,
        target: str,
        *argv: str,
        container: str | None = None,
        input: str | None = None,
        timeout_s: float = EXEC_LIMIT_S,
    ) -> Result:
        """Run a command in a pod (its first container, if none is named) or on a node, with `input` on its standard
        input.

        Raises NoAnswer with its output so far after `timeout_s` seconds, and ends the command.
        """
        arguments = {"name": target, "container": container, "argv": list(argv)}
        return self._run(EXEC, arguments, Command(target, argv), input=input, timeout_s=timeout_s)

    def script(self, text: str, target: str | None = None, timeout_s: float = EXEC_LIMIT_S) -> Result:
        """Run shell commands on a node or in a pod, or (without a target) in the lab's own namespaces.

        Those contain the switches, and `ip netns exec NAME …` works there for every node and pod.
        """
        command = Command(target or "lab", ("bash", text))
        return self._run(SHELL, {"name": target}, command, input=text, timeout_s=timeout_s)

    def ping(self, source: str, destination: str, count: int = 1) -> Ping:
        """Ping a pod, a node or an address from a pod or a node; each request has a second for its reply."""
        return self._pings({"source": source, "destination": destination, "count": count}, count)[0]

    def ping_all(self, count: int = 1) -> list[Ping]:
        """Ping every pod from every other pod."""
        return self._pings({"count": count}, count)

    def curl(
        self,
        source: str,
        url: str,
        *options: str,
        container: str | None = None,
        timeout_s: float = CURL_LIMIT_S,
    ) -> Response:
        """Request a URL with the real curl in a pod or on a node; `options` are curl's own.

        A failure (refused, unreachable, too late) is a Response with status 0 and an error, so tests can wait for
        success.
        """
        words = ["--silent", "--show-error", "--max-time", f"{timeout_s:g}", "--write-out", CURL_REPORT, *options, url]
        return response_of(url, self.exec(source, "curl", *words, container=container, timeout_s=timeout_s + 5))

    def wait_until(self, condition: Callable[[], T], timeout_s: float, what: str = "") -> T:
        """Return the condition's first true value. Raises NotInTime with `what` and the last value."""
        return wait_until(condition, timeout_s, what)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until the lab's state is "ready". Raises NotInTime with the last state of nodes and pods."""

        def ready() -> bool:
            status = self.status()
            seen = f"{status['state']}; {', '.join(map(str, [*self.nodes.values(), *self.pods.values()]))}"
            assert status["state"] == "ready", seen
            return True

        wait_until(ready, timeout_s, f"lab {self.name} is ready")

    def trace(
        self,
        source: str,
        destination: str,
        protocol: str | None = None,
        *,
        ipv6: bool = False,
        size: int | None = None,
        timeout_s: float = 1.0,
    ) -> Trace:
        """Send one real packet and follow it: `lab.trace("client", "tomcat:8080")` by TCP, without a port by ICMP.

        `protocol` is tcp, udp or icmp.
        """
        arguments = arguments_of(source, destination, protocol) | {"ipv6": ipv6, "size": size, "timeout_s": timeout_s}
        return Trace.from_json(source, destination, self.ask(TRACE, arguments, timeout_s=ANSWER_LIMIT_S + timeout_s))

    def check(self) -> Check:
        """Check agents, leases, routes, every pair of pods, Services and names, as `testbed check` does."""
        return Check.from_json(self.ask(CHECK))

    @contextmanager
    def capture(self, *points: str, filter: str = "", file: Path | None = None) -> Iterator[PointCapture]:
        """Capture at points while the block runs: `with lab.capture("node1:uplink", filter="icmp") as seen:`.

        Points and filter are those of `testbed capture`. After the block, `seen.lines` has a line for each packet; with
        a `file`, that has them as pcapng instead.
        """
        self.requests += 1
        capture = PointCapture(self.record, [*points, *filter.split()], file)
        try:
            capture.start()
            yield capture
        finally:
            capture.close()

    def apply(self, manifests: Manifests, wait_s: float | None = CHANGE_LIMIT_S) -> Mapping[str, str]:
        """Create or change objects as `testbed apply` does, and wait until they are ready; with None, do not wait.

        Takes YAML text, the Path of a file, or objects as a dict or a list of dicts; returns `kind/name` → outcome.
        """
        self.requests += 1
        name = str(manifests) if isinstance(manifests, Path) else "manifests"
        answer = ask_with_contents(self.record, APPLY, {name: _manifest_bytes(manifests)}, wait_s=wait_s)
        return _outcomes(answer["objects"])

    def delete(self, *names: str, grace_s: float | None = None) -> Mapping[str, str]:
        """Remove objects by `kind/name` (`pod/web`), and return once they are gone. Raises TestbedError."""
        outcomes: dict[str, str] = {}
        for name in names:
            kind, slash, rest = name.partition("/")
            if not slash or kind not in BY_WORD:
                raise InvalidInput(f"delete: not an object (got {name}; want KIND/NAME, e.g. pod/web)")
            arguments = {"kind": BY_WORD[kind].name, "names": [rest], "grace_s": grace_s}
            answer = self.ask(DELETE, arguments, timeout_s=CHANGE_LIMIT_S)
            if answer["missing"]:
                raise TestbedError("\n".join(answer["missing"]))
            outcomes |= _outcomes(answer["objects"])
        return outcomes

    def scale(self, deployment: str, replicas: int, wait_s: float | None = CHANGE_LIMIT_S) -> None:
        """Set a Deployment's number of pods, and wait until they are ready; with None, do not wait."""
        arguments = {"name": deployment, "replicas": replicas, "wait_s": wait_s}
        self.ask(SCALE, arguments, timeout_s=ANSWER_LIMIT_S + (wait_s or 0))

    def add_node(self, name: str, ip: str | None = None, switch: str | None = None) -> NodeSeen:
        """Add a machine with an agent, and return once every node knows its subnet."""
        self._change_node("add", name, ip=ip, switch=switch)
        return self.nodes[name]

    def drain_node(self, name: str, limit_s: float = CHANGE_LIMIT_S) -> Sequence[str]:
        """Move a node's pods of Deployments to other nodes, and accept no new ones; return the pods that stay."""
        return self._change_node("drain", name, limit_s=limit_s).get("stay", [])

    def uncordon_node(self, name: str) -> None:
        """Let a drained node accept new pods again."""
        self._change_node("uncordon", name)

    def delete_node(self, name: str, limit_s: float = CHANGE_LIMIT_S) -> Sequence[str]:
        """Drain a node and remove the machine and its lease; return the pods that were deleted with it."""
        return self._change_node("delete", name, limit_s=limit_s).get("lost", [])

    def _change_node(self, action: str, name: str, **arguments: object) -> NodeAnswer:
        asked = {"action": action, "name": name, **arguments}
        return self.ask(NODE, asked, timeout_s=ANSWER_LIMIT_S + CHANGE_LIMIT_S)

    def status(self) -> StatusAnswer:
        """Return the data of `testbed status -o json`."""
        return {**self.ask(STATUS), "pid": self.record.pid}

    def get(self, kind: str, name: str | None = None) -> Sequence[Any]:
        """Return Kubernetes-shaped objects: nodes, pods, services, leases, routes; all of a kind, or the named one.

        All are those of every namespace; a name outside the default one is `NAMESPACE/NAME`.
        """
        return self.ask(GET, {"kind": kind, "name": name})

    def describe(self, kind: str, name: str) -> Description:
        """Return everything about one of `nodes` or `pods`, as headings and values."""
        return self.ask(DESCRIBE, {"kind": kind, "name": name})

    def events(self) -> Sequence[EventLine]:
        """Return the lab's events, oldest first: at, type, object, reason, message."""
        return self.ask(EVENTS)

    def logs(self, name: str, container: str | None = None) -> str:
        """Return the log of a pod, a node's agent, an etcd member (`etcd1`) or the lab itself (`lab`)."""
        return self._run(LOGS, {"name": name, "container": container}, Command(name, ("logs",))).check()

    def etcdctl(self, *argv: str) -> Result:
        """Run the real etcdctl on the lab's etcd."""
        return self._run(ETCDCTL, {"argv": list(argv)}, Command("etcd", ("etcdctl", *argv)))

    @contextmanager
    def fault(self, text: str) -> Iterator[FaultAnswer]:
        """Inject a fault, as `testbed fault TEXT` does, and heal it at the end: `with lab.fault("agent stop node1"):`.

        Provides the data of `-o json`. The block ends when everything affected is ready again (see `heal`); what the
        lab repairs by itself, as after `agent kill`, may take longer.
        """
        # One that is injected after we left would never be healed.
        fault = self.ask(FAULT, {"words": text.split()}, timeout_s=FAULT_LIMIT_S)
        try:
            yield fault
        finally:
            if fault["number"] in [one["number"] for one in self.faults()]:
                self.heal(fault["number"])

    def faults(self) -> Sequence[FaultAnswer]:
        """Return the active faults, as `testbed fault list -o json` shows them."""
        return self.ask(FAULTS)

    def heal(self, *numbers: int, limit_s: float = HEAL_LIMIT_S) -> None:
        """End the faults with these numbers, or all active ones.

        Returns when everything they broke is ready again. Raises TestbedError if one cannot be ended, or if something
        is not ready after `limit_s` seconds, unless other active faults may be the cause. With a limit of 0, do not
        wait.
        """
        arguments = {"numbers": list(numbers) or None, "limit_s": float(limit_s)}
        for one in self.ask(HEAL, arguments, timeout_s=limit_s + ANSWER_LIMIT_S):
            fault = f"fault {one['number']}, {one['fault']}"
            if not one["healed"]:
                raise TestbedError(f"{fault}: {one['did']}")
            if one["missing"] and not self.faults():
                raise TestbedError(f"{fault}: not ready {one['took_s']:.0f} s later: {'; '.join(one['missing'])}")

    @property
    def nodes(self) -> Mapping[str, NodeSeen]:
        """Return every node's current state, in the order of the cluster file."""
        return {node["name"]: NodeSeen.from_json(node) for node in self.status()["nodes"]}

    @property
    def pods(self) -> Mapping[str, PodSeen]:
        """Return every pod's current state, in the order of the cluster file."""
        return {pod["name"]: PodSeen.from_json(pod) for pod in self.status()["pods"]}

    def agent(self, node: str) -> "AgentHandle":
        """Return the agent of a node."""
        return AgentHandle(self, node)

    def _pings(self, arguments: Arguments, count: int) -> list[Ping]:
        pairs = self.ask(PING, arguments, timeout_s=ANSWER_LIMIT_S + count * PING_TIMEOUT_S)
        return [Ping.from_json(pair) for pair in pairs]

    def _run(
        self,
        question: Question[EndedAnswer],
        arguments: Arguments,
        command: Command,
        *,
        input: str | None = None,
        timeout_s: float = ANSWER_LIMIT_S,
    ) -> Result:
        """Call a verb that runs a program on our streams, which are files in memory: no relay, no blocking."""
        streams = [os.memfd_create(f"testbed-{name}") for name in ("stdin", "stdout", "stderr")]
        try:
            if input:
                with open(streams[0], "wb", closefd=False) as stdin:
                    stdin.write(input.encode())
                os.lseek(streams[0], 0, os.SEEK_SET)
            answer = self.ask(question, arguments, tuple(streams), timeout_s)
            return Result(command.target, command.argv, _content(streams[1]), _content(streams[2]), answer["exit"])
        except NoAnswer as late:
            said = f"stdout: {_content(streams[1])[-SHOWN:]!r}, stderr: {_content(streams[2])[-SHOWN:]!r}"
            shown = f"{command.target}: {' '.join(command.argv)}"
            raise NoAnswer(f"{shown}: not done within {timeout_s:g} s ({said})") from late
        finally:
            for stream in streams:
                os.close(stream)


class AgentHandle:
    """The agent of one node."""

    def __init__(self, lab: LabHandle, node: str) -> None:
        self._lab = lab
        self.node = node

    @property
    def pid(self) -> int | None:
        """Return its process id inside the lab; None while it is not running."""
        return self._lab.nodes[self.node].agent_pid

    def signal(self, name: str) -> None:
        """Send it a signal: TERM, KILL, STOP, CONT … Raises AssertionError if it is not running."""
        pid = self.pid
        assert pid is not None, f"the agent of {self.node} is not running"
        self._lab.exec(self.node, "kill", "-s", name, str(pid)).check()

    def kill(self) -> None:
        """Kill it with SIGKILL; the lab restarts it."""
        self.signal("KILL")

    def restart(self) -> None:
        """Restart it with its current code, and wait until it is ready."""
        self._lab.ask(RESTART, {"nodes": [self.node]})

    def state(self) -> dict[str, Any]:
        """Return its own state: lease, forwarding table, counters, drops by reason (its /state)."""
        state: dict[str, Any] = json.loads(self._page("/state"))
        return state

    def metrics(self) -> dict[str, float]:
        """Return its counters by their Prometheus names, labels included, e.g. `overlay_peers`."""
        return metrics_of(self._page("/metrics").splitlines())

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Wait until it is ready. Raises NotInTime with its last state."""

        def ready() -> bool:
            node = self._lab.nodes[self.node]
            assert node.agent_state == "ready", node
            return True

        wait_until(ready, timeout_s, f"the agent of {self.node} is ready")

    def _page(self, path: str) -> str:
        return self._lab.exec(self.node, "curl", "--silent", "--show-error", "--max-time", "5", HEALTH + path).check()


def metrics_of(lines: Sequence[str]) -> dict[str, float]:
    """Parse samples of Prometheus' text format, by name and labels."""
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def find(name: str | None = None) -> LabHandle:
    """Find the running lab of that name, of TESTBED_LAB, or the only one. Raises TestbedError."""
    return LabHandle(find_lab(name))


def _manifest_bytes(manifests: Manifests) -> bytes:
    if isinstance(manifests, Path):
        return manifests.read_bytes()
    if isinstance(manifests, str):
        return manifests.encode()
    objects = [manifests] if isinstance(manifests, Mapping) else manifests
    # JSON is YAML.
    return "\n---\n".join(json.dumps(one) for one in objects).encode()


def _outcomes(objects: Sequence[ChangedObject]) -> dict[str, str]:
    return {f"{one['kind'].lower()}/{one['name']}": one["outcome"] for one in objects}


def _content(stream: int) -> str:
    size = os.fstat(stream).st_size
    return os.pread(stream, size, 0).decode(errors="replace")
