"""Partitions between machines with intact cables: nftables on the receiving machines."""

from collections.abc import Callable, Mapping, Sequence

from agent.kernel.values import IPNetwork
from testbed.faults.catalogue import FaultRequest
from testbed.faults.etcd_faults import member_of
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.faults.machines import TABLE_PREFIX, machine_pid, run, sources_of
from testbed.lab.etcd import EtcdCluster
from testbed.lab.nodes import Nodes
from testbed.lab.underlay import LabUnderlay


class PartitionFaults:
    """See the catalogue."""

    def __init__(self, underlay: LabUnderlay, nodes: Nodes, etcd: Callable[[], EtcdCluster]) -> None:
        self._underlay = underlay
        self._nodes = nodes
        self._etcd = etcd
        self._count = 0

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {"partition": self.partition, "oneway": self.oneway, "etcd partition": self.partition_member}

    def partition(self, request: FaultRequest) -> Injected:
        """Cut off both sides from each other."""
        first, second = self._sides(request)
        return self._deafen(
            [(first, second), (second, first)], f"{','.join(first)} and {','.join(second)} cannot reach each other"
        )

    def oneway(self, request: FaultRequest) -> Injected:
        """Cut off the second side from the first, in this direction only."""
        first, second = self._sides(request)
        return self._deafen([(second, first)], f"{','.join(second)} receives nothing from {','.join(first)}")

    def partition_member(self, request: FaultRequest) -> Injected:
        """Cut off one etcd member in both directions."""
        name = member_of(self._etcd(), request).name
        others = tuple(machine for machine in self._underlay.machines if machine != name)
        return self._deafen([((name,), others), (others, (name,))], f"{name} and all others cannot reach each other")

    def _sides(self, request: FaultRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
        first = request.values[0]
        second = request.values[2]
        assert isinstance(first, tuple)  # the catalogue guarantees it
        rest = tuple(name for name in self._underlay.machines if name not in first)
        named = second if isinstance(second, tuple) else rest
        for name in (*first, *named):
            machine_pid(self._underlay, name)
        if both := sorted(set(first) & set(named)):
            raise FaultImpossible(f"{request.text}: {', '.join(both)} is on both sides")
        if not named:
            raise FaultImpossible(f"{request.text}: the other side is empty")
        return first, named

    def _deafen(self, pairs: Sequence[tuple[Sequence[str], Sequence[str]]], what: str) -> Injected:
        """Make the first machines of each pair drop packets from the second ones."""
        self._count += 1
        table = f"{TABLE_PREFIX}{self._count}"
        machines = self._underlay.machines
        pids = {name: machine_pid(self._underlay, name) for listeners, _ in pairs for name in listeners}
        # All of them first: a machine that is deleted meanwhile must not end it half way.
        scripts = [drop_script(table, sources_of(self._underlay, self._nodes, silenced)) for _, silenced in pairs]
        made: list[str] = []
        try:
            for (listeners, _), script in zip(pairs, scripts, strict=True):
                for name in listeners:
                    run(pids[name], ["nft", "-f", "-"], script)
                    made.append(name)
        except OSError:
            _remove(table, [pids[name] for name in made])
            raise

        def remove() -> str:
            now = self._underlay.machines
            there = [name for name in made if now.get(name) is machines[name]]
            gone = "".join(f"; {name} is gone" for name in made if name not in there)
            _remove(table, [pids[name] for name in there])
            return f"nftables table {table} is removed from {', '.join(there) or 'no machine'}{gone}"

        return Injected(f"{what}: nftables drops packets from there (table {table})", "by removing the table", remove)


def drop_script(table: str, sources: Sequence[IPNetwork]) -> str:
    """Return a script for nft that drops everything from these addresses. Pure."""
    rules = ""
    for version, word in ((4, "ip"), (6, "ip6")):
        texts = [str(source) for source in sources if source.version == version]
        rules += f"  {word} saddr {{ {', '.join(texts)} }} counter drop\n" if texts else ""
    # Before connection tracking and before every other table.
    return f"table inet {table} {{\n chain in {{\n  type filter hook prerouting priority -400;\n{rules} }}\n}}\n"


def _remove(table: str, pids: Sequence[int]) -> None:
    """Remove the table wherever it can be. Raises OSError, the first, if it cannot be somewhere."""
    failures = []
    for pid in pids:
        try:
            # Adding an existing table is fine, deleting a missing one is an error.
            run(pid, ["nft", "-f", "-"], f"table inet {table}\ndelete table inet {table}\n")
        except OSError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
