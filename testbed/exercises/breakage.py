"""The exercises' faults, and why they last. Agents quickly repair what belongs to them: device, routes, rules, bridge,
lease. So each fault breaks something else, or keeps the agent from repairing it:

    pod-route       the default route is the pod's own, made when the pod was
    drop            a foreign table drops the overlay's datagrams; agents leave others' tables alone
    neighbour       a permanent neighbour entry of the pod's address is wrong
    squatter        the agent is killed, and a foreign program has taken its UDP port meanwhile
    bridge          the agent is stopped (SIGSTOP), then its bridge taken down
    etcd-blocked    the lease is revoked, and a route blocks the node's path to etcd
    mtu             of a switch's port, which no agent watches
    service         the Service itself is changed, as a user would
    dns             a route of the node loses what pods send to the DNS
    policy          a NetworkPolicy admits only pods with a label that is misspelled
    egress-policy   a NetworkPolicy lets a pod query the DNS, and nothing else
    policy-route    a rule sends the overlay's destinations to a table that loses them
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.netconfig.backend_options import UDP_PORT
from testbed.cluster.dns import DNS_ADDRESS
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.service import Service
from testbed.exercises.variant import NotFit, Variant
from testbed.faults.machines import run
from testbed.lab.etcd import enter_machine
from testbed.lab.node import LabNode
from testbed.lab.state import LabState
from testbed.pods.pod import Pod
from testbed.policies.policies import Policies
from testbed.services.services import Services

SQUATTER = """
import socket, sys, time
open("/proc/self/comm", "w").write(sys.argv[1])
port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000):
    try:
        port.bind((sys.argv[2], int(sys.argv[3])))
        break
    except OSError:
        time.sleep(0.01)
while port.recv(65535):
    pass
"""
UNUSED_MAC = "02:00:5e:00:53:01"
RULE_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Broken:
    """Where a fault is injected."""

    state: LabState
    services: Services
    policies: Policies
    variant: Variant

    @property
    def node(self) -> LabNode:
        """Return the victim."""
        return self.state.nodes[self.variant.victim]

    @property
    def pod(self) -> Pod:
        """Return the victim's pod. Raises NotFit."""
        found = self.state.pods.named(self.variant.pod)
        if found is None or found.pause_pid is None:
            raise NotFit(f"pod {self.variant.pod} is not running")
        return found

    @property
    def bridge(self) -> str:
        """Return the bridge that the victim's pods are attached to. Raises NotFit."""
        if self.node.bridge is None:
            raise NotFit(f"the exercise needs a bridge, and the CNI plugins of {self.node.name} make none")
        return self.node.bridge

    @property
    def port(self) -> int:
        """Return the UDP port of the overlay."""
        return int(getattr(self.state.network.backend, "port", UDP_PORT))


def break_lab(state: LabState, services: Services, policies: Policies, fault: str, variant: Variant) -> None:
    """Inject one fault of an exercise. Raises TestbedError and OSError."""
    where = variant.turned if fault.startswith("/") else variant
    BREAKERS[fault.removeprefix("/")](Broken(state, services, policies, where))


def _delete_route(broken: Broken) -> None:
    run(broken.pod.pause_pid, ["ip", "route", "delete", "default"])


def _drop_by_rule(broken: Broken) -> None:
    chain = "type filter hook input priority filter; policy accept;"
    rule = f"udp dport {broken.port} counter drop"
    table = f"table ip {broken.variant.table} {{\nchain incoming {{\n{chain}\n{rule}\n}}\n}}\n"
    run(broken.node.pid, ["nft", "-f", "-"], stdin=table)


def _pin_neighbour(broken: Broken) -> None:
    address = str(broken.pod.address)
    entry = [address, "lladdr", UNUSED_MAC, "dev", broken.bridge, "nud", "permanent"]
    run(broken.node.pid, ["ip", "neighbour", "replace", *entry])


def _take_port(broken: Broken) -> None:
    node = broken.node
    # It waits for the port, so it is there before the next agent.
    subprocess.Popen(
        [
            *enter_machine(node.pid),
            sys.executable,
            "-c",
            SQUATTER,
            broken.variant.squatter,
            str(node.address),
            str(broken.port),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _signal_agent(node, signal.SIGKILL)


def _take_bridge_down(broken: Broken) -> None:
    bridge = broken.bridge
    _signal_agent(broken.node, signal.SIGSTOP)
    run(broken.node.pid, ["ip", "link", "set", bridge, "down"])


def _block_etcd(broken: Broken) -> None:
    state, node = broken.state, broken.node
    for address in state.cluster.addresses.etcd.values():
        run(node.pid, ["ip", "route", "add", "blackhole", f"{address}/32"])
    for lease in state.registry.leases():
        if lease.attrs.public_ip == node.address and lease.etcd_lease_id:
            state.registry.etcd.etcdctl(["lease", "revoke", f"{lease.etcd_lease_id:x}"])


def _lower_mtu(broken: Broken) -> None:
    node = broken.node
    for link in broken.state.underlay.net.links:
        ends = {end.node.name: end for end in (link.intf1, link.intf2)}
        if node.name in ends:
            (port,) = (end for name, end in ends.items() if name != node.name)
            run(None, ["ip", "link", "set", port.name, "mtu", str(broken.variant.mtu)])


def _break_service(broken: Broken) -> None:
    services = broken.services
    with services.deciding:
        service = next(iter(services.applied.values()), None)
        if service is None:
            raise NotFit("the exercise needs a Service")
        services.put(_wrong(service, broken.variant.service_fault))


def _wrong(service: Service, fault: str) -> Service:
    """Return the Service with a typo in its selector, or a port that no pod has."""
    change: dict[str, Any]
    if fault == "selector":
        (key, value), *others = service.spec.selector.items()
        change = {"selector": {key: value[1:] + value[0], **dict(others)}}
    else:
        first, *rest = service.spec.ports
        change = {"ports": (first.model_copy(update={"target_port": 8088}), *rest)}
    return service.model_copy(update={"spec": service.spec.model_copy(update=change)})


def _lose_dns(broken: Broken) -> None:
    run(broken.node.pid, ["ip", "route", "add", "blackhole", f"{DNS_ADDRESS}/32"])


def _route_by_policy(broken: Broken) -> None:
    destination, table = str(broken.state.nodes[broken.variant.other].subnet), str(broken.variant.route_table)
    run(broken.node.pid, ["ip", "route", "add", "blackhole", "default", "table", table])
    rule = ["priority", str(RULE_PRIORITY), "to", destination, "lookup", table]
    run(broken.node.pid, ["ip", "rule", "add", *rule])


def _isolate(broken: Broken) -> None:
    (key, value), *_ = broken.pod.manifest.metadata.labels.items()
    peers = [{"podSelector": {"matchLabels": {key: value[1:] + value[0]}}}]
    _apply_policy(broken, broken.variant.policy, ingress=[{"from": peers}])


def _isolate_egress(broken: Broken) -> None:
    ports = [{"protocol": "UDP", "port": 53}]
    _apply_policy(broken, broken.variant.egress_policy, policyTypes=["Egress"], egress=[{"ports": ports}])


def _apply_policy(broken: Broken, name: str, **spec: object) -> None:
    """Isolate the victim's pod, as a user would."""
    pod = broken.pod
    broken.policies.put(
        NetworkPolicy.model_validate(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": pod.key.namespace},
                "spec": {"podSelector": {"matchLabels": pod.manifest.metadata.labels}, **spec},
            }
        )
    )


def _signal_agent(node: LabNode, number: signal.Signals) -> None:
    pid = node.agent.pid
    if pid is None:
        raise NotFit(f"the agent of {node.name} is not running")
    os.kill(pid, number)


BREAKERS: Mapping[str, Callable[[Broken], None]] = {
    "pod-route": _delete_route,
    "drop": _drop_by_rule,
    "neighbour": _pin_neighbour,
    "squatter": _take_port,
    "bridge": _take_bridge_down,
    "etcd-blocked": _block_etcd,
    "mtu": _lower_mtu,
    "service": _break_service,
    "dns": _lose_dns,
    "policy-route": _route_by_policy,
    "policy": _isolate,
    "egress-policy": _isolate_egress,
}
