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

from testbed.errors import TestbedError
from testbed.faults.machines import run
from testbed.lab.etcd import enter_machine
from testbed.lab.node import LabNode
from testbed.lab.state import LabState
from testbed.pods.pod import Pod

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


class NotFit(TestbedError):
    """The lab is not one that this exercise can be made of."""


def break_lab(state: LabState, name: str) -> None:
    """Break it. Raises NotFit and OSError."""
    if len(state.nodes) < 2 or not state.pods.on(_victim(state).name):
        raise NotFit("an exercise wants two nodes, and a pod on the second")
    BREAKERS[name](state)


def _victim(state: LabState) -> LabNode:
    return list(state.nodes.values())[1]


def _pod(state: LabState) -> Pod:
    return state.pods.on(_victim(state).name)[0]


def _kill_agent(state: LabState) -> None:
    node = _victim(state)
    port = str(state.cluster.network.get("Backend", {}).get("Port", 8285))
    # It waits for the port, so that it is there before the next agent.
    subprocess.Popen(
        [*enter_machine(node.pid), sys.executable, "-c", SQUATTER, SQUATTERS_NAME, str(node.address), port],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _signal_agent(node, signal.SIGKILL)


def _delete_route(state: LabState) -> None:
    pid = _pod(state).pause_pid
    if pid is None:
        raise NotFit("the pod does not run")
    run(pid, ["ip", "route", "delete", "default"])


def _revoke_lease(state: LabState) -> None:
    node = _victim(state)
    for address in state.cluster.addresses.etcd.values():
        run(node.pid, ["ip", "route", "add", "blackhole", f"{address}/32"])
    for lease in state.registry.leases():
        if lease.attrs.public_ip == node.address and lease.etcd_lease_id:
            state.registry.etcd.etcdctl(["lease", "revoke", f"{lease.etcd_lease_id:x}"])


def _take_bridge_down(state: LabState) -> None:
    node = _victim(state)
    _signal_agent(node, signal.SIGSTOP)
    run(node.pid, ["ip", "link", "set", node.bridge, "down"])


def _drop_by_rule(state: LabState) -> None:
    port = state.cluster.network.get("Backend", {}).get("Port", 8285)
    chain = "type filter hook input priority filter; policy accept;"
    rules = f"table {TABLE} {{\nchain incoming {{\n{chain}\nudp dport {port} counter drop\n}}\n}}\n"
    run(_victim(state).pid, ["nft", "-f", "-"], stdin=rules)


def _lower_mtu(state: LabState) -> None:
    node = _victim(state)
    for link in state.underlay.net.links:
        ends = {end.node.name: end for end in (link.intf1, link.intf2)}
        if node.name in ends:
            (port,) = (end for name, end in ends.items() if name != node.name)
            run(None, ["ip", "link", "set", port.name, "mtu", str(LOWERED_MTU)])


def _signal_agent(node: LabNode, number: signal.Signals) -> None:
    pid = node.agent.pid
    if pid is None:
        raise NotFit(f"the agent of {node.name} does not run")
    os.kill(pid, number)


BREAKERS: Mapping[str, Callable[[LabState], None]] = {
    "agent-killed": _kill_agent,
    "route-deleted": _delete_route,
    "lease-revoked": _revoke_lease,
    "docker0-down": _take_bridge_down,
    "nft-drop": _drop_by_rule,
    "mtu-lowered": _lower_mtu,
}
