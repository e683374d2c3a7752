"""A running lab's implementation of each verb of the command line."""

import contextlib
import os
import re
import shlex
import threading
from collections.abc import Collection, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from testbed.bench.scale_verbs import scale_verbs
from testbed.bench.verbs import bench_verbs
from testbed.capture.map import map_of
from testbed.capture.verbs import capture_verbs
from testbed.cluster.kinds import BY_PLURAL, NAMESPACE, POD_OWNERS, Kind, no_such_kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE, key_of, key_of_object
from testbed.cluster.problems import shorten
from testbed.control.answers.lab import Description, EndedAnswer, EventLine, IperfAnswer, PingAnswer
from testbed.control.programs import run_for_client, wait_with_client
from testbed.control.questions import (
    CLI,
    DESCRIBE,
    ETCDCTL,
    EVENTS,
    EXEC,
    GET,
    GRAPH,
    IPERF,
    LOGS,
    PING,
    RESTART,
    SHELL,
    STATUS,
)
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import EtcdFailed, InvalidInput, MeasurementFailed, TestbedError
from testbed.exercises.verbs import exercise_verbs
from testbed.faults.verbs import explained_by, fault_verbs
from testbed.lab.etcd import enter_machine
from testbed.lab.iperf import measure
from testbed.lab.node import LabNode
from testbed.lab.ping import PingSender, PingTarget, ping_pairs
from testbed.lab.pod_pings import ping_every_pair
from testbed.lab.waiting import wait_for
from testbed.pods.pod import Pod
from testbed.policies.verbs import policy_verbs
from testbed.spelling import listed
from testbed.supervisor import status
from testbed.supervisor.api_process import ApiProcess
from testbed.supervisor.graph_facts import graph_facts
from testbed.supervisor.journal_verbs import JournalVerbs
from testbed.supervisor.kinds import IN_LAB, KindInLab
from testbed.supervisor.lab import Lab
from testbed.supervisor.leave_etcd import leave_etcd_verb
from testbed.supervisor.log_verbs import OWN_LOGS, LogVerbs
from testbed.supervisor.mininet_prompt import become_prompt
from testbed.supervisor.pod_restart import restart_pods
from testbed.trace.verbs import trace_verbs
from testbed.workloads.change_verbs import ChangeVerbs
from testbed.workloads.forward import Targets
from testbed.workloads.node_verbs import NodeVerbs

RESTART_LIMIT_S = 20.0
DNS_IS = "the lab's DNS is no Service: see status, logs dns and get names"
OWNERS_BY_WORD = {kind.singular: kind for kind in POD_OWNERS}
"""A client's words for kinds that create pods: `daemonset/log` is one of their pods."""


def verbs_of(lab: Lab) -> Sequence[AnyVerb]:
    """Return every verb, bound to this lab."""
    running, state = LabVerbs(lab), lab.state
    explained = partial(explained_by, state, lab.faults)
    return (
        Verb(STATUS, lambda _: status.lab_status(lab), changes=False),
        Verb(GET, running.get, changes=False),
        Verb(DESCRIBE, running.describe, changes=False),
        Verb(EVENTS, running.events, changes=False),
        Verb(LOGS, running.logs, changes=False),
        Verb(PING, running.ping, changes=False),
        Verb(GRAPH, lambda _: graph_facts(lab), changes=False),
        Verb(EXEC, running.exec),
        Verb(SHELL, running.shell),
        Verb(CLI, running.cli),
        Verb(IPERF, running.iperf),
        Verb(RESTART, running.restart),
        Verb(ETCDCTL, running.etcdctl),
        *ChangeVerbs(
            lab.controllers, state.namespaces, lab.policies, state.pods.changed, state.cluster.images, lab.groups
        ).verbs(),
        *NodeVerbs(lab.node_changes, state.nodes, lambda: state.settled).verbs(),
        *running.targets.verbs(),
        *fault_verbs(state, lab.faults),
        *exercise_verbs(state, lab.names, lab.services, lab.policies, explained),
        *trace_verbs(state, lab.services, lab.policies, explained),
        *policy_verbs(lab.policies, lab.services, state.nodes, state.pods),
        *bench_verbs(state),
        *scale_verbs(state),
        leave_etcd_verb(state.nodes, state.registry),
        *capture_verbs(lambda: map_of(state)),
        *JournalVerbs(state.name, state.directory, state.nodes).verbs(),
        ApiProcess(state.name, state.directory, lab.options.owner_uid).verb(),
    )


NEED_CAPABILITIES = frozenset(
    {"bridge", "ethtool", "ip", "ip6tables", "iptables", "mount", "nft", "sysctl", "tc", "umount"}
)
"""Programs that change what a container normally may not."""


class LabVerbs:
    """The verbs that need arguments."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.state = lab.state
        self.targets = Targets(lab.state.nodes, lab.state.pods, lab.services, lab.workloads)
        self._logs = LogVerbs(lab, self._target)
        self._cli = threading.Lock()

    def get(self, request: Request) -> list[Any]:
        """Return objects of a kind, or the one with a name."""
        kind, in_lab = self._kind("get", request)
        name, namespace = request.argument("name", str), request.argument("namespace", str)
        if name is not None and in_lab.one is not None:
            one = in_lab.one(self.lab, self._in_namespace(kind, name, request))
            if one is not None:
                return [one]
        found = list(in_lab.get(self.lab))
        if kind.namespaced and name is None and namespace is not None:
            within = self._existing(namespace)
            return [item for item in found if item["metadata"]["namespace"] == within]
        if name is None:
            return found
        wanted = self._in_namespace(kind, name, request)
        named = [item for item in found if str(key_of_object(item)) == wanted]
        if not named:
            raise _not_there(kind, wanted, [str(key_of_object(item)) for item in found])
        return named

    def describe(self, request: Request) -> Description:
        """Return headings and values about one object."""
        kind, in_lab = self._kind("describe", request)
        name, described = request.argument("name", str), in_lab.describe
        if described is None or name is None:
            raise InvalidInput(f"describe: needs a kind that can be described, and a name (got {kind.plural} {name})")
        wanted = self._in_namespace(kind, name, request)
        try:
            return described.show(self.lab, wanted)
        except KeyError:
            raise _not_there(kind, wanted, described.names(self.lab)) from None

    def _existing(self, namespace: str | None) -> str | None:
        """Return the namespace if it exists; None for None. Raises TestbedError."""
        if namespace is not None and self.state.namespaces.get(namespace) is None:
            raise _not_there(NAMESPACE, namespace, self.state.namespaces.names)
        return namespace

    @staticmethod
    def _in_namespace(kind: Kind, name: str, request: Request) -> str:
        """Return an object's unique name in the lab, from its name in the namespace of the request."""
        namespace = request.argument("namespace", str) or DEFAULT_NAMESPACE
        return str(key_of(name, namespace)) if kind.namespaced else name

    def _kind(self, verb: str, request: Request) -> tuple[Kind, KindInLab]:
        plural = request.argument("kind", str)
        kind = BY_PLURAL.get(plural)
        if kind is None:
            raise InvalidInput(f"{verb}: {no_such_kind(str(plural), *BY_PLURAL)}")
        return kind, IN_LAB[kind]

    def events(self, request: Request) -> list[EventLine]:
        """Return all events, oldest first; of one namespace, if the request names one."""
        namespace = self._existing(request.argument("namespace", str))
        return [event for event in self.state.events if namespace in (None, _namespace_of(event))]

    def logs(self, request: Request) -> EndedAnswer:
        """Show logs of the requested name, or of several pods, on the client's stdout."""
        several = request.argument("names", list)
        return self._logs.show(request, [self._named(request, "name")] if several is None else list(map(str, several)))

    def exec(self, request: Request) -> EndedAnswer:
        """Run a command in a pod's container or on a node, with the client's streams."""
        argv, tty = request.argument("argv", list), request.argument("tty", bool, False)
        if not argv or not all(isinstance(word, str) for word in argv) or not argv[0]:
            raise InvalidInput("exec: no command (want exec POD|NODE -- CMD…)")
        if any("\0" in word for word in argv):
            raise InvalidInput("exec: a NUL character, with which no program can start (want a command without it)")
        return self._run_in(request, self._named(request, "name"), request.argument("container", str), argv, tty)

    def shell(self, request: Request) -> EndedAnswer:
        """Run an interactive shell in a pod, on a node, or in the lab's own namespaces."""
        name = None if request.argument("name", str) is None else self._named(request, "name")
        container = request.argument("container", str)
        # Without a terminal it reads a script, and must neither prompt nor use job control.
        terminal = bool(request.streams) and os.isatty(request.streams[0])
        argv = ["bash", "--norc", *(["-i"] if terminal else [])]
        if name is not None:
            return self._run_in(request, name, container, argv, terminal)
        environment = {**os.environ, "PS1": f"{self.state.name}# ", "TESTBED_LAB": self.state.name, "TERM": "xterm"}
        return run_for_client(request, argv, environment, take_terminal=terminal)

    def cli(self, request: Request) -> EndedAnswer:
        """Run Mininet's prompt, in a forked copy of this process; one at a time, since nodes have one shell each."""
        if len(request.streams) != 3:
            raise InvalidInput("cli needs the client's three standard streams")
        if not self._cli.acquire(blocking=False):
            raise TestbedError("Mininet's prompt is already open (each node has only one shell)")
        try:
            child = os.fork()
            if child == 0:
                become_prompt(self.state.underlay, self.state.journal, request.streams, self.state.name)
            return {"exit": wait_with_client(request, child)}
        finally:
            self._cli.release()

    def ping(self, request: Request) -> list[PingAnswer]:
        """Ping every pair of pods, or one pair, several times."""
        count = request.argument("count", int, 1)
        ipv6 = request.argument("ipv6", bool, False)
        if request.argument("source", str) is not None:
            source, destination = self._named(request, "source"), self._named(request, "destination")
            address = (self._ipv6_address if ipv6 else self._any_address)(destination)
            results = ping_pairs([(PingSender(source, self._pid(source)), PingTarget(destination, address))], count)
        elif ipv6 and self.state.network.ipv6_network is None:
            raise TestbedError("ping -6: pods have no IPv6 addresses (want a network with EnableIPv6)")
        else:
            within = self._existing(request.argument("namespace", str))
            results = ping_every_pair(
                self.state.pods,
                6 if ipv6 else 4,
                count,
                takes_part=lambda pod: within in (None, pod.key.namespace),
            )
        return [result.answer() for result in results]

    def iperf(self, request: Request) -> IperfAnswer:
        """Measure throughput from one pod or node to another."""
        source, destination = self._named(request, "source"), self._named(request, "destination")
        seconds, udp = request.argument("seconds", int, 5), request.argument("udp", bool, False)
        bitrate = request.argument("bitrate", str, None) or "0"
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMG]?", bitrate):
            raise InvalidInput(f"iperf: not a bit rate (got {shorten(bitrate)}; want one such as 10M)")
        try:
            source_pid, destination_pid = self._pid(source), self._pid(destination)
            ipv6 = request.argument("ipv6", bool, False)
            address = (self._ipv6_address if ipv6 else self._address)(destination)
            return measure(source_pid, destination_pid, address, seconds, udp, request.client_left, bitrate)
        except MeasurementFailed as failure:
            raise TestbedError(f"iperf {source} {destination}: {failure}") from failure

    def restart(self, request: Request) -> list[str]:
        """Restart the named pods, or the agents of the named nodes with their current code, and wait until they are
        ready.
        """
        if pods := request.argument("pods", list, []):
            namespace = request.argument("namespace", str) or DEFAULT_NAMESPACE
            return restart_pods(self.state.pods, [str(name) for name in pods], namespace)
        names = request.argument("nodes", list) or list(self.state.nodes)
        nodes = [self._node(name) for name in names]
        for node in nodes:
            if not node.expected:
                raise TestbedError(f"{node.name}: its agent is run by hand (up --no-agent)")
        for node in nodes:
            node.agent.restart()
        for node in nodes:
            self._await_ready(node)
        return [f"agent of {node.name} restarted, subnet {node.subnet}" for node in nodes]

    def etcdctl(self, request: Request) -> EndedAnswer:
        """Run the real etcdctl on the first member's machine."""
        if not self.state.registry.etcd.members:
            raise EtcdFailed("this lab has no etcd of its own")
        argv = self.state.registry.etcd.etcdctl_argv([str(word) for word in request.argument("argv", list, [])])
        return run_for_client(request, argv, self.state.registry.etcd.environment())

    def _await_ready(self, node: LabNode) -> None:
        why = wait_for(lambda: node.why_not_ready() or "", RESTART_LIMIT_S)
        if why:
            raise TestbedError(f"{node.name}: not ready {RESTART_LIMIT_S:g} s after the restart: {why}")

    def _run_in(self, request: Request, name: str, container: str | None, argv: list[str], tty: bool) -> EndedAnswer:
        target = self._target(name)
        if isinstance(target, Pod):
            chosen = self._container(target, container)
            answer = run_for_client(request, target.exec_argv(chosen, argv, tty))
            if answer["exit"] and argv[0] in NEED_CAPABILITIES and not target.is_privileged(chosen):
                hint = (
                    "note: a container may not change its network or mounts; the lab's root may: testbed shell, then "
                )
                hint += f"ip netns exec {target.key.file_name} {shlex.join(argv)}"
                with contextlib.suppress(OSError):
                    os.write(request.streams[-1], f"{hint}\n".encode())
            return answer
        pid = target.pid if isinstance(target, LabNode) else self.state.underlay.machines[name].pid
        environment = {**os.environ, "PS1": f"{name}# ", "TERM": "xterm"}
        return run_for_client(request, [*enter_machine(pid), *argv], environment, take_terminal=tty)

    def _named(self, request: Request, argument: str) -> str:
        """Return the unique name of an argument: for a pod of the request's namespace, with that namespace.

        Other names in the lab (a machine, an address, a log) stay as they are.
        """
        text, namespace = request.argument(argument, str), request.argument("namespace", str) or DEFAULT_NAMESPACE
        kind, slash, rest = text.partition("/")
        if slash and kind in OWNERS_BY_WORD:
            return f"{kind}/{key_of(rest, namespace)}"
        key = key_of(text, namespace)
        bare = text in self.state.underlay.machines or text in OWN_LOGS or _is_address(text)
        return text if bare and self.state.pods.get(key) is None else str(key)

    def _container(self, pod: Pod, name: str | None) -> str:
        names = list(pod.containers)
        if name is not None and name not in names:
            raise TestbedError(f"pod {pod.name} has no container {name} (there are: {', '.join(names)})")
        return name or names[0]

    def _target(self, name: str) -> "Pod | LabNode | str":
        """Return a pod, a node, or the name of another machine of the underlay; `deployment/NAME` is one
        of its pods.
        """
        word, _, rest = name.partition("/")
        if word in OWNERS_BY_WORD:
            return self.targets.pod_of(OWNERS_BY_WORD[word], rest)
        found: Pod | LabNode | None = self.state.pods.named(name) or self.state.nodes.get(name)
        if found is not None:
            return found
        if name in self.state.underlay.machines:
            return name
        everything = [*self.state.pods.names(), *self.state.underlay.machines]
        raise TestbedError(f"no pod or node named {name} (there are: {listed(everything, name)})")

    def _node(self, name: object) -> LabNode:
        node = self.state.nodes.get(name) if isinstance(name, str) else None
        if node is None:
            raise TestbedError(f"no node named {name} (there are: {listed(self.state.nodes, str(name))})")
        return node

    def _pid(self, name: str) -> int:
        target = self._target(name)
        if isinstance(target, Pod):
            if target.pause_pid is None:
                raise TestbedError(f"pod {name} has no namespaces (state {target.status().state})")
            return target.pause_pid
        return int(target.pid if isinstance(target, LabNode) else self.state.underlay.machines[name].pid)

    def _any_address(self, name: str) -> IPv4Address | IPv6Address:
        try:
            return ip_address(name)
        except ValueError:
            return self._address(name)

    def _ipv6_address(self, name: str) -> IPv6Address:
        try:
            address = ip_address(name)
        except ValueError:
            target = self._target(name)
            own = target.ipv6_address if isinstance(target, Pod | LabNode) else None
            if own is None:
                raise TestbedError(f"{name} has no IPv6 address (want a network with EnableIPv6)") from None
            return IPv6Address(own)
        if isinstance(address, IPv6Address):
            return address
        raise InvalidInput(f"-6: not an IPv6 address (got {name}; want one, or a name)")

    def _address(self, name: str) -> IPv4Address:
        with contextlib.suppress(ValueError):
            return IPv4Address(name)
        target = self._target(name)
        if isinstance(target, Pod):
            address = target.status().address
            if address is None:
                raise TestbedError(f"pod {name} has no address yet")
            return IPv4Address(address)
        return target.address if isinstance(target, LabNode) else self.state.underlay.address_of(name)


def _namespace_of(event: EventLine) -> str:
    """Return an event's namespace: that of its object, or the default one."""
    word, _, name = event["object"].partition("/")
    return key_of(name or word).namespace


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _not_there(kind: Kind, name: str, names: Collection[str]) -> TestbedError:
    hint = f"; {DNS_IS}" if name.rpartition("/")[2] == "kube-dns" else ""
    return TestbedError(f"no {kind.singular} named {name} (there are: {listed(names, name)}{hint})")
