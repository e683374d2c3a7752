"""Adds, removes and readdresses machines of a running underlay, and updates the others."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

from agent.kernel.values import IPAddress
from testbed.cluster.underlay_plan import MachinePlan, UnderlayPlan
from testbed.cluster.wiring import Cable
from testbed.lab.machines import OverlayNode
from testbed.lab.node import LabNode
from testbed.lab.underlay import LabUnderlay


def add_machine(underlay: LabUnderlay, plan: UnderlayPlan, name: str, cable: Cable) -> OverlayNode:
    """Create the machine `name` of `plan`, plug `cable` in, and update all machines. Raises OSError."""
    machine = underlay.make_machine(plan.machines[name])
    link = underlay.connect(cable, [plan.machines[name].ports[0].mac, None])
    switch = underlay.net.nameToNode[cable.second]
    switch.plug(link.intf2.name)
    machine.take_place(plan.machines[name])
    _update_others(underlay, plan)
    return machine


def remove_machine(underlay: LabUnderlay, plan: UnderlayPlan, name: str) -> None:
    """Switch the machine off, with everything that runs on it; `plan` is the rest."""
    machine = underlay.machines[name]
    for link in [one for one in underlay.net.links if machine in (one.intf1.node, one.intf2.node)]:
        near, far = (link.intf1, link.intf2) if link.intf1.node is machine else (link.intf2, link.intf1)
        machine.kernel.delete_link(near.name, f"{name} is removed from the underlay")
        far.node.delIntf(far)
        if far.node.name in plan.switches:
            far.node.unplug(far.name)
        underlay.net.links.remove(link)
    machine.kernel.close()
    machine.terminate()
    underlay.net.hosts.remove(machine)
    del underlay.net.nameToNode[name]
    underlay.machines = {other: one for other, one in underlay.machines.items() if other != name}
    _update_others(underlay, plan)


def give_address(underlay: LabUnderlay, node: LabNode, address: IPv4Address) -> None:
    """Give the node another address on its first port, and update the others."""
    plan = underlay.plan.machines[node.name]
    first = replace(plan.ports[0], address=IPv4Interface((address, plan.ports[0].address.network.prefixlen)))
    machine, old = underlay.machines[node.name], node.address
    node.address = address
    changed = {node.name: replace(plan, ports=(first, *plan.ports[1:]))}
    for name, other in underlay.plan.machines.items():
        known = tuple(replace(one, address=address) if one.address == old else one for one in other.neighbours)
        if known != other.neighbours:
            changed[name] = replace(other, neighbours=known)
    underlay.plan = replace(underlay.plan, machines={**underlay.plan.machines, **changed})
    for name, other in changed.items():
        underlay.machines[name].plan = other
        for port in other.ports:
            if name != node.name:
                underlay.machines[name].restore(port.interface)
    machine.intf(first.interface).setIP(str(first.address))
    machine.restore(first.interface)


def _update_others(underlay: LabUnderlay, plan: UnderlayPlan) -> None:
    """Bring every other machine's neighbours and routes in line with the new plan."""
    before, underlay.plan = underlay.plan.machines, plan
    for name, machine in underlay.machines.items():
        wanted = plan.machines[name]
        for gone in _former_neighbours(before, wanted):
            machine.kernel.delete_neighbour(*gone, f"this machine is gone; {name} forgets it")
        machine.follow(wanted)


def _former_neighbours(before: Mapping[str, MachinePlan], wanted: MachinePlan) -> list[tuple[str, IPAddress]]:
    if wanted.name not in before:
        return []
    now = {(one.interface, one.address) for one in wanted.neighbours}
    former = {(one.interface, one.address) for one in before[wanted.name].neighbours}
    return sorted(former - now, key=str)
