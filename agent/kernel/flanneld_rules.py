"""The packet filter rules that a flanneld left on this node.

flanneld leaves them in place when it ends: chains of iptables, or nftables tables. They are for flanneld's old subnet;
with another one they masquerade traffic between pods. Names identify chains and tables; comments identify the rules of
old releases, which are in the machine's own chains.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.kernel.forward_chains import legacy_program, read_rules, words_of
from agent.kernel.iptables import comment_of, find_program, legacy_tables, nft_program, run_iptables
from agent.kernel.journal import Journal
from agent.kernel.nftables import FirewallError, list_objects, run_nft
from agent.kernel.values import FAMILY_WORDS

log = logging.getLogger(__name__)

TABLES = (("ip", "flannel-ipv4"), ("ip6", "flannel-ipv6"))
CHAINS: Mapping[str, tuple[str, str]] = {
    "nat": ("POSTROUTING", "FLANNEL-POSTRTG"),
    "filter": ("FORWARD", "FLANNEL-FWD"),
}
"""By iptables' table: the machine's chain that calls flanneld's, and the latter."""
COMMENT = re.compile(r"flanneld (masq|forward)")
WHY = "left by a flanneld, for its old subnet"
LOCK_WAIT_S = "5"
"""Another iptables may hold the lock of the legacy tables."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One table, chain or rule of a flanneld, and its removal."""

    text: str
    script: str = ""
    """Lines for nft, run as one transaction."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Or commands of iptables, in order."""


def find_leftovers() -> list[Leftover]:
    """Return what a flanneld left in the caller's network namespace. Raises FirewallError and EnvironmentMissing."""
    tables = {
        (item["table"]["family"], item["table"]["name"]) for item in list_objects("tables") or () if "table" in item
    }
    found = [
        Leftover(f"table {family} {name}", f"delete table {family} {name}\n")
        for family, name in TABLES
        if (family, name) in tables
    ]
    for family in FAMILY_WORDS.values():
        for table in CHAINS:
            if (family, table) in tables:
                found += _in_nftables(family, table)
        loaded = set(CHAINS).intersection(legacy_tables(family))
        program = find_program(legacy_program(family)) if loaded else None
        if program is not None:
            try:
                for table in sorted(loaded):
                    listing = run_iptables(program, "-w", LOCK_WAIT_S, "-t", table, "-S")
                    found += iptables_leftovers(program, table, listing)
            except FirewallError as error:
                # Our own rules do not depend on it.
                log.warning("rules: cannot check whether a flanneld left some in the legacy tables: %s", error)
    return found


def remove_leftovers(leftovers: Iterable[Leftover], journal: Journal) -> None:
    """Remove these. Raises FirewallError and EnvironmentMissing."""
    for leftover in leftovers:
        if leftover.script:
            run_nft(["-f", "-"], leftover.script)
            journal.record(["nft", "-f", "-"], WHY, leftover.script)
        for command in leftover.commands:
            run_iptables(*command)
            journal.record(command, WHY)


def _in_nftables(family: str, table: str) -> list[Leftover]:
    """Return flanneld's parts of a table of iptables-nft."""
    caller, name = CHAINS[table]
    objects = list_objects("table", family, table) or []
    found = nftables_leftovers(objects, name)
    program = nft_program(family)
    rules = read_rules(item for item in objects if item.get("rule", {}).get("chain") == caller)
    if program is None or not any(rule.unreadable_comment for rule in rules):
        return found
    try:
        listing = run_iptables(program, "-t", table, "-S", caller)
    except FirewallError as error:
        log.warning("rules: cannot check whether a flanneld left some in chain %s of %s: %s", caller, table, error)
        return found
    # Rules recognised only by their comments; those that call flanneld's chain are removed with it.
    alone = "\n".join(line for line in listing.splitlines() if name not in line)
    return found + iptables_leftovers(program, table, alone)


# Parsers of listings. Pure.


def nftables_leftovers(objects: Sequence[Mapping[str, Any]], name: str) -> list[Leftover]:
    """Return the chain `name` from the output of `nft -j list table`, with the rules that call it."""
    chain = next((item["chain"] for item in objects if item.get("chain", {}).get("name") == name), None)
    if chain is None:
        return []
    table = f"{chain['family']} {chain['table']}"
    calls = [
        f"delete rule {table} {item['rule']['chain']} handle {rule.handle}"
        for item in objects
        for rule in read_rules([item])
        if rule.target == name
    ]
    lines = (*calls, f"flush chain {table} {name}", f"delete chain {table} {name}")
    return [Leftover(f"chain {name} of table {table}", "".join(f"{line}\n" for line in lines))]


def iptables_leftovers(program: str, table: str, listing: str) -> list[Leftover]:
    """Return flanneld's chain, and its rules in other chains, from the output of `iptables -S` for a table."""
    lines = [words_of(line) for line in listing.splitlines()]
    caller, name = CHAINS[table]
    has_chain = ["-N", name] in lines
    added = [words[1:] for words in lines if words[:1] == ["-A"]]
    rules = [words for words in added if words[:1] != [name] and _is_flannelds(words, name)]
    if not rules and not has_chain:
        return []
    start = (program, "-w", LOCK_WAIT_S, "-t", table)
    ends = [("-F", name), ("-X", name)] if has_chain else []
    what = f"chain {name}" if has_chain else f"rules of chain {caller}"
    commands = [*((*start, "-D", *words) for words in rules), *((*start, *words) for words in ends)]
    return [Leftover(f"{what} of {program.rpartition('/')[2]}'s table {table}", commands=tuple(commands))]


def _is_flannelds(words: Sequence[str], name: str) -> bool:
    return name in words[1:] or COMMENT.fullmatch(comment_of(words)) is not None
