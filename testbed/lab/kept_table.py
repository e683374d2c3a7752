"""One nftables table of a node: written from a value, and restored when another program changes it."""

import json
import subprocess
from collections.abc import Mapping

from agent.kernel import nftables
from agent.kernel.journal import Journal
from testbed.lab.etcd import enter_machine
from testbed.lab.ruleset import Ruleset, difference, whole
from testbed.processes.namespaces import in_network_of

LIMIT_S = 20.0


class TableRefused(Exception):
    """nft or the kernel refused a table; the message is theirs."""


class KeptTable:
    """Keeps a table equal to the wanted one. For one thread at a time, which the caller ensures."""

    def __init__(self, node: str, pid: int, journal: Journal, skeleton: str, base_rules: Mapping[str, int]) -> None:
        """`pid` is a process in the node's namespaces; `base_rules`: how many rules each chain of the skeleton has."""
        self._node = node
        self._pid = pid
        self._journal = journal
        self._skeleton = skeleton
        self._base_rules = base_rules
        self._there: Ruleset | None = None
        """What we have written; None: nothing yet."""
        self._generation = -1
        """Generation of the namespace's rules at the last check."""

    @property
    def is_there(self) -> bool:
        """Return whether the table was written."""
        return self._there is not None

    def put(self, wanted: Ruleset, why_first: str, why_later: str) -> None:
        """Bring the table to this, with a minimal change; an empty one is not created.

        Raises TableRefused, and then writes the whole table at the next call.
        """
        if self._there is None:
            if wanted.is_empty:
                return
            self._load(whole(self._skeleton, wanted), why_first)
        elif script := difference(self._there, wanted):
            self._load(script, why_later)
        self._there = wanted

    def repair(self, why: str) -> bool:
        """Restore the whole table if another program changed it; return whether it had to.

        Costs nothing while no rule of the namespace changes. Raises TableRefused and OSError.
        """
        if self._there is None or rules_generation(self._pid) == self._generation:
            return False
        # Read before checking: a change in between is noticed next time.
        self._generation = rules_generation(self._pid)
        if self._is_whole(self._there):
            return False
        there = self._there
        self._load(whole(self._skeleton, there), why)
        self._there = there
        return True

    def _is_whole(self, wanted: Ruleset) -> bool:
        listing = self._run(["nft", "-j", "list", "table", *wanted.table.split()])
        if listing.returncode != 0:
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
        return rules == {**self._base_rules, **wanted.rule_counts} and all(
            elements.get(name) == count for name, count in wanted.element_counts.items()
        )

    def _load(self, script: str, why: str) -> None:
        before = rules_generation(self._pid)
        done = self._run(["nft", "-f", "-"], script)
        if done.returncode != 0:
            self._there = None
            raise TableRefused(f"{self._node}: {done.stderr.strip().splitlines()[0]}")
        # If another program changed something meanwhile, it is higher: then `repair` checks.
        self._generation = before + 1
        self._journal.record(["nft", "-f", "-"], why, script)

    def _run(self, command: list[str], script: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*enter_machine(self._pid), *command],
            input=script,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def rules_generation(pid: int) -> int:
    """Return the number that the kernel raises with every change of the rules in a process's network namespace."""
    return in_network_of(pid, nftables.generation)
