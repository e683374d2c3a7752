"""One node's nftables table for Services: its wanted state, written to the kernel and kept."""

import threading
from collections.abc import Iterable

from agent.kernel.kernel import Kernel
from agent.kernel.values import IPNetwork
from testbed.lab.kept_table import KeptTable, RulesWatch
from testbed.processes.namespaces import in_network_of
from testbed.services.endpoints import HostPort
from testbed.services.rules import Everywhere, skeleton, wanted
from testbed.services.udp_flows import FlowNode, Key, Translations, on_node, unsettled

WHY_REPAIR = "another program changed the rules of Services"


class Programmer:
    """Keeps one node's table equal to the Services and pods. Methods may be called from several threads."""

    def __init__(self, node: str, pid: int, pod_network: IPNetwork, kernel: Kernel) -> None:
        """`pid` is a process in the node's namespaces; the table has the family of `pod_network`."""
        self.node = node
        self.pid = pid
        self._pod_network = pod_network
        self._kernel = kernel
        self._rules = RulesWatch(pid)
        self._table = KeptTable(self._rules, kernel.journal, skeleton(pod_network), BASE_RULES)
        self._translations: Translations = {}
        """UDP translations of the current table."""
        self._unsettled: frozenset[Key] = frozenset()
        """Keys whose remembered flows may be older than the current table."""
        self._just_settled: frozenset[Key] = frozenset()
        """Keys to check once more: a packet that met the old rules may have been remembered after the check."""
        self._turn = threading.Lock()

    def program(self, common: Everywhere, ports: Iterable[HostPort]) -> None:
        """Write this table. Raises TableRefused, and retries the whole table at the next call."""
        ports = tuple(ports)
        now = wanted(self.node, common, ports, self._pod_network)
        translations = on_node(self.node, common.translations, common.local, ports)
        with self._turn:
            is_whole = self._table.put(now, "Services answer on this node", "Services or their pods have changed")
            if not self._table.is_there:
                return
            if is_whole:
                self._unsettled |= self._translations.keys() | translations.keys()
            self._unsettled |= unsettled(self._translations, translations)
            self._translations = translations
            self._settle()

    def repair(self) -> bool:
        """Restore the table if another program changed it; return whether it had to. Costs nothing otherwise."""
        with self._turn:
            if self._just_settled:
                self._forget_flows(self._just_settled)
                self._just_settled = frozenset()
            if not self._rules.moved() or not self._table.repair(WHY_REPAIR):
                return False
            self._unsettled |= self._translations.keys()
            self._settle()
            return True

    def _settle(self) -> None:
        """Make the flows of changed keys start again. Raises as `_forget_flows`, and retries at the next call."""
        if self._unsettled:
            self._forget_flows(self._unsettled)
            self._just_settled |= self._unsettled
            self._unsettled = frozenset()

    def _forget_flows(self, keys: frozenset[Key]) -> None:
        """Make the kernel forget the UDP flows of these keys that the current table would translate differently.

        Raises OSError and NetlinkError.
        """
        # Imported here: without UDP it is not needed, and it loads much.
        from agent.kernel.conntrack import forget_flows, words

        version = self._pod_network.version
        node = FlowNode(self._translations, self._kernel.own_addresses(version), self._pod_network)
        ports = frozenset(port for _, port in keys)
        forgotten = in_network_of(
            self.pid, lambda: forget_flows(version, lambda flow: node.is_stale(flow, keys), ports)
        )
        for command in words(forgotten):
            self._kernel.journal.record(command, "these flows are older than the rules of Services")


BASE_RULES = {
    "refuse": 2,
    "ignore": 1,
    "prerouting": 4,
    "output": 4,
    "filter-forward": 2,
    "filter-input": 2,
    "filter-output": 2,
    "postrouting": 2,
}
"""How many rules each chain of the skeleton has."""
