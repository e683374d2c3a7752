"""An nftables table as a value, and the script that turns one into another. Pure.

The base chains never change; what does are regular chains, elements of maps and sets, and sets that the kernel fills
itself (who was sent where). A script holds only the difference and is one transaction: packets see the table before it
or after it, and counters and sets that are in both stay as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

TABLE = "testbed-services"
MEMORY_SIZE = 65535


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What of the table changes."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Regular chain → its rules."""
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Map of the skeleton → key → what it leads to."""
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Set of the skeleton → its elements."""
    memories: Mapping[str, int] = field(default_factory=dict)
    """Set of client addresses that the rules fill → seconds until one is forgotten; with another time, another name."""
    family: str = "ip"
    """Of the table, in nft's word."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wanted."""
        return not self.chains and not any(self.maps.values())

    @property
    def rule_counts(self) -> dict[str, int]:
        """How many rules each chain has."""
        return {chain: len(rules) for chain, rules in self.chains.items()}

    @property
    def element_counts(self) -> dict[str, int]:
        """How many elements each map and set has."""
        return {name: len(one) for name, one in [*self.maps.items(), *self.sets.items()]}


def whole(skeleton: str, wanted: Ruleset) -> str:
    """A script that makes the table anew, whatever is there."""
    table = f"table {wanted.family} {TABLE}"
    return f"{table}\ndelete {table}\n{skeleton}{difference(Ruleset(), wanted)}"


def difference(old: Ruleset, new: Ruleset) -> str:
    """A script that turns a table with `old` into one with `new`; empty when they are equal."""
    # What is referred to comes before what refers to it, and goes after it.
    lines = [
        *_new_memories(old, new),
        *(f"add chain {new.family} {TABLE} {name}" for name in new.chains if name not in old.chains),
        *_old_elements(old, new),
        *_rules(old, new),
        *_new_elements(old, new),
        *(f"flush chain {new.family} {TABLE} {name}" for name in old.chains if name not in new.chains),
        *(f"delete chain {new.family} {TABLE} {name}" for name in old.chains if name not in new.chains),
        *(f"delete set {new.family} {TABLE} {name}" for name in old.memories if name not in new.memories),
    ]
    return "".join(f"{line}\n" for line in lines)


def _new_memories(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, life_s in new.memories.items():
        if name not in old.memories:
            address = "ipv4_addr" if new.family == "ip" else "ipv6_addr"
            what = f"type {address}; size {MEMORY_SIZE}; flags dynamic,timeout; timeout {life_s}s;"
            yield f"add set {new.family} {TABLE} {name} {{ {what} }}"


def _rules(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, rules in new.chains.items():
        before = old.chains.get(name)
        if before == rules:
            continue
        if before:
            yield f"flush chain {new.family} {TABLE} {name}"
        for rule in rules:
            yield f"add rule {new.family} {TABLE} {name} {rule}"


def _old_elements(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, before in old.maps.items():
        now = new.maps.get(name, {})
        yield from _elements(
            new.family, "delete", name, (key for key, value in before.items() if now.get(key) != value)
        )
    for name, members in old.sets.items():
        yield from _elements(new.family, "delete", name, members - new.sets.get(name, frozenset()))


def _new_elements(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, now in new.maps.items():
        before = old.maps.get(name, {})
        added = (f"{key} : {value}" for key, value in now.items() if before.get(key) != value)
        yield from _elements(new.family, "add", name, added)
    for name, members in new.sets.items():
        yield from _elements(new.family, "add", name, members - old.sets.get(name, frozenset()))


def _elements(family: str, verb: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    listed = sorted(elements)
    if listed:
        yield f"{verb} element {family} {TABLE} {name} {{ {', '.join(listed)} }}"
