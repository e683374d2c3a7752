"""One node's nftables table for Services: what it should be, put into the kernel, kept there."""

import json
import subprocess
import threading
from collections.abc import Iterable

from agent.kernel import nftables
from agent.kernel.kernel import Kernel, NetlinkError
from agent.kernel.values import IPNetwork
from testbed.lab.etcd import enter_machine
from testbed.processes.namespaces import in_network_of
from testbed.services.endpoints import HostPort
from testbed.services.rules import WORDS, Everywhere, skeleton, wanted
from testbed.services.ruleset import TABLE, Ruleset, difference, whole
from testbed.services.udp_flows import FlowNode, Key, Translations, on_node, unsettled

LIMIT_S = 20.0


class ServicesNotProgrammed(Exception):
    """nft or the kernel refused; the message is its own."""


class Programmer:
    """Keeps one node's table equal to what Services and pods want. Methods may be called from several threads."""

    def __init__(self, node: str, pid: int, pod_network: IPNetwork, kernel: Kernel) -> None:
        """`pid` is a process in the node's namespaces; the table is of the family of `pod_network`."""
        self.node = node
        self.pid = pid
        self._pod_network = pod_network
        self._kernel = kernel
        self._there: Ruleset | None = None
        """What we have put there; None: nothing yet."""
        self._translations: Translations = {}
        """Of UDP, by the table that is there."""
        self._unsettled: frozenset[Key] = frozenset()
        """Keys of which flows may be remembered that began when the table was another."""
        self._just_settled: frozenset[Key] = frozenset()
        """Those to look at once more: a packet that met the old rules may have been remembered after we looked."""
        self._generation = -1
        """Of the namespace's rules when we looked last."""
        self._turn = threading.Lock()

    def program(self, common: Everywhere, ports: Iterable[HostPort]) -> None:
        """Bring the table to this. Raises ServicesNotProgrammed, and tries the whole table at the next call."""
        ports = tuple(ports)
        now = wanted(self.node, common, ports, self._pod_network)
        translations = on_node(self.node, common.translations, common.local, ports)
        with self._turn:
            if self._there is None and now.is_empty:
                return
            if self._there is None:
                self._load(whole(skeleton(self._pod_network), now), "Services answer on this node")
                self._unsettled |= self._translations.keys() | translations.keys()
            elif script := difference(self._there, now):
                self._load(script, "Services or their pods have changed")
            self._there = now
            self._unsettled |= unsettled(self._translations, translations)
            self._translations = translations
            self._settle()

    def mend(self) -> bool:
        """Make the table anew when somebody has changed it; returns whether it had to. Costs nothing otherwise."""
        with self._turn:
            if self._just_settled:
                self._forget_flows(self._just_settled)
                self._just_settled = frozenset()
            if self._there is None or rules_generation(self.pid) == self._generation:
                return False
            # Read before looking: a change in between is seen next time.
            self._generation = rules_generation(self.pid)
            if self._is_whole():
                return False
            self._load(whole(skeleton(self._pod_network), self._there), "somebody has changed the rules of Services")
            self._unsettled |= self._translations.keys()
            self._settle()
            return True

    def _is_whole(self) -> bool:
        listing = self._run(["nft", "-j", "list", "table", WORDS[self._pod_network.version], TABLE])
        if listing.returncode != 0 or self._there is None:
            return False
        rules: dict[str, int] = {}
        elements: dict[str, int] = {}
        for item in json.loads(listing.stdout)["nftables"]:
            if "chain" in item:
                rules.setdefault(item["chain"]["name"], 0)
            elif "rule" in item:
                rules[item["rule"]["chain"]] = rules.get(item["rule"]["chain"], 0) + 1
            elif "map" in item or "set" in item:
                found = item.get("map") or item["set"]
                elements[found["name"]] = len(found.get("elem", []))
        base = {name: count for name, count in rules.items() if name not in self._there.chains}
        ours = {name: rules.get(name, -1) for name in self._there.chains}
        return (
            base == BASE_RULES
            and ours == self._there.rule_counts
            and all(elements.get(name) == count for name, count in self._there.element_counts.items())
        )

    def _settle(self) -> None:
        """Let the flows of changed keys begin again. Raises as `_forget_flows`, and tries again at the next call."""
        if self._unsettled:
            self._forget_flows(self._unsettled)
            self._just_settled |= self._unsettled
            self._unsettled = frozenset()

    def _forget_flows(self, keys: frozenset[Key]) -> None:
        """Let the kernel forget the UDP flows of these keys that the table as it is now would send elsewhere.

        Raises OSError and ServicesNotProgrammed.
        """
        # Imported here: without UDP it is not needed, and it brings much.
        from agent.kernel.conntrack import forget_flows, words

        version = self._pod_network.version
        try:
            node = FlowNode(self._translations, self._kernel.own_addresses(version), self._pod_network)
        except NetlinkError as error:
            raise ServicesNotProgrammed(f"{self.node}: {error}") from error
        ports = frozenset(port for _, port in keys)
        forgotten = in_network_of(
            self.pid, lambda: forget_flows(version, lambda flow: node.is_stale(flow, keys), ports)
        )
        for command in words(forgotten):
            self._kernel.journal.record(command, "these flows began when Services led elsewhere")

    def _load(self, script: str, why: str) -> None:
        before = rules_generation(self.pid)
        done = self._run(["nft", "-f", "-"], script)
        if done.returncode != 0:
            self._there = None
            raise ServicesNotProgrammed(f"{self.node}: {done.stderr.strip().splitlines()[0]}")
        # Had somebody else changed something meanwhile, it would be more: then `mend` looks.
        self._generation = before + 1
        self._kernel.journal.record(["nft", "-f", "-"], why, script)

    def _run(self, command: list[str], script: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*enter_machine(self.pid), *command],
            input=script,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


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


def rules_generation(pid: int) -> int:
    """Return the number that the kernel raises with every change of the rules in a process's network namespace."""
    return in_network_of(pid, nftables.generation)
