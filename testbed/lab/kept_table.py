"""One nftables table of a node: written from a value, and restored when another program changes it."""

import errno
import json
import os
import subprocess
from collections.abc import Mapping

from agent.kernel import nftables
from agent.kernel.journal import Journal
from testbed.lab.etcd import enter_machine
from testbed.lab.ruleset import Ruleset, difference, whole
from testbed.processes.namespaces import in_network_of

LIMIT_S = 20.0
NEVER = -1
"""No generation has this number."""


class TableRefused(OSError):
    """nft or the kernel refused or could not list a table; the message is theirs."""


class KeptTable:
    """Keeps a table equal to the wanted one. For one thread at a time, which the caller ensures."""

    def __init__(self, rules: "RulesWatch", journal: Journal, skeleton: str, base_rules: Mapping[str, int]) -> None:
        """`rules` are the node's; `base_rules`: how many rules each chain of the skeleton has."""
        self._rules = rules
        self._pid = rules.pid
        self._journal = journal
        self._skeleton = skeleton
        self._base_rules = base_rules
        self._there: Ruleset | None = None
        """What we have written; None: nothing yet, or all of it was refused."""
        self._was_sent = False

    @property
    def is_there(self) -> bool:
        """Return whether the table was written."""
        return self._there is not None

    @property
    def may_be_there(self) -> bool:
        """Return whether the kernel may have the table: a refused change leaves the one before it."""
        return self._was_sent

    def put(self, wanted: Ruleset, why_first: str, why_later: str) -> bool:
        """Bring the table to this, with a minimal change, or whole if that is refused; an empty one is not created.

        Return whether it was written whole. Raises OSError; after TableRefused the next call writes the whole table.
        """
        there = self._there
        if there is None and wanted.is_empty and not self.may_be_there:
            return False
        is_changed = there is not None and self._change(there, wanted, why_later)
        if not is_changed:
            self._load(whole(self._skeleton, wanted), why_first if there is None else why_later)
        self._there = wanted
        return not is_changed

    def _change(self, there: Ruleset, wanted: Ruleset, why: str) -> bool:
        """Write the difference; return whether it was accepted: another program may have changed the table."""
        try:
            if script := difference(there, wanted):
                self._load(script, why)
        except TableRefused:
            return False
        return True

    def repair(self, why: str) -> bool:
        """Restore the whole table if another program changed it; return whether it had to.

        Worth a call when the node's rules have changed. Raises OSError; the rules then count as changed again.
        """
        there = self._there
        try:
            if there is None or self._is_whole(there):
                return False
            self._load(whole(self._skeleton, there), why)
        except OSError:
            self._rules.expect_change()
            raise
        return True

    def _is_whole(self, wanted: Ruleset) -> bool:
        listing = self._run(["nft", "-j", "list", "table", *wanted.table.split()])
        if listing.returncode != 0:
            if os.strerror(errno.ENOENT) in listing.stderr:
                return False
            raise TableRefused(f"table {wanted.table} cannot be listed: {_reason(listing)}")
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
        before = self._rules.generation()
        self._was_sent = True
        try:
            done = self._run(["nft", "-f", "-"], script)
            if done.returncode != 0:
                raise TableRefused(_reason(done))
        except TableRefused:
            self._there = None
            # The caller's other tables may not have been checked yet.
            self._rules.expect_change()
            raise
        self._rules.note_own_change(before)
        self._journal.record(["nft", "-f", "-"], why, script)

    def _run(self, command: list[str], script: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*enter_machine(self._pid), *command],
                input=script,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
                # `_is_whole` reads nft's messages.
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            raise TableRefused(f"nft did not end within {LIMIT_S:g} s") from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    # One that was killed, for want of memory, says nothing.
    return (done.stderr.strip() or f"nft ended with {done.returncode}").splitlines()[0]


class RulesWatch:
    """Notices that another program changed a node's rules, by the number that the kernel raises with every change."""

    def __init__(self, pid: int) -> None:
        """`pid` is a process in the node's namespaces."""
        self.pid = pid
        self._seen: int | None = None

    def generation(self) -> int:
        """Return the number. Raises OSError."""
        return in_network_of(self.pid, nftables.generation)

    def moved(self) -> bool:
        """Report whether others changed rules since the last call; costs one small message. Raises OSError."""
        # Read before the comparison: a change in between is seen next time.
        now = self.generation()
        before, self._seen = self._seen, now
        return now != before

    def expect_change(self) -> None:
        """Make the next `moved` report a change."""
        self._seen = NEVER

    def note_own_change(self, before: int) -> None:
        """Count our own change, made at number `before`; a higher number than that means that others changed something
        too.
        """
        if self._seen in (None, before):
            self._seen = before + 1
