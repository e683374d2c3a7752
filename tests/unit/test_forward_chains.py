"""What base chains do to packets between pods, and where accept rules go."""

import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from agent.kernel import flanneld_rules
from agent.kernel.flanneld_rules import find_leftovers, iptables_leftovers
from agent.kernel.forward_chains import (
    AddressMatch,
    BaseChain,
    Rule,
    additions,
    own_rules,
    passes,
    read_base_chains,
    read_iptables,
    read_rules,
    warning,
)
from agent.kernel.nftables import FirewallError

NETWORK = IPv4Network("10.0.0.0/16")
SHARED = BaseChain("ip", "filter", "FORWARD", "drop")
OTHER = BaseChain("inet", "hostfw", "f1", "accept")
FROM = Rule(
    (AddressMatch("saddr", (NETWORK,)),), "accept", comment="overlay-agent: from pods of 10.0.0.0/16", handle=91
)
TO = Rule((AddressMatch("daddr", (NETWORK,)),), "accept", comment="overlay-agent: to pods of 10.0.0.0/16", handle=92)
REJECT = Rule((), "drop", handle=7)
UNKNOWN = Rule(None, "drop", handle=8)
"""For instance of an interface."""


def no_chains(_name: str) -> Sequence[Rule]:
    return ()


def source(network: str, verdict: str, handle: int = 1, *, negated: bool = False) -> Rule:
    match = AddressMatch("saddr", (IPv4Network(network),), negated)
    return Rule((match,), verdict, handle=handle)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "passed"),
    [
        ([], False),
        ([FROM], True),
        ([TO], True),
        ([source("10.0.0.0/8", "accept")], True),
        ([source("10.0.0.0/17", "accept")], False),
        ([source("10.0.0.0/17", "accept", negated=True)], False),
        ([source("192.168.0.0/16", "accept", negated=True)], True),
        ([REJECT, FROM], False),
        ([UNKNOWN, FROM], True),
        ([source("10.0.0.0/16", "return"), FROM], False),
        ([Rule((), None), FROM], True),
    ],
)
def test_a_chain_that_drops_passes_only_what_it_surely_accepts(rules: list[Rule], *, passed: bool) -> None:
    assert passes(SHARED, rules, NETWORK, no_chains) is passed


def test_a_rule_at_the_end_that_drops_everything_counts_like_a_policy() -> None:
    assert passes(OTHER, [UNKNOWN], NETWORK, no_chains)
    assert not passes(OTHER, [UNKNOWN, REJECT], NETWORK, no_chains)


def test_chains_that_are_called_are_followed() -> None:
    chains = {
        "zones": [Rule((AddressMatch("saddr", (NETWORK,)),), "goto", "trusted")],
        "trusted": [Rule((), "accept")],
        "empty": [],
        "rejects": [REJECT],
        "returns": [Rule((), "return")],
    }

    def outcome(*rules: Rule) -> bool:
        return passes(OTHER, rules, NETWORK, chains.__getitem__)

    assert outcome(Rule((), "jump", "zones"), REJECT)
    assert not outcome(Rule((), "jump", "empty"), REJECT)
    assert not outcome(Rule((), "jump", "returns"), Rule((), "jump", "rejects"))
    assert outcome(Rule((), "goto", "empty"), REJECT), "nothing comes back from a goto"


def test_of_a_network_that_is_not_known_only_rules_without_conditions_count() -> None:
    assert not passes(SHARED, [FROM], None, no_chains)
    assert passes(SHARED, [Rule((), "accept")], None, no_chains)


def test_rules_go_before_the_first_that_drops_everything_and_after_specific_drops() -> None:
    isolated = source("10.0.46.7/32", "drop", 3)
    assert additions(SHARED, [isolated, UNKNOWN, REJECT], NETWORK, no_chains) == [
        "insert rule ip filter FORWARD handle 7 ip saddr 10.0.0.0/16 counter accept"
        ' comment "overlay-agent: from pods of 10.0.0.0/16"',
        "insert rule ip filter FORWARD handle 7 ip daddr 10.0.0.0/16 counter accept"
        ' comment "overlay-agent: to pods of 10.0.0.0/16"',
    ]
    assert [line.split(" ip ")[0] for line in additions(SHARED, [isolated], NETWORK, no_chains)] == ["add rule"] * 2


def test_rules_are_there_once_also_where_others_wrote_them() -> None:
    assert additions(SHARED, [UNKNOWN, FROM, TO, REJECT], NETWORK, no_chains) == []
    by_others = [Rule(rule.matches, "accept") for rule in (TO, FROM)]
    assert additions(SHARED, by_others, NETWORK, no_chains) == []
    behind = additions(SHARED, [REJECT, *by_others], NETWORK, no_chains)
    assert [line.split(" ip ")[0] for line in behind] == ["insert rule"] * 2


def test_half_of_our_rules_is_replaced_by_both() -> None:
    lines = additions(SHARED, [TO], NETWORK, no_chains)
    assert lines[0] == "delete rule ip filter FORWARD handle 92"
    assert len(lines) == 3


def test_a_drop_inserted_before_our_rules_is_kept_before_them() -> None:
    assert additions(SHARED, [REJECT, FROM, TO], NETWORK, no_chains) == []
    assert not passes(SHARED, [REJECT, FROM, TO], NETWORK, no_chains)


def test_rules_of_ours_are_known_by_their_comments() -> None:
    other_network = Rule(FROM.matches, "accept", comment="overlay-agent: from pods of 10.9.0.0/16")
    rules = [FROM, other_network, Rule(FROM.matches, "accept", comment="by hand")]
    assert own_rules(rules) == [FROM, other_network]
    assert own_rules(rules, NETWORK) == [FROM]


def test_a_warning_names_family_table_chain_and_policy_and_what_to_do() -> None:
    text = warning(BaseChain("inet", "firewalld", "filter_FORWARD", "drop"), [], NETWORK, no_chains)
    assert text == (
        "forward: chain filter_FORWARD of table inet firewalld (policy drop) drops packets between pods of 10.0.0.0/16,"
        " and no other table can overrule it; accept them with:"
        " nft insert rule inet firewalld filter_FORWARD ip saddr 10.0.0.0/16 accept"
    )
    assert "(policy accept; a rule drops the rest)" in warning(OTHER, [REJECT], NETWORK, no_chains)
    old = BaseChain("ip", "filter", "FORWARD", "drop", legacy=True)
    assert "chain FORWARD of table ip filter of iptables-legacy (policy drop)" in warning(old, [], NETWORK, no_chains)
    assert warning(old, [], NETWORK, no_chains).endswith("iptables-legacy -I FORWARD -s 10.0.0.0/16 -j ACCEPT")


def test_ipv6_has_words_of_its_own() -> None:
    network = IPv6Network("fd00:a::/48")
    chain = BaseChain("ip6", "filter", "FORWARD", "drop")
    assert "ip6 saddr fd00:a::/48 counter accept" in additions(chain, [], network, no_chains)[0]
    assert not passes(chain, [FROM], network, no_chains), "an IPv4 rule says nothing about it"
    assert [chain.sees(4), chain.sees(6), OTHER.sees(4), OTHER.sees(6)] == [False, True, True, True]


# The words of nft and iptables


def nft_rule(*expr: Mapping[str, Any], **more: Any) -> Rule:  # noqa: ANN401 - nft's JSON
    [rule] = read_rules([{"rule": {"handle": 4, "expr": list(expr), **more}}])
    return rule


def compared(field: str, right: object, operator: str = "==", protocol: str = "ip") -> Mapping[str, Any]:
    return {"match": {"op": operator, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


COUNTER = {"counter": {"packets": 0, "bytes": 0}}
PREFIX = {"prefix": {"addr": "10.0.0.0", "len": 16}}


@pytest.mark.parametrize(
    ("right", "networks"),
    [
        (PREFIX, ["10.0.0.0/16"]),
        ("10.0.0.1", ["10.0.0.1/32"]),
        ({"set": ["1.2.3.4", PREFIX]}, ["1.2.3.4/32", "10.0.0.0/16"]),
        ({"range": ["10.0.0.0", "10.1.255.255"]}, ["10.0.0.0/15"]),
        ({"set": [{"elem": {"val": PREFIX, "comment": "x"}}]}, ["10.0.0.0/16"]),
    ],
)
def test_addresses_are_read_in_every_form(right: object, networks: list[str]) -> None:
    rule = nft_rule(compared("saddr", right), COUNTER, {"accept": None})
    assert rule.matches is not None
    assert [str(network) for network in rule.matches[0].networks] == networks
    assert nft_rule(compared("saddr", right, "!="), {"drop": None}).matches == (
        AddressMatch("saddr", rule.matches[0].networks, negated=True),
    )


@pytest.mark.parametrize(
    "condition",
    [
        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "docker0"}},
        {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
        {"limit": {"rate": 5, "burst": 5, "per": "minute"}},
        {"xt": {"type": "match", "name": "conntrack"}},
        {"xt": None},
        compared("saddr", "@trusted"),
        compared("protocol", "tcp"),
        {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": None}]]}}},
    ],
)
def test_a_rule_that_asks_for_something_else_is_left_out_of_account(condition: Mapping[str, Any]) -> None:
    assert not nft_rule(condition, COUNTER, {"drop": None}).applies(NETWORK)


def test_the_ip_version_is_a_condition_on_addresses() -> None:
    for key, ipv4, ipv6 in (("nfproto", "ipv4", "ipv6"), ("protocol", "ip", "ip6")):
        meta = {"meta": {"key": key}}
        assert nft_rule({"match": {"op": "==", "left": meta, "right": ipv4}}, {"drop": None}).applies(NETWORK)
        assert not nft_rule({"match": {"op": "==", "left": meta, "right": ipv6}}, {"drop": None}).applies(NETWORK)


def test_what_iptables_wrote_is_read_too() -> None:
    commented = nft_rule({"xt": {"type": "match", "name": "comment"}}, COUNTER, {"jump": {"target": "REJ"}})
    assert (commented.matches, commented.verdict, commented.target) == ((), "jump", "REJ")
    assert commented.unreadable_comment
    rejected = nft_rule(COUNTER, {"xt": {"type": "target", "name": "REJECT"}})
    assert (rejected.matches, rejected.verdict) == ((), "drop")
    logged = nft_rule(COUNTER, {"xt": {"type": "target", "name": "LOG"}})
    assert (logged.matches, logged.verdict) == ((), None)


def test_only_base_chains_of_the_forward_hook_are_taken() -> None:
    listing = json.loads(
        '[{"metainfo": {}}, {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input",'
        ' "policy": "drop"}}, {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}, {"chain": {"family":'
        ' "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 0,'
        ' "policy": "drop"}}]'
    )
    assert read_base_chains(listing) == [SHARED]
    assert SHARED.shared
    assert not OTHER.shared
    assert not BaseChain("inet", "filter", "FORWARD", "drop").shared


def test_legacy_rules_are_read_from_their_own_syntax() -> None:
    policies, rules = read_iptables(
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER-USER\n"
        '-A FORWARD -m comment --comment "a b" -j DOCKER-USER\n'
        "-A FORWARD -i docker0 -j ACCEPT\n"
        "-A FORWARD ! -s 10.9.0.0/16 -d 10.0.0.0/8 -j ACCEPT\n"
        "-A FORWARD -p tcp -m tcp --dport 80 -j LOG\n"
        "-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"
        "-A DOCKER-USER -j RETURN\n"
    )
    assert policies == {"INPUT": "accept", "FORWARD": "drop"}
    called, by_device, accepted, logged, rejected = rules["FORWARD"]
    assert (called.verdict, called.target, called.comment) == ("jump", "DOCKER-USER", "a b")
    assert not by_device.applies(NETWORK)
    assert accepted.applies(NETWORK)
    assert not logged.applies(NETWORK)
    assert (rejected.matches, rejected.verdict) == ((), "drop")
    assert [rule.verdict for rule in rules["DOCKER-USER"]] == ["return"]


@pytest.mark.parametrize("mask", ["0.0.0.5/0.0.0.255", "0.0.0.0/0.0.0.255", "::5/::ff"])
def test_a_mask_that_is_no_prefix_is_unknown(mask: str) -> None:
    _, rules = read_iptables(f"-P FORWARD DROP\n-A FORWARD -s {mask} -j ACCEPT\n-A FORWARD -j DROP\n")
    unknown, dropped = rules["FORWARD"]
    assert (unknown.matches, unknown.verdict) == (None, None)
    assert dropped.verdict == "drop"


def test_a_comment_with_line_ends_hides_only_its_own_rule() -> None:
    policies, rules = read_iptables(
        '-P FORWARD ACCEPT\n-A FORWARD -m comment --comment "two\n\nlines" -j DROP\n-A FORWARD -j REJECT\n'
    )
    assert policies == {"FORWARD": "accept"}
    unknown, rejected = rules["FORWARD"]
    assert (unknown.matches, rejected.verdict) == (None, "drop")
    assert (
        iptables_leftovers("iptables", "filter", '-A FORWARD -m comment --comment "two\n\n-A\nlines" -j DROP\n') == []
    )


def test_a_broken_legacy_iptables_is_a_warning_and_hides_no_other_rules_of_a_flanneld(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run_iptables(*command: str) -> str:
        if command[0] == "/sbin/iptables-legacy":
            raise FirewallError(f"{' '.join(command)}: can't initialize iptables table")
        return "-P FORWARD ACCEPT\n-N FLANNEL-FWD\n"

    monkeypatch.setattr(flanneld_rules, "list_objects", lambda *_: [])
    monkeypatch.setattr(flanneld_rules, "legacy_tables", lambda _: ["filter", "mangle"])
    monkeypatch.setattr(flanneld_rules, "find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(flanneld_rules, "run_iptables", run_iptables)
    (leftover,) = find_leftovers()
    assert leftover.text == "chain FLANNEL-FWD of ip6tables-legacy's table filter"
    (record,) = caplog.records
    assert "whether a flanneld left some in the legacy tables: /sbin/iptables-legacy" in record.getMessage()
