"""The nftables script, against the rules that the real flanneld made."""

import re
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.kernel.firewall import Policy, escapes, rules, table_name
from agent.kernel.values import Flow
from tests.pcap import REAL_FLANNELD

NETWORK, SUBNET = IPv4Network("10.0.0.0/16"), IPv4Network("10.0.46.0/24")


def policy(*, masquerade: bool = True, random_fully: bool = True, forward: bool = True) -> Policy:
    return Policy(NETWORK, SUBNET, masquerade=masquerade, random_fully=random_fully, forward=forward)


def statements(text: str, chain: str) -> list[str]:
    """Return the chain's rules without counters and comments, numbers and blanks in one notation."""
    body = re.search(rf"chain {chain} {{(.*?)}}", text, re.DOTALL)
    assert body is not None
    lines = (re.sub(r'counter packets \d+ bytes \d+|comment ".*"', "", line) for line in body[1].splitlines())
    plain = (" ".join(line.split()).replace("0x00004000", "0x4000") for line in lines)
    return [line for line in plain if line and not line.startswith("type ")]


def test_rules_are_those_of_the_real_flanneld() -> None:
    recorded = (REAL_FLANNELD / "udp-rules-node1.txt").read_text()
    assert statements(rules(policy()), "postrouting") == statements(recorded, "FLANNEL-POSTRTG")
    assert statements(rules(policy()), "forward") == statements(recorded, "FLANNEL-FWD")


def test_table_is_named_after_the_network() -> None:
    assert table_name(NETWORK) == "overlay-agent-10.0.0.0-16"


def test_script_replaces_the_table_in_one_transaction() -> None:
    lines = [line for line in rules(policy()).splitlines() if not line.startswith("#")]
    name = "table ip overlay-agent-10.0.0.0-16"
    assert lines[:3] == [name, f"delete {name}", f"{name} {{"]


def test_base_chains_let_pass_what_no_rule_decides() -> None:
    script = rules(policy())
    assert "type nat hook postrouting priority srcnat; policy accept;" in script
    assert "type filter hook forward priority filter; policy accept;" in script


def test_each_part_is_left_out_when_not_wanted() -> None:
    assert "chain postrouting" not in rules(policy(masquerade=False))
    assert "chain forward" not in rules(policy(forward=False))
    nothing = rules(policy(masquerade=False, forward=False))
    assert "{" not in nothing
    assert "delete table ip overlay-agent-10.0.0.0-16" in nothing


def test_random_ports_can_be_switched_off() -> None:
    assert "fully-random" not in rules(policy(random_fully=False))
    assert rules(policy(random_fully=False)).count(" masquerade comment") == 2


def test_no_pod_reaches_the_overlays_own_port_from_any_bridge() -> None:
    guarded = Policy(NETWORK, SUBNET, masquerade=True, overlay_port=8285, bridge="docker0")
    assert statements(rules(guarded), "prerouting") == [
        "iifname docker0 ip daddr != 10.0.0.0/16 udp dport 8285 counter drop",
        "ip saddr 10.0.46.0/24 ip daddr != 10.0.0.0/16 udp dport 8285 counter drop",
    ]
    unknown = Policy(NETWORK, SUBNET, masquerade=True, overlay_port=8285)
    assert len(statements(rules(unknown), "prerouting")) == 1


@pytest.mark.parametrize(("port", "others"), [(8285, "8286-65535"), (60000, "1024-59999")])
def test_masquerading_never_takes_the_overlays_own_port(port: int, others: str) -> None:
    decided = statements(rules(Policy(NETWORK, SUBNET, masquerade=True, overlay_port=port)), "postrouting")
    by_udp = [rule for rule in decided if "udp" in rule]
    assert len(by_udp) == 2
    for rule in by_udp:
        match, _, verb = rule.partition(" meta l4proto udp ")
        assert verb == f"masquerade to :{others} fully-random"
        assert decided[decided.index(rule) + 1 :].count(f"{match} masquerade fully-random") == 1, (
            "other protocols follow"
        )


def test_every_rule_has_its_reason_as_a_comment_in_the_kernel() -> None:
    wide = Policy(IPv4Network("100.100.100.0/22"), IPv4Network("100.100.103.128/25"), masquerade=True)
    comments = re.findall(r'comment "(.*)"', rules(wide))
    assert len(comments) == 7
    assert all(len(comment) <= 127 for comment in comments), "nft refuses longer ones"


NODE, OUTSIDE, POD, OTHER_POD, FAR_POD = map(
    IPv4Address, ("192.168.8.1", "192.168.8.10", "10.0.46.2", "10.0.46.3", "10.0.90.2")
)


@pytest.mark.parametrize(
    ("source", "destination", "to", "expected"),
    [
        pytest.param(POD, OUTSIDE, OUTSIDE, True, id="pod to outside"),
        pytest.param(POD, FAR_POD, FAR_POD, False, id="pod to pod"),
        pytest.param(POD, IPv4Address("10.96.0.1"), FAR_POD, False, id="pod to pod by a cluster IP"),
        pytest.param(POD, IPv4Address("10.96.0.1"), OUTSIDE, True, id="pod to outside by a cluster IP"),
        pytest.param(POD, NODE, NODE, False, id="pod to its node"),
        pytest.param(POD, IPv4Address("224.0.0.1"), IPv4Address("224.0.0.1"), False, id="multicast"),
        pytest.param(OUTSIDE, OTHER_POD, OTHER_POD, False, id="outside to a pod of this node"),
        pytest.param(OUTSIDE, FAR_POD, FAR_POD, True, id="outside to another node's pod"),
        pytest.param(NODE, OUTSIDE, OUTSIDE, False, id="node to outside"),
    ],
)
def test_flows_that_the_rules_would_masquerade_escape_them_until_they_begin_again(
    source: IPv4Address, destination: IPv4Address, to: IPv4Address, expected: bool
) -> None:
    before = Flow(source, 4000, destination, 53, to, 53, source)
    assert escapes(policy(), before, {NODE}) == expected
    assert not escapes(policy(masquerade=False), before, {NODE})
    masqueraded = Flow(source, 4000, destination, 53, to, 53, NODE)
    assert not escapes(policy(), masqueraded, {NODE})
