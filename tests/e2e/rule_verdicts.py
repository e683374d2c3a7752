"""Reads `nft list` text and says what becomes of a packet: enough for flannel's rules and ours, an error for others."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network


@dataclass(frozen=True, slots=True)
class Packet:
    """What the rules look at."""

    source: IPv4Address
    destination: IPv4Address
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Chains by (table, name), and the base chains by the hook that calls them."""

    chains: dict[tuple[str, str], list[str]]
    hooks: dict[str, list[tuple[str, str]]]

    def verdicts(self, hook: str, packet: Packet) -> list[str]:
        """Return what each base chain of the hook decides about the packet, its policy included."""
        return [self._walk(chain, packet) or "accept" for chain in self.hooks.get(hook, [])]

    def _walk(self, chain: tuple[str, str], packet: Packet) -> str | None:
        for rule in self.chains[chain]:
            statement = _statement(rule, packet)
            if statement == "return":
                return None
            if statement is not None and statement.startswith("jump "):
                statement = self._walk((chain[0], statement.removeprefix("jump ")), packet)
            if statement is not None:
                return statement
        return None


def read_ruleset(text: str) -> Ruleset:
    """Parse `nft list ruleset`. Every base chain must have the policy accept."""
    ruleset = Ruleset({}, {})
    table, chain = "", ("", "")
    for line in map(str.strip, text.splitlines()):
        if found := re.fullmatch(r"table (\S+ \S+) \{", line):
            table = found[1]
        elif found := re.fullmatch(r"chain (\S+) \{", line):
            chain = (table, found[1])
            ruleset.chains[chain] = []
        elif found := re.fullmatch(r"type \S+ hook (\S+) priority .*; policy accept;", line):
            ruleset.hooks.setdefault(found[1], []).append(chain)
        elif line not in ("", "}"):
            ruleset.chains[chain].append(line)
    return ruleset


def _statement(rule: str, packet: Packet) -> str | None:
    """Return the rule's statement when all of its conditions hold, else None."""
    words = re.sub(r'counter packets \d+ bytes \d+|comment ".*"', "", rule).split()
    while words:
        match words:
            case ["meta", "mark", "&", mask, "==", value, *rest]:
                holds = packet.mark & int(mask, 16) == int(value, 16)
            case ["meta", "l4proto", _, *rest]:
                # The packets of these tests are of no protocol that rules ask for.
                holds = False
            case ["ip", ("saddr" | "daddr") as field, *rest]:
                holds, rest = _address_matches(packet.source if field == "saddr" else packet.destination, rest)
            case _:
                statement = " ".join(words)
                assert statement in ("return", "accept", "masquerade fully-random") or words[0] == "jump", rule
                return statement
        if not holds:
            return None
        words = rest
    raise AssertionError(f"a rule without a statement: {rule}")


def _address_matches(address: IPv4Address, words: Sequence[str]) -> tuple[bool, list[str]]:
    if words[0] == "!=":
        return address not in IPv4Network(words[1]), list(words[2:])
    return address in IPv4Network(words[0]), list(words[1:])
