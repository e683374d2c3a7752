"""The underlay: its machines, switches and cables (machines.py), put together as planned.

Everything here happens inside the lab's own namespaces. If switches form a loop, their bridges run the spanning tree
protocol. Its listening and learning would take 4 s, so the cables of the resulting tree are plugged in first, while it
is off; the spare ones when it is on.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from mininet.log import setLogLevel
from mininet.net import Mininet

from agent.kernel.journal import Journal
from agent.kernel.kernel import Kernel
from testbed.cluster.shaping import queueing_commands
from testbed.cluster.underlay_plan import MachinePlan, UnderlayPlan
from testbed.cluster.wiring import Cable
from testbed.control.options import MACHINES
from testbed.lab.machines import (
    BridgeSwitch,
    OverlayNode,
    Router,
    SpareLink,
    VethInterface,
    VethLink,
    run_command,
    wanted_namespace,
)
from testbed.lab.open_vswitch import OpenVSwitch, OpenVSwitchSwitch, no_offload
from testbed.pods.tmpfs import MIB, mount_tmpfs
from testbed.processes.namespaces import in_network_of

MachineReport = Callable[[str, Literal["Normal", "Warning"], str, str], None]
"""Called with a machine's name, an event's type, reason and message, from any thread."""
OVS_FILES_MIB = 64
MAKERS = 4
"""Machines created at the same time."""


class LabUnderlay:
    """The built network: `machines` by name, and Mininet's own object for its prompt."""

    def __init__(
        self, plan: UnderlayPlan, directory: Path, journal_of: Callable[[str], Journal], report: MachineReport
    ) -> None:
        self.plan = plan
        self._lab_files = directory / MACHINES
        self._journal_of = journal_of
        self._report = report
        self.kernel = Kernel(journal_of("lab"))
        setLogLevel("warning")
        # Its constructor would otherwise change sysctls of the whole machine.
        Mininet.inited = True
        self.net = Mininet(topo=None, host=OverlayNode, link=VethLink, intf=VethInterface, controller=None, build=False)
        self.machines: Mapping[str, OverlayNode] = {}
        """Replaced as a whole when a machine is added or removed."""
        self._making = threading.Lock()
        self.open_vswitch = None
        if plan.open_vswitch:
            mount_tmpfs(directory / "ovs", OVS_FILES_MIB * MIB, 0o700)
            self.open_vswitch = OpenVSwitch(directory / "ovs", directory / "logs", self.kernel)

    def start(self) -> None:
        """Build switches, machines and cables; then addresses, routes and neighbours."""
        # Missing if br_netfilter is a module that is not loaded.
        if self.kernel.read_sysctl("net.bridge.bridge-nf-call-iptables") is not None:
            self.kernel.sysctl("net.bridge.bridge-nf-call-iptables", "0", "switches do not filter packets")
        self.kernel.converge(wanted_namespace(ipv6=False))
        self._make_everything()
        ports = {name: iter(machine.ports) for name, machine in self.plan.machines.items()}
        spare = []
        for number, cable in enumerate(self.plan.cables):
            macs = [next(ports[end]).mac if end in ports else None for end in cable.ends]
            held_back = number in self.plan.spare
            link = self.connect(cable, macs, held_back)
            spare += [link.intf1, link.intf2] if held_back else []
        self.net.built = True
        if self.open_vswitch is not None:
            self.open_vswitch.start()
        self.net.start()
        self._span_tree(spare)
        for name, machine in self.plan.machines.items():
            self.machines[name].take_place(machine)

    def address_of(self, name: str) -> IPv4Address:
        """Return the underlay address of a machine; a router's first."""
        return self.plan.machines[name].ports[0].address.ip

    def _make_everything(self) -> None:
        """Create switches and machines, several at a time: each waits for its own shell."""
        with ThreadPoolExecutor(MAKERS, "make machine") as makers:
            list(makers.map(self._add_switch, self.plan.switches))
            list(makers.map(self.make_machine, self.plan.machines.values()))
        order = {name: number for number, name in enumerate((*self.plan.switches, *self.plan.machines))}
        for made in (self.net.switches, self.net.hosts):
            made.sort(key=lambda node: order[node.name])

    def _add_switch(self, name: str) -> None:
        if self.open_vswitch is not None:
            made = OpenVSwitchSwitch
            parameters: dict[str, Any] = {"open_vswitch": self.open_vswitch}
        else:
            made, parameters = BridgeSwitch, {}
        self.net.addSwitch(name, cls=made, kernel=self.kernel, underlay_mtu=self.plan.mtu, **parameters)

    def make_machine(self, plan: MachinePlan) -> OverlayNode:
        """Create a machine with its own namespaces and no cable yet. Raises OSError."""
        made: OverlayNode = self.net.addHost(
            plan.name,
            cls=Router if plan.forwards else OverlayNode,
            lab_files=self._lab_files,
            files_mib=plan.files_mib,
            journal=self._journal_of(plan.name),
            report=partial(self._report, plan.name),
            underlay_mtu=self.plan.mtu,
            ipv6=self.plan.ipv6,
        )
        with self._making:
            self.machines = {**self.machines, plan.name: made}
        return made

    def connect(self, cable: Cable, macs: Sequence[str | None], held_back: bool = False) -> Any:
        """Plug a cable in at both ends, shaped as specified; a blocked one stays down."""
        # The kernel brings the second end up only once the pair exists.
        second: dict[str, Any] = {"up": None if held_back else True}
        made = SpareLink if held_back else VethLink
        link = self.net.addLink(
            cable.first, cable.second, cls=made, addr1=macs[0], addr2=macs[1], params1={"up": None}, params2=second
        )
        for interface in (link.intf1, link.intf2):
            if self.open_vswitch is not None:
                self._shape(interface, no_offload(interface.name), "packets in user space must be complete")
            for command in queueing_commands(interface.name, cable.shaping):
                self._shape(interface, command, f"the cable {cable} is shaped")
        return link

    def _shape(self, interface: VethInterface, command: Sequence[str], why: str) -> None:
        journal = interface.node.kernel.journal
        if interface.node.name in self.machines:
            in_network_of(interface.node.pid, lambda: run_command(journal, command, why))
        else:
            run_command(journal, command, why)

    def _span_tree(self, spare: Sequence[VethInterface]) -> None:
        if spare:
            for switch in self.net.switches:
                switch.span_tree(self.plan.priorities[switch.name])
        for interface in spare:
            interface.ifconfig("up")
