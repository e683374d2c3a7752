"""Accept rules for the pod network in the chain that programs share, and warnings about other chains that drop.

Where `filter FORWARD` of iptables-nft exists, in `ip` and `ip6`, the rules are kept in it; it is never created here.
`forward_chains` evaluates the chains.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from agent.kernel.firewall import TABLE_PREFIX
from agent.kernel.forward_chains import (
    COMMENT_PREFIX,
    SHARED_CHAIN,
    SHARED_TABLE,
    BaseChain,
    Rule,
    RulesOf,
    additions,
    described,
    legacy_program,
    own_rules,
    passes,
    read_base_chains,
    read_iptables,
    read_rules,
    shared_chain,
    warning,
    words_of,
)
from agent.kernel.iptables import comment_of, find_program, legacy_tables, nft_program, run_iptables
from agent.kernel.journal import Journal
from agent.kernel.nftables import FirewallError, generation_if_known, list_objects, run_nft
from agent.kernel.values import FAMILY_WORDS, Family, IPNetwork

NOT_WANTED = "these rules are no longer wanted"


@dataclass(frozen=True, slots=True)
class ForwardReport:
    """The result of one check of the chains."""

    opened: tuple[str, ...] = ()
    """Chains that received our rules in this check."""
    warnings: tuple[str, ...] = ()
    """Chains that drop packets between pods."""


class ForwardRules:
    """The accept rules of the caller's network namespace."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._seen: dict[IPNetwork, tuple[int, tuple[str, ...]]] = {}
        """Networks that needed nothing: the rules' generation and the warnings at that time."""

    def converge(self, network: IPNetwork) -> ForwardReport:
        """Keep the network's packets accepted, within our own rules. Raises FirewallError, EnvironmentMissing.

        A shared chain that refuses our rules is a warning.
        """
        now = generation_if_known()
        if now is not None and network in self._seen and self._seen[network][0] == now:
            _, warnings = self._seen[network]
            return ForwardReport(warnings=(*warnings, *_legacy_warnings(network)))
        opened, found = [], []
        for chain, rules, rules_of in _chains(network.version):
            text = described(chain, rules, network, rules_of)
            lines = additions(chain, rules, network, rules_of) if chain.shared else []
            if not lines and not passes(chain, rules, network, rules_of):
                found.append(warning(chain, rules, network, rules_of))
            elif lines:
                try:
                    self._load(lines, "an accept in a table of our own cannot overrule what this chain drops")
                    opened.append(text)
                except FirewallError as error:
                    found.append(f"forward: {text} takes no accept rules for {network}: {error}")
        if now is not None and not opened:
            self._seen[network] = now, tuple(found)
        return ForwardReport(tuple(opened), (*found, *_legacy_warnings(network)))

    def remove(self, network: IPNetwork | None = None) -> None:
        """Make sure that the shared chain has no rule of ours for the network, or for any. Raises FirewallError."""
        versions: tuple[Family, ...] = (4, 6) if network is None else (network.version,)
        for version in versions:
            chain = shared_chain(version)
            rules = _rules_of(chain)(chain.name)
            for rule in own_rules(rules, network):
                self._load([f"delete rule {chain} handle {rule.handle} # {rule.comment}"], NOT_WANTED)
            if any(rule.unreadable_comment and rule.verdict == "accept" for rule in rules):
                self._remove_restored(version, network)

    def _remove_restored(self, version: Family, network: IPNetwork | None) -> None:
        """Remove our rules that `iptables-restore` restored; nft cannot read their comments."""
        program = nft_program(FAMILY_WORDS[version])
        if program is None:
            return
        for line in run_iptables(program, "-S", SHARED_CHAIN).splitlines():
            words = words_of(line)
            comment = comment_of(words)
            if (
                words[:1] == ["-A"]
                and comment.startswith(COMMENT_PREFIX)
                and (network is None or comment.endswith(f" {network}"))
            ):
                command = [program, "-D", *words[1:]]
                run_iptables(*command)
                self._journal.record(command, NOT_WANTED)

    def _load(self, lines: Sequence[str], why: str) -> None:
        script = "\n".join(lines) + "\n"
        run_nft(["-f", "-"], script)
        self._journal.record(["nft", "-f", "-"], why, script)


def dropping_chains() -> list[str]:
    """Describe chains of other programs that drop all forwarded packets. Raises as `run_nft` does.

    Not the shared one, which an agent opens.
    """
    found = []
    versions: tuple[Family, ...] = (4, 6)
    for version in versions:
        for chain, rules, rules_of in (*_chains(version), *_legacy_chains(version)):
            text = described(chain, rules, None, rules_of)
            if not chain.shared and not passes(chain, rules, None, rules_of) and text not in found:
                found.append(text)
    return found


Look = tuple[BaseChain, Sequence[Rule], RulesOf]
"""A base chain, its rules, and a function that reads the rules of chains that it calls."""


def _chains(version: Family) -> Iterator[Look]:
    """Yield every base chain that packets of that IP version pass, except agents' own. The shared one comes first."""
    for chain in sorted(read_base_chains(list_objects("chains") or ()), key=lambda chain: not chain.shared):
        if chain.sees(version) and not chain.table.startswith(TABLE_PREFIX):
            rules_of = _rules_of(chain)
            yield chain, rules_of(chain.name), rules_of


def _rules_of(chain: BaseChain) -> Callable[[str], Sequence[Rule]]:
    """Return a function that reads chains of the same table on demand; a missing chain has no rules."""

    @cache
    def read(name: str) -> Sequence[Rule]:
        return read_rules(list_objects("chain", chain.family, chain.table, name) or ())

    return read


def _legacy_warnings(network: IPNetwork) -> Iterator[str]:
    try:
        for chain, rules, rules_of in _legacy_chains(network.version):
            if not passes(chain, rules, network, rules_of):
                yield warning(chain, rules, network, rules_of)
    except FirewallError as error:
        yield f"forward: unknown what iptables-legacy does to packets of {network}: {error}"


def _legacy_chains(version: Family) -> Iterator[Look]:
    """Yield the chain FORWARD of iptables-legacy if its table is loaded; a query would load it.

    Raises FirewallError.
    """
    family = FAMILY_WORDS[version]
    if SHARED_TABLE not in legacy_tables(family):
        return
    name = legacy_program(family)
    program = find_program(name)
    if program is None:
        raise FirewallError(f"its table {SHARED_TABLE} is loaded, and the program {name} is missing")
    policies, rules = read_iptables(run_iptables(program, "-S"))
    chain = BaseChain(family, SHARED_TABLE, SHARED_CHAIN, policies[SHARED_CHAIN], legacy=True)
    yield chain, rules.get(SHARED_CHAIN, ()), lambda name: rules.get(name, ())
