"""An nftables table as a value, and the script that turns one into another. Pure.

The base chains (the skeleton) never change; what does are regular chains, sets beside the skeleton's, and elements of
maps and sets. A script holds only the difference and is one transaction: packets see the table before it or after it,
and counters and sets that are in both stay as they are.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What of the table changes."""

    table: str
    """Family and name, as nft wants them: `ip testbed-services`."""
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Regular chain → its rules."""
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Map of the skeleton → key → what it leads to."""
    sets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Set → its elements; not those of sets that the rules fill themselves."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """Set that the skeleton does not have → its declaration; with another one, another name."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wanted."""
        return not self.chains and not any(self.maps.values()) and not any(self.sets.values())

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
    table = f"table {wanted.table}"
    return f"{table}\ndelete {table}\n{skeleton}{difference(Ruleset(wanted.table), wanted)}"


def difference(old: Ruleset, new: Ruleset) -> str:
    """A script that turns a table with `old` into one with `new`; empty when they are equal."""
    # What is referred to comes before what refers to it, and goes after it.
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
        # A set that goes takes its elements along.
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
