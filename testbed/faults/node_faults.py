"""Faults of nodes: device, rules, disk and clock; machines switched off and on, or readdressed."""

import contextlib
import shutil
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from agent.errors import AgentError
from testbed.errors import TestbedError
from testbed.faults.agent_faults import node_of, unless_gone
from testbed.faults.catalogue import FaultRequest
from testbed.faults.faked_clock import faked_clock
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.faults.machines import TABLE_PREFIX, run
from testbed.lab.etcd import TLS_DIRECTORY
from testbed.lab.events import Events
from testbed.lab.machines import OverlayNode
from testbed.lab.node import JOURNAL, LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.pod_guard import TABLE
from testbed.lab.pods import Pods
from testbed.lab.underlay import LabUnderlay
from testbed.lab.underlay_growth import give_address
from testbed.plain_files import replace_plain
from testbed.pods.pod import Pod
from testbed.processes.threads import in_background
from testbed.spelling import listed

BOOT_LIMIT_S = 60.0
POLL_S = 0.1
CLOCK_FILE = "/run/clock-offset"
"""File on the node: what libfaketime adds to its agent's clock."""
TINY_DISK = "size=12k,mode=0755"


@dataclass(frozen=True, eq=False, slots=True)
class Jump:
    """One active jump of a clock; two of the same size are two."""

    by_s: float


class NodeFaults:
    """See the catalogue."""

    def __init__(
        self,
        nodes: Nodes,
        pods: Pods,
        underlay: LabUnderlay,
        events: Events,
        pin: Callable[[LabNode], None],
        build_later: Callable[[Pod], None],
    ) -> None:
        """`pin` leaves a node's configured subnet for its agent to find; `build_later` retries a pod until it is
        built.
        """
        self._nodes = nodes
        self._pods = pods
        self._underlay = underlay
        self._events = events
        self._pin = pin
        self._build_later = build_later
        self._jumps: weakref.WeakKeyDictionary[LabNode, list[Jump]] = weakref.WeakKeyDictionary()
        """Active jumps of each node's clock, oldest first; the last one counts."""

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {
            "device delete": self.delete_device,
            "rules flush": self.flush_rules,
            "disk full": self.fill_disk,
            "clock jump": self.jump_clock,
            "node crash": self.crash,
            "node reboot": self.reboot,
            "node readdress": self.readdress,
            "pod kill": self.kill_pod,
        }

    def delete_device(self, request: FaultRequest) -> Injected:
        """Delete the overlay device."""
        node = node_of(self._nodes, request)
        state = node.state()
        device = state["device"] if state is not None else node.overlay_device
        if device is None or node.kernel.link(device) is None:
            raise FaultImpossible(f"{request.text}: {node.name} has no overlay device at the moment")
        run(node.pid, ["ip", "link", "del", device])
        return Injected(f"ip link del {device} on {node.name}", "by the agent, which recreates it")

    def flush_rules(self, request: FaultRequest) -> Injected:
        """Delete every table except those of our own faults."""
        node = node_of(self._nodes, request)
        tables = _flush_rules(node.pid)
        if not tables:
            raise FaultImpossible(f"{request.text}: {node.name} has no nftables rules")
        return Injected(f"nft delete table {', '.join(tables)} on {node.name}", "by the agent, which restores them")

    def fill_disk(self, request: FaultRequest) -> Injected:
        """Fill the file system of /run/flannel; its files stay as they are."""
        node = node_of(self._nodes, request)
        script = (
            f"mkdir -p /run/flannel && mkdir /run/.disk && mount -t tmpfs -o {TINY_DISK} tmpfs /run/.disk && "
            "cp -a /run/flannel/. /run/.disk/ && mount --move /run/.disk /run/flannel && rmdir /run/.disk && "
            "{ cat /dev/zero > /run/flannel/filler 2>/dev/null || true; }"
        )
        try:
            run(node.pid, ["sh", "-c", script])
        except OSError:
            # The next attempt finds no half of this one.
            for command in ("umount", "rmdir"):
                with contextlib.suppress(OSError):
                    run(node.pid, [command, "/run/.disk"])
            raise

        def make_room() -> str:
            # A crash of the node removes it, with everything else in /run.
            mounts = Path(f"/proc/{node.pid}/mounts").read_bytes().splitlines()
            if any(mount.split()[1] == b"/run/flannel" for mount in mounts):
                run(node.pid, ["umount", "/run/flannel"])
            return f"/run/flannel of {node.name} has free space again"

        did = f"a full file system of 12 kB is mounted over /run/flannel of {node.name}"
        return Injected(did, "by unmounting it", unless_gone(self._nodes, node, make_room))

    def jump_clock(self, request: FaultRequest) -> Injected:
        """Change the wall clock of the agent, not that of the machine, which all nodes share."""
        node, by_s = node_of(self._nodes, request), request.values[1]
        assert isinstance(by_s, float)  # the catalogue guarantees it
        environment = faked_clock(CLOCK_FILE)
        offset = node.run / Path(CLOCK_FILE).name
        replace_plain(offset, f"{by_s:+g}\n".encode())
        jumps, jump = self._jumps.setdefault(node, []), Jump(by_s)
        how = ""
        if not jumps:
            node.environment = environment
            node.agent.restart()
            how = "; it was restarted under libfaketime"
        jumps.append(jump)

        def go_back() -> str:
            left = [one for one in jumps if one is not jump]
            if left:
                replace_plain(offset, f"{left[-1].by_s:+g}\n".encode())
                jumps.remove(jump)
                return f"the clock of the agent of {node.name} is {left[-1].by_s:+g} s off"
            jumps.clear()
            # libfaketime changes more than clocks, so restart without it afterwards.
            node.environment = {}
            node.agent.restart()
            return f"the agent of {node.name} is restarted without libfaketime"

        did = f"the agent of {node.name} sees a clock that is {by_s:+g} s off{how}"
        return Injected(did, "by jumping back", unless_gone(self._nodes, node, go_back))

    def crash(self, request: FaultRequest) -> Injected:
        """Cut the power; healing restores it."""
        node = node_of(self._nodes, request)
        self._switch_off(node)
        return Injected(
            f"{node.name} lost its power: agent, pods, devices, rules and /run are gone, its links are down",
            "by restoring the power",
            unless_gone(self._nodes, node, lambda: self._switch_on(node)),
        )

    def reboot(self, request: FaultRequest) -> Injected:
        """Cut the power and restore it."""
        node, off_s = node_of(self._nodes, request), request.values[1]
        assert isinstance(off_s, float)  # the catalogue guarantees it
        self._switch_off(node)
        return Injected(
            f"{node.name} lost its power and restarts in {off_s:g} s",
            "by restoring the power",
            unless_gone(self._nodes, node, lambda: self._switch_on(node)),
            lasts_s=off_s,
        )

    def readdress(self, request: FaultRequest) -> Injected:
        """Change the underlay address, as another DHCP server would."""
        node, address = node_of(self._nodes, request), request.values[1]
        assert isinstance(address, IPv4Address)  # the catalogue guarantees it
        port = self._underlay.plan.machines[node.name].ports[0]
        taken = {one.address.ip for plan in self._underlay.plan.machines.values() for one in plan.ports}
        if address in taken or address not in port.address.network:
            want = f"want a free address of {port.address.network}"
            raise FaultImpossible(f"{request.text}: {address} cannot be {node.name}'s ({want})")
        old = node.address
        give_address(self._underlay, node, address)

        def give_back() -> str:
            give_address(self._underlay, node, old)
            return f"{node.name} has {old} again"

        did = f"{node.name} has {address} on {port.interface} instead of {old}"
        return Injected(did, "by restoring the address", unless_gone(self._nodes, node, give_back))

    def kill_pod(self, request: FaultRequest) -> Injected:
        """Kill the pause process, which holds the pod's namespaces."""
        name = str(request.values[0])
        pod = self._pods.named(name)
        if pod is None:
            raise FaultImpossible(
                f"{request.text}: no pod named {name} (there are: {listed(self._pods.names(), name)})"
            )
        pid = pod.pause_pid
        if pid is None:
            raise FaultImpossible(f"{request.text}: {name} has no pause process at the moment")
        run(None, ["kill", "-KILL", str(pid)])
        return Injected(f"SIGKILL to process {pid}, which holds the namespaces of {name}", "by the lab")

    def _machine(self, node: LabNode) -> OverlayNode:
        return self._underlay.machines[node.name]

    def _switch_off(self, node: LabNode) -> None:
        try:
            self._cut_power(node)
        except (OSError, TestbedError, AgentError):
            # As far as possible: no fault is active that could be healed later.
            with contextlib.suppress(OSError, TestbedError, AgentError):
                self._switch_on(node)
            raise

    def _cut_power(self, node: LabNode) -> None:
        node.agent.hold(grace_s=0)
        for pod in self._pods.on(node.name):
            pod.stop(grace_s=0)
        machine = self._machine(node)
        wires = [interface.name for interface in machine.intfList()]
        for interface in machine.intfList():
            interface.ifconfig("down")
        for link in node.kernel.links():
            if link.name not in ("lo", *wires):
                node.kernel.delete_link(link.name, "the machine lost its power")
        _flush_rules(node.pid)
        # A real machine keeps its certificate on a disk.
        kept = {Path(JOURNAL).name, Path(CLOCK_FILE).name, Path(TLS_DIRECTORY).name}
        for entry in node.run.iterdir():
            if entry.name in kept:
                continue
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()

    def _switch_on(self, node: LabNode) -> str:
        for interface in self._machine(node).intfList():
            interface.ifconfig("up")
        self._pin(node)
        node.agent.resume()
        in_background(f"boot {node.name}", partial(self._start_pods, node))
        return f"{node.name} is switched on; its agent starts, then its pods"

    def _start_pods(self, node: LabNode) -> None:
        deadline = time.monotonic() + BOOT_LIMIT_S
        while self._nodes.get(node.name) is node and (why := node.why_not_ready()) is not None:
            if time.monotonic() > deadline:
                self._events.note("Warning", f"node/{node.name}", "PodsNotStarted", f"after {BOOT_LIMIT_S:g} s: {why}")
                return
            time.sleep(POLL_S)
        for pod in self._pods.on(node.name):
            # It may have been deleted while others started.
            if self._pods.get(pod.key) is not pod or pod.leaves:
                continue
            try:
                pod.start()
            except OSError as failure:
                self._events.note("Warning", f"pod/{pod.name}", "NotStarted", str(failure))
                self._build_later(pod)


def _flush_rules(pid: int) -> list[str]:
    """Delete every nftables table except those of our faults and of the lab itself; return their names."""
    listed = [line.split()[1:3] for line in run(pid, ["nft", "list", "tables"]).splitlines()]
    tables = [" ".join(words) for words in listed if not words[1].startswith((TABLE_PREFIX, TABLE))]
    run(pid, ["nft", "-f", "-"], "".join(f"delete table {table}\n" for table in tables))
    return tables
