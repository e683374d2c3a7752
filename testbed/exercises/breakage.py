"""What is broken in each exercise, and why it stays so.

Agents mend within moments what is theirs: device, routes, rules, bridge, lease. So each exercise breaks what is not
theirs, or keeps the agent from mending:

    agent-killed    the agent is killed, and a foreign program has taken its UDP port meanwhile
    route-deleted   the route is the pod's own, made when the pod was
    lease-revoked   the lease is revoked, and the node's way to etcd is blocked by a route
    docker0-down    the agent is stopped (SIGSTOP), then the bridge taken down
    nft-drop        a table of somebody's drops the overlay's datagrams; agents leave others' tables alone
    mtu-lowered     of a switch's port, which nobody watches
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping

from testbed.faults.machines import run
from testbed.lab.etcd import enter_machine
from testbed.lab.node import LabNode
from testbed.pods.pod import Pod
from testbed.supervisor.lab import Lab

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
SQUATTERS_NAME = "metrics-daemon"  # a kernel keeps 15 letters
TABLE = "ip company-firewall"
LOWERED_MTU = 1400  # bytes; small pages fit, full-size packets do not


class NotFit(Exception):
    """The lab is not one that this exercise can be made of."""


def break_lab(lab: Lab, name: str) -> None:
    """Break it. Raises NotFit and OSError."""
    if len(lab.nodes) < 2 or not any(pod.manifest.spec.node_name == _victim(lab).name for pod in lab.pods.values()):
        raise NotFit("an exercise wants two nodes, and a pod on the second")
    BREAKERS[name](lab)


def _victim(lab: Lab) -> LabNode:
    return list(lab.nodes.values())[1]


def _pod(lab: Lab) -> Pod:
    return next(pod for pod in lab.pods.values() if pod.manifest.spec.node_name == _victim(lab).name)


def _kill_agent(lab: Lab) -> None:
    node = _victim(lab)
    port = str(lab.cluster.network.get("Backend", {}).get("Port", 8285))
    # It waits for the port, so that it is there before the next agent.
    subprocess.Popen(
        [*enter_machine(node.pid), sys.executable, "-c", SQUATTER, SQUATTERS_NAME, str(node.address), port],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _signal_agent(node, signal.SIGKILL)


def _delete_route(lab: Lab) -> None:
    pid = _pod(lab).pause_pid
    if pid is None:
        raise NotFit("the pod does not run")
    run(pid, ["ip", "route", "delete", "default"])


def _revoke_lease(lab: Lab) -> None:
    node = _victim(lab)
    for address in lab.cluster.addresses.etcd.values():
        run(node.pid, ["ip", "route", "add", "blackhole", f"{address}/32"])
    for lease in lab.leases():
        if lease.attrs.public_ip == node.address and lease.etcd_lease_id:
            lab.etcd.etcdctl(["lease", "revoke", f"{lease.etcd_lease_id:x}"])


def _take_bridge_down(lab: Lab) -> None:
    node = _victim(lab)
    _signal_agent(node, signal.SIGSTOP)
    run(node.pid, ["ip", "link", "set", node.bridge, "down"])


def _drop_by_rule(lab: Lab) -> None:
    port = lab.cluster.network.get("Backend", {}).get("Port", 8285)
    chain = "type filter hook input priority filter; policy accept;"
    rules = f"table {TABLE} {{\nchain incoming {{\n{chain}\nudp dport {port} counter drop\n}}\n}}\n"
    run(_victim(lab).pid, ["nft", "-f", "-"], stdin=rules)


def _lower_mtu(lab: Lab) -> None:
    node = _victim(lab)
    for link in lab.underlay.net.links:
        ends = {end.node.name: end for end in (link.intf1, link.intf2)}
        if node.name in ends:
            (port,) = (end for name, end in ends.items() if name != node.name)
            run(None, ["ip", "link", "set", port.name, "mtu", str(LOWERED_MTU)])


def _signal_agent(node: LabNode, number: signal.Signals) -> None:
    pid = node.agent.pid
    if pid is None:
        raise NotFit(f"the agent of {node.name} does not run")
    os.kill(pid, number)


BREAKERS: Mapping[str, Callable[[Lab], None]] = {
    "agent-killed": _kill_agent,
    "route-deleted": _delete_route,
    "lease-revoked": _revoke_lease,
    "docker0-down": _take_bridge_down,
    "nft-drop": _drop_by_rule,
    "mtu-lowered": _lower_mtu,
}
