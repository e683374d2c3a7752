"""How the base chains at the kernel's forward hook treat packets between pods, and which accept rules help. Pure.

A hook may have several base chains, and a packet passes only if all of them accept it: an accept in one chain cannot
overrule a drop in another. So accept rules must be in the same chain that drops. By convention one chain is shared,
`filter FORWARD` of iptables-nft; every other belongs to the program that made it. A rule counts only if it surely
matches every packet between pods. One that checks an interface, a port, a connection state, a rate or something unknown
here may match some of them, and is ignored.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Any, Literal

from agent.kernel.values import FAMILY_WORDS, Family, IPNetwork

HOOK = "forward"
SHARED_TABLE, SHARED_CHAIN = "filter", "FORWARD"
COMMENT_PREFIX = "overlay-agent: "
EVERYTHING = {"ipv4": "0.0.0.0/0", "ip": "0.0.0.0/0", "ipv6": "::/0", "ip6": "::/0"}
"""The addresses matched by `meta nfproto` and `meta protocol`, as networks."""
WITHOUT_EFFECT = ("counter", "log", "mangle")
"""Statements after which evaluation continues with the next rule, whatever the packet."""
TARGETS_WITHOUT_EFFECT = ("LOG", "NFLOG", "AUDIT", "MARK", "CONNMARK", "TRACE")
"""The same among iptables' targets."""

Field = Literal["saddr", "daddr"]
FIELDS: Mapping[Field, str] = {"saddr": "from", "daddr": "to"}
Verdict = Literal["accept", "drop", "return", "jump", "goto"]
VERDICTS: Mapping[str, Verdict] = {
    "accept": "accept",
    "drop": "drop",
    "reject": "drop",
    "return": "return",
    "jump": "jump",
    "goto": "goto",
}


@dataclass(frozen=True, slots=True)
class AddressMatch:
    """A condition on the packet's source or destination."""

    field: Field
    networks: tuple[IPNetwork, ...]
    negated: bool = False

    def covers(self, network: IPNetwork) -> bool:
        """Return whether it matches every packet whose address is in the network."""
        if self.negated:
            return not any(
                other.version != network.version or _is_inside(network, other) or _is_inside(other, network)
                for other in self.networks
            )
        return any(_is_inside(network, other) for other in self.networks)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, reduced to what matters for packets between pods."""

    matches: tuple[AddressMatch, ...] | None
    """All must match, so none means every packet. None: the matched packets are unknown."""
    verdict: Verdict | None
    target: str = ""
    """The target chain of a jump or goto."""
    comment: str = ""
    handle: int = 0
    unreadable_comment: bool = False
    """It has a comment of iptables, which nft does not show."""

    def applies(self, network: IPNetwork | None) -> bool:
        """Return whether it surely matches every packet between pods of the network; None if unknown."""
        if self.matches is None:
            return False
        return all(network is not None and match.covers(network) for match in self.matches)

    def accepts(self, field: Field, network: IPNetwork) -> bool:
        """Return whether it accepts the packets from (saddr) or to (daddr) the network, and no others."""
        return self.verdict == "accept" and self.matches == (AddressMatch(field, (network,)),)


RulesOf = Callable[[str], Sequence[Rule]]
"""Returns the rules of a chain of the same table, by its name."""


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel calls for every packet that it forwards."""

    family: str
    table: str
    name: str
    policy: str
    """What happens to a packet that no rule matches: accept or drop."""
    legacy: bool = False
    """Whether it belongs to iptables-legacy, which nft does not list."""

    @property
    def shared(self) -> bool:
        """Return whether it is the chain of iptables-nft in which every program may have rules."""
        return (self.table, self.name) == (SHARED_TABLE, SHARED_CHAIN) and not self.legacy and self.family != "inet"

    def sees(self, version: Family) -> bool:
        """Return whether packets of that IP version reach it."""
        return self.family in (FAMILY_WORDS[version], "inet")

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


def shared_chain(version: Family) -> BaseChain:
    """Return the chain of iptables-nft for that IP version."""
    return BaseChain(FAMILY_WORDS[version], SHARED_TABLE, SHARED_CHAIN, "accept")


def passes(chain: BaseChain, rules: Sequence[Rule], network: IPNetwork | None, rules_of: RulesOf) -> bool:
    """Return whether the chain is known to accept packets between pods of the network."""
    return (_outcome(rules, network, rules_of) or chain.policy) == "accept"


def additions(chain: BaseChain, rules: Sequence[Rule], network: IPNetwork, rules_of: RulesOf) -> list[str]:
    """Return nft's commands to make the shared chain accept the network's packets; empty if it does.

    The rules go before the first that drops every packet between pods, and after all others: specific drops of an
    administrator or a network policy stay in effect. Existing rules of ours are not moved: a drop before them is
    deliberate.
    """
    wall = next((at for at, rule in enumerate(rules) if _outcome([rule], network, rules_of) == "drop"), len(rules))
    if _accepted(rules[:wall], network) or _accepted(own_rules(rules, network), network):
        return []
    place = f"insert rule {chain} handle {rules[wall].handle}" if wall < len(rules) else f"add rule {chain}"
    return [
        *(f"delete rule {chain} handle {rule.handle}" for rule in own_rules(rules, network)),
        *(
            f'{place} {_condition(field, network)} counter accept comment "{_comment(field, network)}"'
            for field in FIELDS
        ),
    ]


def own_rules(rules: Iterable[Rule], network: IPNetwork | None = None) -> list[Rule]:
    """Return the rules that an agent made, for one network or for any."""
    if network is None:
        return [rule for rule in rules if rule.comment.startswith(COMMENT_PREFIX)]
    comments = [_comment(field, network) for field in FIELDS]
    return [rule for rule in rules if rule.comment in comments]


def warning(chain: BaseChain, rules: Sequence[Rule], network: IPNetwork, rules_of: RulesOf) -> str:
    """Return the warning for a chain that drops packets between pods."""
    if chain.legacy:
        remedy = f"{legacy_program(chain.family)} -I {chain.name} -s {network} -j ACCEPT"
    else:
        remedy = f"nft insert rule {chain} {_condition('saddr', network)} accept"
    return (
        f"forward: {described(chain, rules, network, rules_of)} drops packets between pods of {network}, and no other"
        f" table can overrule it; accept them with: {remedy}"
    )


def described(chain: BaseChain, rules: Sequence[Rule], network: IPNetwork | None, rules_of: RulesOf) -> str:
    """Describe the chain by family, table, name and policy, and whether one of its rules drops packets between pods."""
    owner = " of iptables-legacy" if chain.legacy else ""
    reason = "; a rule drops the rest" if _outcome(rules, network, rules_of) == "drop" else ""
    return f"chain {chain.name} of table {chain.family} {chain.table}{owner} (policy {chain.policy}{reason})"


def legacy_program(family: str) -> str:
    """Return the program for the chains of iptables-legacy."""
    return f"{family}tables-legacy"


# From the syntax of nft and iptables


def read_base_chains(objects: Iterable[Mapping[str, Any]]) -> list[BaseChain]:
    """Parse the base chains at the forward hook from the output of `nft -j list chains`."""
    chains = (item["chain"] for item in objects if "chain" in item)
    return [
        BaseChain(chain["family"], chain["table"], chain["name"], chain.get("policy", "accept"))
        for chain in chains
        if chain.get("hook") == HOOK
    ]


def read_rules(objects: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Parse the rules from the output of `nft -j list chain`, in order."""
    return [_read_rule(item["rule"]) for item in objects if "rule" in item]


def read_iptables(text: str) -> tuple[dict[str, str], dict[str, list[Rule]]]:
    """Parse policies and rules from the output of `iptables -S`, by chain."""
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    for line in text.splitlines():
        match words_of(line):
            case ["-P", chain, policy]:
                policies[chain] = policy.lower()
            case ["-A", chain, *words]:
                rules.setdefault(chain, []).append(_read_iptables_rule(words))
    return policies, rules


def words_of(line: str) -> list[str]:
    """Split a line of the output of `iptables -S`.

    A comment may hold a line end, so that its quotes are not closed here: such a line is cut at every blank, and means
    nothing to us.
    """
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _read_rule(rule: Mapping[str, Any]) -> Rule:
    matches: list[AddressMatch] = []
    known, unreadable_comment = True, False
    verdict: Verdict | None = None
    target = ""
    for statement in rule.get("expr", ()):
        kind: str = next(iter(statement), "")
        value: Any = statement.get(kind)
        extension = value.get("name") if kind == "xt" and isinstance(value, Mapping) else None
        if kind in VERDICTS:
            verdict = VERDICTS[kind]
            target = value["target"] if verdict in ("jump", "goto") else ""
        elif kind == "match" and (match := _read_match(value)) is not None:
            matches.append(match)
        elif extension == "REJECT":
            verdict = "drop"
        elif extension == "comment":
            unreadable_comment = True
        elif kind not in WITHOUT_EFFECT and extension not in TARGETS_WITHOUT_EFFECT:
            known = False
    return Rule(
        matches=tuple(matches) if known else None,
        verdict=verdict,
        target=target,
        comment=rule.get("comment", ""),
        handle=rule["handle"],
        unreadable_comment=unreadable_comment,
    )


def _read_match(match: Mapping[str, Any]) -> AddressMatch | None:
    """Parse a match on addresses or the IP version; None for any other match."""
    left, right, operator = match["left"], match["right"], match["op"]
    if operator not in ("==", "!="):
        return None
    if isinstance(left, Mapping) and (meta := left.get("meta")) and meta.get("key") in ("nfproto", "protocol"):
        known = operator == "==" and isinstance(right, str) and right in EVERYTHING
        return AddressMatch("saddr", (ip_network(EVERYTHING[right]),)) if known else None
    payload = left.get("payload") if isinstance(left, Mapping) else None
    if not payload or payload.get("protocol") not in FAMILY_WORDS.values() or payload.get("field") not in FIELDS:
        return None
    try:
        networks = tuple(_read_networks(right))
    except (ValueError, KeyError, TypeError):
        return None
    return AddressMatch(payload["field"], networks, negated=operator == "!=")


def _read_networks(right: Any) -> Iterator[IPNetwork]:  # noqa: ANN401 - nft's JSON: the value decides
    """Yield each network; raise ValueError, KeyError or TypeError for anything else (the name of a set)."""
    if isinstance(right, str):
        yield ip_network(right)
    elif "set" in right:
        for element in right["set"]:
            yield from _read_networks(element)
    elif "prefix" in right:
        yield ip_network(f"{right['prefix']['addr']}/{right['prefix']['len']}")
    elif "elem" in right:
        yield from _read_networks(right["elem"]["val"])
    else:
        first, last = right["range"]
        yield from summarize_address_range(ip_address(first), ip_address(last))


def _read_iptables_rule(words: Sequence[str]) -> Rule:
    matches: list[AddressMatch] = []
    fields: Mapping[str, Field] = {"-s": "saddr", "-d": "daddr"}
    rest, negated, comment = list(words), False, ""
    while rest:
        match rest:
            case ["!", *rest]:
                negated = True
                continue
            # A mask that is no prefix follows in full; `ip_network` would take some of these for the opposite.
            case [("-s" | "-d") as option, network, *rest] if network.rpartition("/")[2].isdecimal():
                matches.append(AddressMatch(fields[option], (ip_network(network),), negated))
            case ["-m", "comment", "--comment", comment, *rest]:
                pass
            case ["-j", "ACCEPT"]:
                return Rule(tuple(matches), "accept", comment=comment)
            case ["-j", "DROP"] | ["-j", "REJECT", *_]:
                return Rule(tuple(matches), "drop", comment=comment)
            case ["-j", "RETURN"]:
                return Rule(tuple(matches), "return", comment=comment)
            case ["-j", target, *_]:
                # An unknown target is treated as an empty chain.
                return Rule(tuple(matches), "jump", target, comment)
            case ["-g", target]:
                return Rule(tuple(matches), "goto", target, comment)
            case _:
                break
        negated = False
    return Rule(None, None, comment=comment)


# Effects of rules


def _outcome(rules: Iterable[Rule], network: IPNetwork | None, rules_of: RulesOf) -> Literal["accept", "drop"] | None:
    """Return what the rules surely do to every packet between pods; None if they decide nothing."""
    for rule in rules:
        if rule.verdict is None or not rule.applies(network):
            continue
        if rule.verdict == "accept" or rule.verdict == "drop":
            return rule.verdict
        if rule.verdict == "return":
            return None
        below = _outcome(rules_of(rule.target), network, rules_of)
        if below is not None or rule.verdict == "goto":
            return below
    return None


def _accepted(rules: Sequence[Rule], network: IPNetwork) -> bool:
    return all(any(rule.accepts(field, network) for rule in rules) for field in FIELDS)


def _condition(field: Field, network: IPNetwork) -> str:
    return f"{FAMILY_WORDS[network.version]} {field} {network}"


def _comment(field: Field, network: IPNetwork) -> str:
    """Return the comment that identifies a rule of ours."""
    return f"{COMMENT_PREFIX}{FIELDS[field]} pods of {network}"


def _is_inside(network: IPNetwork, other: IPNetwork) -> bool:
    return network.prefixlen >= other.prefixlen and network.network_address in other
