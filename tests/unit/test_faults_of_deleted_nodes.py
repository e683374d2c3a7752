"""A fault whose node is deleted meanwhile ends, and stops no other; one that fails half way is taken back."""

import threading
from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import NetlinkError
from testbed.cluster.wiring import Cable, Shaping
from testbed.faults import link_faults, node_faults, partition_faults
from testbed.faults.agent_faults import AgentFaults
from testbed.faults.catalogue import parse
from testbed.faults.ledger import Injected
from testbed.faults.link_faults import LinkFaults
from testbed.faults.machines import wire_between
from testbed.faults.node_faults import NodeFaults
from testbed.faults.partition_faults import PartitionFaults
from testbed.lab.nodes import Nodes
from tests.waiting import wait_until

GONE = "node2 is gone; nothing to restore"


class Port:
    """A cable's end, which can be set up and down while it exists."""

    def __init__(self, owner: SimpleNamespace, name: str) -> None:
        self.node, self.name = owner, name
        self.exists = True
        self.log: list[str] = []

    def ifconfig(self, state: str) -> str:
        if not self.exists:
            raise NetlinkError(f"ip link set {self.name} {state}: No such device")
        self.log.append(state)
        return ""


class Node(SimpleNamespace):
    """As much of a LabNode as faults look at; each is a key of its own."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # SimpleNamespace has none


class Lab:
    """Nodes on a switch, as far as faults see them."""

    def __init__(self, *names: str) -> None:
        self.nodes = Nodes()
        self.switch = SimpleNamespace(name="s1")
        self.links: list[Any] = []
        known: dict[str, Any] = {"s1": self.switch}
        self.underlay: Any = SimpleNamespace(
            machines={},
            open_vswitch=None,
            plan=SimpleNamespace(cables=[], machines={}),
            net=SimpleNamespace(nameToNode=known, links=self.links, linksBetween=self.links_between),
        )
        self.pods = Pods()
        self.retried: list[Any] = []
        """Pods that were handed on, to be built later."""
        for number, name in enumerate(names):
            self.add(name, pid=number + 1)

    def add(self, name: str, pid: int) -> None:
        machine = SimpleNamespace(name=name, pid=pid, plan=None, intfList=list)
        port = Port(self.switch, f"s1-eth{pid}")
        self.links.append(SimpleNamespace(intf1=Port(machine, f"{name}-eth0"), intf2=port))
        self.underlay.machines = {**self.underlay.machines, name: machine}
        self.underlay.net.nameToNode[name] = machine
        address = SimpleNamespace(interface=f"{name}-eth0", address=IPv4Interface(f"192.168.8.{pid}/24"))
        self.underlay.plan.machines[name] = SimpleNamespace(ports=[address])
        agent = SimpleNamespace(
            pid=100 + pid, state="running", hold=lambda **_: None, resume=lambda: None, restart=lambda: None
        )
        node: Any = Node(
            name=name, pid=pid, expected=True, agent=agent, environment={}, run=Path("/run"), address=address.address.ip
        )
        self.nodes.add([node])

    def delete(self, name: str) -> None:
        self.nodes.forget(self.nodes[name])
        del self.underlay.plan.machines[name]
        self.underlay.machines = {other: one for other, one in self.underlay.machines.items() if other != name}
        (link,) = self.links_between(self.underlay.net.nameToNode.pop(name), self.switch)
        self.links.remove(link)
        link.intf1.exists = link.intf2.exists = False

    def links_between(self, first: SimpleNamespace, second: SimpleNamespace) -> list[Any]:
        return [one for one in self.links if {one.intf1.node.name, one.intf2.node.name} == {first.name, second.name}]


class Pods(list[Any]):
    """The pods of the one node that has some."""

    def on(self, _node: str) -> list[Any]:
        return list(self)

    def get(self, key: str) -> SimpleNamespace | None:
        return next((pod for pod in self if pod.key == key), None)


class Programs:
    """The programs that were run, in which namespaces; the dead ones have none."""

    def __init__(self) -> None:
        self.ran: list[tuple[int | None, str]] = []
        self.dead: set[int | None] = set()
        self.broken: set[int | None] = set()
        self.plain: set[int | None] = set()
        """Those with the kernel's own queue, which cannot be deleted."""
        self.no_netem = False

    def run(self, pid: int | None, command: Sequence[str], stdin: str = "") -> str:
        if pid in self.dead:
            raise OSError(f"nsenter: cannot open /proc/{pid}/ns/net: No such file or directory")
        if pid in self.broken:
            raise OSError("nft: Device or resource busy")
        if self.no_netem and "netem" in command:
            raise OSError("tc: Error: Specified qdisc kind is unknown.")
        if pid in self.plain:
            if "del" in command:
                raise OSError("tc qdisc del: Error: Cannot delete qdisc with handle of zero.")
            if "show" in command:
                return "qdisc noqueue 0: root refcnt 2\n"
        self.ran.append((pid, " ".join(command) + stdin))
        return ""


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    for module in (link_faults, node_faults, partition_faults):
        monkeypatch.setattr(module, "run", programs.run)
    return programs


@pytest.fixture
def lab() -> Lab:
    return Lab("node1", "node2", "node3")


def undo(done: Injected) -> str:
    assert done.undo is not None
    return done.undo()


def node_faults_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> NodeFaults:
    events: Any = SimpleNamespace(note=lambda *_: None)
    pods: Any = lab.pods
    faults = NodeFaults(lab.nodes, pods, lab.underlay, events, lambda _: None, lab.retried.append)
    monkeypatch.setattr(faults, "_switch_off", lambda _: None)
    monkeypatch.setattr(node_faults, "give_address", lambda *_: None)
    monkeypatch.setattr(node_faults, "faked_clock", lambda _: {"LD_PRELOAD": "libfaketime"})
    monkeypatch.setattr(node_faults, "replace_plain", lambda *_: None)
    return faults


def partition_faults_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> PartitionFaults:
    monkeypatch.setattr(partition_faults, "sources_of", lambda *_: [])
    etcd: Any = SimpleNamespace(members=())
    return PartitionFaults(lab.underlay, lab.nodes, lambda: etcd)


@pytest.mark.parametrize(
    "text",
    [
        "node crash node2",
        "node reboot node2 30s",
        "node readdress node2 192.168.8.150",
        "disk full node2",
        "clock jump node2 1h",
    ],
)
def test_a_fault_of_a_deleted_node_has_nothing_to_restore(
    text: str, lab: Lab, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = parse(text.split())
    done = node_faults_of(lab, monkeypatch).injectors()[request.kind.name](request)
    lab.delete("node2")
    programs.dead = {2}
    assert undo(done) == GONE


def test_a_pod_that_is_deleted_while_its_node_boots_is_not_started(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def add(name: str, *, leaves: bool = False, deletes: Sequence[str] = ()) -> None:
        def start() -> None:
            started.append(name)
            lab.pods[:] = [pod for pod in lab.pods if pod.key not in deletes]

        lab.pods.append(SimpleNamespace(key=name, name=name, leaves=leaves, start=start))

    add("first", deletes=["gone"])
    add("gone")
    add("leaving", leaves=True)
    add("last")
    cast(Any, lab.nodes["node2"]).why_not_ready = lambda: None
    undo(node_faults_of(lab, monkeypatch).crash(parse(["node", "crash", "node2"])))
    wait_until(lambda: started[-1:] == ["last"], timeout_s=5, what="the pods are started")
    assert started == ["first", "last"]


def test_a_pod_that_cannot_be_built_while_its_node_boots_is_built_later(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError("no address yet")

    pod: Any = SimpleNamespace(key="late", name="late", leaves=False, start=refuse)
    lab.pods.append(pod)
    cast(Any, lab.nodes["node2"]).why_not_ready = lambda: None
    undo(node_faults_of(lab, monkeypatch).crash(parse(["node", "crash", "node2"])))
    wait_until(lambda: lab.retried == [pod], timeout_s=5, what="the pod is handed on")


def test_an_agent_that_was_stopped_is_not_restarted_on_a_deleted_node(lab: Lab) -> None:
    done = AgentFaults(lab.nodes).stop(parse(["agent", "stop", "node2"]))
    lab.delete("node2")
    lab.add("node2", pid=4)
    assert undo(done) == GONE, "the new node of this name is another one"


@pytest.mark.parametrize("text", ["link down node2 s1", "link rate node2 s1 5", "link loss node2 s1 30"])
def test_a_fault_of_a_deleted_nodes_cable_has_nothing_to_restore(text: str, lab: Lab, programs: Programs) -> None:
    request = parse(text.split())
    done = LinkFaults(lab.underlay).injectors()[request.kind.name](request)
    lab.delete("node2")
    programs.dead = {2}
    assert undo(done) == "the cable node2 s1 is gone; nothing to restore"


def test_a_cable_keeps_its_own_shaping_when_a_node_before_it_is_deleted(lab: Lab) -> None:
    shaped = Cable("node3", "s1", Shaping(bandwidth=5))
    lab.underlay.plan.cables = [Cable("node1", "s1"), Cable("node2", "s1"), shaped]
    before = wire_between(lab.underlay, "node3", "s1").shaping
    assert all("tbf" in " ".join(commands[0]) for commands in before), before
    lab.delete("node1")
    lab.underlay.plan.cables = [Cable("node2", "s1"), shaped]
    assert wire_between(lab.underlay, "node3", "s1").shaping == before
    assert wire_between(lab.underlay, "node2", "s1").shaping == [[], []]


@pytest.mark.parametrize("healed_before", [True, False])
def test_the_cable_of_a_node_that_was_added_again_can_be_impaired(
    healed_before: bool, lab: Lab, programs: Programs
) -> None:
    faults = LinkFaults(lab.underlay)
    request = parse(["link", "loss", "node2", "s1", "30"])
    first = faults.impair(request)
    if healed_before:
        undo(first)
    lab.delete("node2")
    lab.add("node2", pid=4)
    programs.dead = {2}
    again = faults.impair(request)
    if not healed_before:
        assert undo(first) == "the cable node2 s1 is gone; nothing to restore"
    programs.ran.clear()
    assert undo(again) == "node2 s1: no more loss"
    assert [pid for pid, _ in programs.ran] == [4, None]


def test_impairments_of_one_cable_add_up_and_are_healed_one_by_one(lab: Lab, programs: Programs) -> None:
    faults = LinkFaults(lab.underlay)
    loss = faults.impair(parse(["link", "loss", "node2", "s1", "30"]))
    delay = faults.impair(parse(["link", "delay", "s1", "node2", "50ms"]))
    assert undo(loss) == "node2 s1: no more loss; still delay 50ms"
    again = faults.impair(parse(["link", "loss", "node2", "s1", "10"]))
    assert undo(delay) == "node2 s1: no more delay; still loss 10%"
    assert undo(again) == "node2 s1: no more loss"


@pytest.mark.parametrize("text", ["link loss node2 s1 30", "link rate node2 s1 5"])
def test_what_only_one_end_of_a_cable_gets_is_taken_back(text: str, lab: Lab, programs: Programs) -> None:
    request = parse(text.split())
    inject = LinkFaults(lab.underlay).injectors()[request.kind.name]
    undo(inject(request))
    programs.broken = {None}
    programs.ran.clear()
    with pytest.raises(OSError, match="busy"):
        inject(request)
    assert [(pid, "qdisc del" in said) for pid, said in programs.ran] == [(2, False), (2, True)]
    programs.broken = set()
    assert inject(request).undo is not None


@pytest.mark.parametrize("text", ["link loss node2 s1 30", "link rate node2 s1 5"])
def test_a_cable_of_which_one_end_is_restored_can_be_healed(text: str, lab: Lab, programs: Programs) -> None:
    request = parse(text.split())
    done = LinkFaults(lab.underlay).injectors()[request.kind.name](request)
    programs.broken = {None}
    with pytest.raises(OSError, match="busy"):
        undo(done)
    programs.broken, programs.plain = set(), {2}
    programs.ran.clear()
    undo(done)
    assert programs.ran[-1] == (None, "tc qdisc del dev s1-eth2 root")


def test_a_cable_gets_netem_although_an_earlier_look_for_it_failed(lab: Lab, programs: Programs) -> None:
    faults, request = LinkFaults(lab.underlay), parse(["link", "loss", "node2", "s1", "30"])
    programs.no_netem = True
    without = faults.impair(request)
    assert without.did.startswith("nftables")
    undo(without)
    programs.no_netem = False
    assert faults.impair(request).did.startswith("tc qdisc netem")
    assert all("dev lo" not in said or said.startswith("unshare --net ") for _, said in programs.ran)


def test_a_flapping_cable_that_is_gone_ends_its_flapping(lab: Lab) -> None:
    def flaps() -> bool:
        return any(thread.name.startswith("flap ") for thread in threading.enumerate())

    done = LinkFaults(lab.underlay).flap(parse(["link", "flap", "node2", "s1", "1000", "20ms"]))
    assert flaps()
    lab.delete("node2")
    # An exception of the thread would be a warning, and so a failure.
    wait_until(lambda: not flaps(), timeout_s=5, what="the flapping ends by itself")
    assert undo(done) == "the cable node2 s1 is gone; nothing to restore"


def test_healing_a_partition_from_a_deleted_node_frees_every_other_machine(
    lab: Lab, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = partition_faults_of(lab, monkeypatch).partition(parse(["partition", "node2"]))
    lab.delete("node2")
    programs.dead = {2}
    programs.ran.clear()
    assert undo(done) == "nftables table testbed-fault-1 is removed from node1, node3; node2 is gone"
    assert [pid for pid, said in programs.ran if "delete table" in said] == [1, 3]


def test_a_machine_that_keeps_its_table_does_not_keep_that_of_others(
    lab: Lab, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = partition_faults_of(lab, monkeypatch).partition(parse(["partition", "node2"]))
    programs.broken = {2}
    programs.ran.clear()
    with pytest.raises(OSError, match="busy"):
        undo(done)
    assert [pid for pid, said in programs.ran if "delete table" in said] == [1, 3]


def test_a_partition_from_a_machine_that_is_just_deleted_leaves_no_half_of_it(
    lab: Lab, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sources(_underlay: object, _nodes: object, names: Sequence[str]) -> list[Any]:
        if "node2" in names:
            raise KeyError("node2")
        return []

    faults = partition_faults_of(lab, monkeypatch)
    monkeypatch.setattr(partition_faults, "sources_of", sources)
    with pytest.raises(KeyError):
        faults.partition(parse(["partition", "node2"]))
    assert programs.ran == []


def test_a_crash_that_fails_half_way_is_taken_back(lab: Lab, programs: Programs, tmp_path: Path) -> None:
    said: list[str] = []
    node, pods, events = cast(Any, lab.nodes["node2"]), cast(Any, lab.pods), cast(Any, None)
    node.agent.hold, node.agent.resume = lambda **_: said.append("held"), lambda: said.append("resumed")
    node.kernel, node.why_not_ready, node.run = SimpleNamespace(links=list), lambda: None, tmp_path
    programs.broken = {2}
    faults = NodeFaults(lab.nodes, pods, lab.underlay, events, lambda _: None, lab.retried.append)
    with pytest.raises(OSError, match="busy"):
        faults.crash(parse(["node", "crash", "node2"]))
    assert said == ["held", "resumed"]


def test_a_disk_that_cannot_be_filled_leaves_no_file_system(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(_pid: object, command: Sequence[str]) -> str:
        ran.append(" ".join(command))
        if "mount -t tmpfs" in command[-1]:
            raise OSError("cp: No space left on device")
        return ""

    faults = node_faults_of(lab, monkeypatch)
    monkeypatch.setattr(node_faults, "run", run)
    with pytest.raises(OSError, match="No space left"):
        faults.fill_disk(parse(["disk", "full", "node2"]))
    assert ran[1:] == ["umount /run/.disk", "rmdir /run/.disk"]
