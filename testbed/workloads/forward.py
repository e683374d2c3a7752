"""A running lab's implementation of `forward`: finds the target, and runs the relay in its namespace."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from testbed.cluster.free_values import LAST_PORT
from testbed.cluster.kinds import BY_PLURAL, DEPLOYMENT, NODE, POD, POD_OWNERS, SERVICE, Kind
from testbed.cluster.object_key import DEFAULT_NAMESPACE, Owner, key_of
from testbed.cluster.service import Service
from testbed.control.answers.lab import EndedAnswer, ForwardTarget
from testbed.control.programs import run_for_client
from testbed.control.questions import FORWARD
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod import Pod
from testbed.services.services import Services
from testbed.workloads.workloads import Workloads

RELAY = Path(__file__).with_name("relay.py")
LOOPBACK = "127.0.0.1"


class ForwardPath(NamedTuple):
    """How to reach a target."""

    shown: str
    pid: int
    """Process in whose network namespace the connection is made."""
    addresses: tuple[str, ...]
    """Tried in this order."""
    port: int


class Targets:
    """The possible targets of `forward`."""

    def __init__(self, nodes: Nodes, pods: Pods, services: Services, workloads: Workloads) -> None:
        self._nodes = nodes
        self._pods = pods
        self._services = services
        self._workloads = workloads

    def verbs(self) -> Sequence[AnyVerb]:
        """Return the verb."""
        return (Verb(FORWARD, self.forward),)

    def forward(self, request: Request) -> EndedAnswer:
        """Relay the connections of the client's listening socket, its first stream, until the client leaves."""
        kind, name, port = (request.argument(key, str) for key in ("kind", "name", "port"))
        path = self.find(kind, name, port or "", request.argument("namespace", str) or DEFAULT_NAMESPACE)
        request.progress(ForwardTarget(to=path.shown))
        targets = [f"{address}:{path.port}" for address in path.addresses]
        enter = ["nsenter", "--target", str(path.pid), "--net", "--"]
        relay = [*enter, sys.executable, "-I", "-S", str(RELAY), *targets]
        return run_for_client(request, relay, {"PATH": os.environ.get("PATH", os.defpath)})

    def find(self, kind: str | None, name: str, port: str, namespace: str = DEFAULT_NAMESPACE) -> ForwardPath:
        """Find the target: without a kind a service, else a pod, a node, or a pod of a deployment.

        Raises TestbedError.
        """
        meant, key = None if kind is None else BY_PLURAL.get(kind), key_of(name, namespace)
        service = self._services.numbered.get(key)
        if meant in (None, SERVICE) and service is not None:
            return self._to_service(service, port)
        pod, node = self._pods.get(key), self._nodes.get(name)
        if meant in (None, POD) and pod is not None:
            return _to_pod(pod, port)
        if meant in (None, NODE) and node is not None:
            return ForwardPath(f"node {name}", node.pid, (str(node.address), LOOPBACK), _number(port))
        if meant is None and key in self._workloads.deployments:
            meant = DEPLOYMENT
        if meant in POD_OWNERS:
            return _to_pod(self.pod_of(meant, str(key)), port)
        there = ", ".join([*map(str, self._services.numbered), *self._pods.names(), *self._nodes])
        what = "service, pod or node" if meant is None else meant.singular
        raise TestbedError(f"no {what} named {key} (there are: {there})")

    def pod_of(self, kind: Kind, name: str) -> Pod:
        """Return a ready pod of a Deployment, ReplicaSet or DaemonSet, the oldest; an unready one if none is ready.

        Raises TestbedError.
        """
        key = key_of(name)
        there = [one.key for one in self._workloads.owners() if one.kind == kind.name]
        if key not in there:
            raise TestbedError(f"no {kind.singular} named {name} (there are: {', '.join(map(str, there)) or 'none'})")
        pods = sorted(self._workloads.pods_of(Owner(kind.name, key)), key=lambda pod: not pod.status().ready)
        if not pods:
            raise TestbedError(f"{kind.singular} {name} has no pods")
        return pods[0]

    def _to_service(self, service: Service, port: str) -> ForwardPath:
        name, address = service.key, service.spec.cluster_ip
        if service.headless or address is None:
            raise TestbedError(f"service {name} has no cluster IP (want: a pod of it)")
        ports = [one for one in service.spec.ports if one.protocol == "TCP"]
        found = next((one.port for one in ports if port in (str(one.port), one.name)), None)
        if found is None:
            want = ", ".join(str(one.port) for one in ports) or "a service with a TCP port"
            raise TestbedError(f"service {name} has no such TCP port (got {port}; want {want})")
        node = next((node for node in self._nodes.values() if node.why_not_ready() is None), None)
        if node is None:
            raise TestbedError("no node is ready")
        return ForwardPath(f"service {name}, {address}:{found} from {node.name}", node.pid, (address,), found)


def _to_pod(pod: Pod, port: str) -> ForwardPath:
    if pod.pause_pid is None:
        raise TestbedError(f"pod {pod.name} has no namespaces (state {pod.status().state})")
    ports = [one for container in pod.manifest.spec.containers for one in container.ports]
    names = {one.name: one.container_port for one in ports if one.name is not None}
    number = names[port] if port in names else _number(port, names)
    # As in kubectl: including listeners on the pod's own loopback.
    return ForwardPath(f"pod {pod.name}, port {number}", pod.pause_pid, (LOOPBACK, pod.address or LOOPBACK), number)


def _number(port: str, names: Mapping[str, int] | None = None) -> int:
    if port.isdecimal() and 1 <= int(port) <= LAST_PORT:
        return int(port)
    want = ", ".join([f"1 to {LAST_PORT}", *(names or {})])
    raise InvalidInput(f"no such port (got {port}; want {want})")
