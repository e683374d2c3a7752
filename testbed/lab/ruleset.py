"""An nftables table as a value, and the script that turns one into another. Pure.

The base chains (the skeleton) never change; regular chains, additional sets, and elements of maps and sets do. A script
contains only the difference and is one transaction: packets see the table before it or after it, and counters and sets
in both are kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The variable part of the table."""

    table: str
    """Family and name, as nft expects them: `ip testbed-services`."""
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Regular chain → its rules."""
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Map of the skeleton → key → target."""
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Set → its elements; not those of sets that the rules fill themselves."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """Set outside the skeleton → its declaration; another declaration needs another name."""

    @property
    def is_empty(self) -> bool:
        """Return whether it has no chains and no elements."""
        return not self.chains and not any(self.maps.values()) and not any(self.sets.values())

    @property
    def rule_counts(self) -> dict[str, int]:
        """Return how many rules each chain has."""
        return {chain: len(rules) for chain, rules in self.chains.items()}

    @property
    def element_counts(self) -> dict[str, int]:
        """Return how many elements each map and set has."""
        return {name: len(one) for name, one in [*self.maps.items(), *self.sets.items()]}


def whole(skeleton: str, wanted: Ruleset) -> str:
    """Return a script that recreates the table, whatever exists."""
    table = f"table {wanted.table}"
    return f"{table}\ndelete {table}\n{skeleton}{difference(Ruleset(wanted.table), wanted)}"


def difference(old: Ruleset, new: Ruleset) -> str:
    """Return a script that turns a table with `old` into one with `new`; empty if they are equal."""
    # Objects are added before references to them, and removed after.
    lines = [
        *(
            f"add set {new.table} {name} {{ {declaration} }}"
            for name, declaration in new.declared.items()
            if name not in old.declared
        ),
        *(f"add chain {new.table} {name}" for name in new.chains if name not in old.chains),
        *_old_elements(old, new),
        *_rules(old, new),
        *_new_elements(old, new),
        *(f"flush chain {new.table} {name}" for name in old.chains if name not in new.chains),
        *(f"delete chain {new.table} {name}" for name in old.chains if name not in new.chains),
        *(f"delete set {new.table} {name}" for name in old.declared if name not in new.declared),
    ]
    return "".join(f"{line}\n" for line in lines)


def _rules(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, rules in new.chains.items():
        before = old.chains.get(name)
        if before == rules:
            continue
        if before:
            yield f"flush chain {new.table} {name}"
        for rule in rules:
            yield f"add rule {new.table} {name} {rule}"


def _old_elements(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, before in old.maps.items():
        now = new.maps.get(name, {})
        gone = (key for key, value in before.items() if now.get(key) != value)
        yield from _elements(new.table, "delete", name, gone)
    for name, members in old.sets.items():
        # A removed set takes its elements along.
        if name in new.sets or name not in old.declared:
            yield from _elements(new.table, "delete", name, members - new.sets.get(name, frozenset()))


def _new_elements(old: Ruleset, new: Ruleset) -> Iterator[str]:
    for name, now in new.maps.items():
        before = old.maps.get(name, {})
        added = (f"{key} : {value}" for key, value in now.items() if before.get(key) != value)
        yield from _elements(new.table, "add", name, added)
    for name, members in new.sets.items():
        yield from _elements(new.table, "add", name, members - old.sets.get(name, frozenset()))


def _elements(table: str, verb: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    listed = sorted(elements)
    if listed:
        yield f"{verb} element {table} {name} {{ {', '.join(listed)} }}"
