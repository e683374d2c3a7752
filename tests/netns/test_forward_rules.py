"""Accept rules in the chain FORWARD of the machine's real iptables, and warnings about chains that are not ours."""

import json
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from agent.kernel.firewall import Firewall, Policy
from agent.kernel.flanneld_rules import find_leftovers
from agent.kernel.forward_rules import ForwardReport, ForwardRules, dropping_chains
from agent.kernel.journal import FileJournal
from agent.kernel.nftables import ChainMonitor
from tests.netns.conftest import NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread
from tests.waiting import wait_until

pytestmark = pytest.mark.root

NETWORK, SUBNET = IPv4Network("10.0.0.0/16"), IPv4Network("10.0.46.0/24")
POD, PEER_POD, OUTSIDE, LAN = "10.0.46.2", "10.0.90.2", "192.168.8.2", "172.20.0.2"
OURS = [
    '-A FORWARD -s 10.0.0.0/16 -m comment --comment "overlay-agent: from pods of 10.0.0.0/16" -j ACCEPT',
    '-A FORWARD -d 10.0.0.0/16 -m comment --comment "overlay-agent: to pods of 10.0.0.0/16" -j ACCEPT',
]
FLANNELS = """*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.0.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.0.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""
"""What a flanneld with iptables has there, docs/compatibility.md."""
POLICY = ":FORWARD DROP [0:0]\n"
DOCKERD = """:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
"""
ISOLATED = ":FORWARD DROP [0:0]\n-A FORWARD -s 10.0.46.2/32 -d 10.0.90.2/32 -j DROP\n"
LAST_RULE = """:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "all others" -j REJECT --reject-with icmp-host-prohibited
"""
LAST_CHAIN = """:FORWARD ACCEPT [0:0]
:reject-forward - [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j reject-forward
-A reject-forward -m limit --limit 3/min -j LOG
-A reject-forward -j REJECT
"""
FLOWS = ((POD, PEER_POD), (PEER_POD, POD), (POD, OUTSIDE), (OUTSIDE, POD), (LAN, OUTSIDE), (OUTSIDE, LAN))


class Node:
    """A node that forwards between its pod, a LAN, and a neighbour that is both outside and another node's pod."""

    def __init__(self, namespaces: NamespaceMaker, journal: Path) -> None:
        self.namespace = namespaces("node")
        pod, lan, other = namespaces("pod"), namespaces("lan"), namespaces("other")
        self.namespace.connect(pod, ("pods", "10.0.46.1/24"), ("eth0", f"{POD}/24"))
        self.namespace.connect(lan, ("lan", "172.20.0.1/24"), ("eth0", f"{LAN}/24"))
        self.namespace.connect(other, ("out", "192.168.8.1/24"), ("eth0", f"{OUTSIDE}/24"))
        other.run(["ip", "address", "add", f"{PEER_POD}/32", "dev", "eth0"])
        self.namespace.run(["ip", "route", "add", "10.0.90.0/24", "via", OUTSIDE])
        for leaf, gateway in ((pod, "10.0.46.1"), (lan, "172.20.0.1"), (other, "192.168.8.1")):
            leaf.run(["ip", "route", "add", "default", "via", gateway])
        self.namespace.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self._homes = {POD: pod, LAN: lan, OUTSIDE: other, PEER_POD: other}
        self.thread = NamespaceThread(self.namespace.pid)
        self._journal = journal
        self.rules = ForwardRules(FileJournal(journal, "node"))

    def converge(self, network: IPv4Network | IPv6Network = NETWORK) -> ForwardReport:
        return self.thread.run(lambda: self.rules.converge(network))

    def remove(self, network: IPv4Network | None = None) -> None:
        self.thread.run(lambda: self.rules.remove(network))

    def run(self, command: str) -> str:
        return self.namespace.run(command.split()).stdout

    def load(self, chains: str) -> None:
        """Give iptables a filter table of these lines, as programs that use iptables do."""
        self.restore(f"*filter\n{chains}COMMIT\n")

    def restore(self, text: str, *flags: str) -> None:
        command = ["ip", "netns", "exec", self.namespace.name, "iptables-restore", *flags]
        subprocess.run(command, input=text, text=True, check=True, timeout=60)

    def forward(self) -> list[str]:
        """Return the rules of the chain in iptables' words."""
        return [line for line in self.run("iptables -S FORWARD").splitlines() if line.startswith("-A")]

    def passed(self, *flows: tuple[str, str]) -> list[tuple[str, str]]:
        """Return those of the flows for which an echo request is replied to."""
        pings = [
            self._homes[here].popen(["ping", "-n", "-c1", "-W1", "-I", here, there], stdout=subprocess.DEVNULL)
            for here, there in flows
        ]
        return [flow for flow, ping in zip(flows, pings, strict=True) if ping.wait(60) == 0]

    def journal(self) -> list[str]:
        """Return the scripts that were run."""
        return [json.loads(line)["input"] for line in self._journal.read_text().splitlines()]


@pytest.fixture
def node(namespaces: NamespaceMaker, tmp_path: Path) -> Iterator[Node]:
    made = Node(namespaces, tmp_path / "journal.jsonl")
    yield made
    made.thread.close()


def test_without_rules_of_others_nothing_is_made(node: Node) -> None:
    assert node.converge() == ForwardReport()
    assert node.run("nft list ruleset") == ""


@pytest.mark.parametrize("chains", [POLICY, DOCKERD, ISOLATED], ids=["policy", "dockerd", "isolated pod"])
@pytest.mark.row("C27")
def test_the_verdict_is_that_of_flannels_rules(node: Node, chains: str) -> None:
    node.load(chains)
    assert node.passed(*FLOWS) == [], "iptables drops what it forwards"
    node.restore(FLANNELS, "--noflush")
    flannels = node.passed(*FLOWS)
    assert flannels, "flannel's rules do something"
    node.run("nft flush ruleset")
    node.load(chains)
    policy = Policy(NETWORK, SUBNET, masquerade=False)
    node.thread.run(lambda: Firewall(FileJournal(Path("/dev/null"), "node")).converge(policy))
    assert node.passed(*FLOWS) == [], "an accept in a table of our own cannot outvote it"
    assert len(node.converge().opened) == 1
    assert node.passed(*FLOWS) == flannels
    assert node.converge() == ForwardReport()


@pytest.mark.parametrize("chains", [LAST_RULE, LAST_CHAIN], ids=["rule", "chain"])
@pytest.mark.row("C28")
def test_our_rules_stand_before_a_last_rule_that_rejects(node: Node, chains: str) -> None:
    node.load(chains)
    before = node.forward()
    assert node.passed(*FLOWS) == []
    assert len(node.converge().opened) == 1
    assert node.passed(*FLOWS) == list(FLOWS[:4])
    assert node.forward() == [*before[:-1], *OURS, before[-1]]
    assert node.converge() == ForwardReport()


def test_the_rules_are_in_iptables_words_and_journalled(node: Node) -> None:
    node.load(DOCKERD)
    others = node.forward()
    assert node.converge().opened == ("chain FORWARD of table ip filter (policy drop)",)
    assert node.forward() == [*others, *OURS]
    assert all(rule in node.run("iptables-save") for rule in OURS)
    assert "overlay-agent: to pods of 10.0.0.0/16" in node.run("iptables -L FORWARD -n")
    (script,) = node.journal()
    assert script.count("add rule ip filter FORWARD") == 2


def test_foreign_edits_are_reverted_once(node: Node) -> None:
    node.load(POLICY)
    node.converge()
    for harm in ("iptables -F FORWARD", "iptables -D FORWARD 1", "iptables -D FORWARD 2", "nft flush ruleset"):
        node.run(harm)
        if harm == "nft flush ruleset":
            assert node.converge() == ForwardReport(), "the chain has gone"
            node.load(POLICY)
        assert node.converge().opened, harm
        assert node.forward() == OURS, harm
    node.run("iptables -I FORWARD -i lo -j ACCEPT")
    node.run("iptables -A FORWARD -o lo -j ACCEPT")
    assert node.converge() == ForwardReport()
    assert len(node.forward()) == 4


def test_saved_and_restored_rules_are_ours_still(node: Node) -> None:
    """iptables writes comments in a form that nft does not show."""
    node.load(DOCKERD)
    others = node.forward()
    node.converge()
    node.restore(node.run("iptables-save"))
    assert node.converge() == ForwardReport()
    assert node.forward() == [*others, *OURS]
    node.remove()
    assert node.forward() == others


def test_a_drop_inserted_before_them_is_named_and_kept(node: Node) -> None:
    node.load(POLICY)
    node.converge()
    node.run("iptables -I FORWARD -j DROP")
    report = node.converge()
    assert report.opened == ()
    (warning,) = report.warnings
    assert "chain FORWARD of table ip filter (policy drop; a rule drops the rest)" in warning
    assert node.forward() == ["-A FORWARD -j DROP", *OURS]
    assert node.passed(*FLOWS) == []


def test_only_rules_of_agents_are_removed(node: Node) -> None:
    by_hand = "-A FORWARD -s 10.0.0.0/16 -m comment --comment mine -j ACCEPT"
    node.load(POLICY)
    node.converge()
    node.converge(IPv4Network("10.9.0.0/16"))
    node.run(f"iptables {by_hand}")
    node.remove(NETWORK)
    assert by_hand in node.forward()
    assert OURS[0] not in node.forward()
    assert sum("10.9.0.0/16" in rule for rule in node.forward()) == 2
    node.remove()
    assert node.forward() == [by_hand]
    node.remove()
    assert node.forward() == [by_hand]


def test_ipv6_has_rules_in_the_chain_of_ip6tables(node: Node) -> None:
    network = IPv6Network("fd00:a::/48")
    node.run("ip6tables -P FORWARD DROP")
    assert node.converge(network).opened == ("chain FORWARD of table ip6 filter (policy drop)",)
    assert node.converge(network) == ForwardReport()
    rules = node.run("ip6tables -S FORWARD")
    assert '-A FORWARD -s fd00:a::/48 -m comment --comment "overlay-agent: from pods of fd00:a::/48" -j ACCEPT' in rules
    assert "-A FORWARD -d fd00:a::/48" in rules
    node.remove()
    assert node.run("ip6tables -S FORWARD") == "-P FORWARD DROP\n"


STATEFUL = (
    "add table inet hostfw; add chain inet hostfw f1 { type filter hook forward priority filter + 10; policy accept; };"
    " add rule inet hostfw f1 ct state established,related accept;"
    " add rule inet hostfw f1 reject with icmpx admin-prohibited"
)


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (
            "add table inet hostfw; add chain inet hostfw f1 { type filter hook forward priority 10; policy drop; }",
            "chain f1 of table inet hostfw (policy drop)",
        ),
        (STATEFUL, "chain f1 of table inet hostfw (policy accept; a rule drops the rest)"),
        (
            "add table ip hostfw; add chain ip hostfw forward { type filter hook forward priority -300; policy drop; }",
            "chain forward of table ip hostfw (policy drop)",
        ),
    ],
)
def test_a_chain_that_is_not_ours_is_named_until_it_accepts(node: Node, table: str, named: str) -> None:
    node.namespace.run(["nft", table])
    before = node.run("nft list ruleset")
    report = node.converge()
    assert report.opened == ()
    (warning,) = report.warnings
    assert named in warning
    assert node.run("nft list ruleset") == before, "nothing in it is touched"
    assert node.passed(*FLOWS) == []
    assert node.thread.run(dropping_chains) == [named]
    remedy = warning.partition("accept them with: ")[2]
    node.namespace.run(remedy.split())
    assert node.converge() == ForwardReport()
    assert (POD, PEER_POD) in node.passed(*FLOWS)


def test_chains_of_others_that_only_look_at_some_packets_are_not_named(node: Node) -> None:
    table = "add table inet guard; add chain inet guard f { type filter hook forward priority 0; policy accept; }"
    node.namespace.run(["nft", table])
    for rule in ("ct state invalid drop", "iifname lan drop", "ip saddr 10.0.46.9 reject", "tcp dport 25 drop"):
        node.namespace.run(["nft", "add", "rule", "inet", "guard", "f", *rule.split()])
    assert node.converge() == ForwardReport()
    assert node.thread.run(dropping_chains) == []


def test_a_policy_of_the_old_iptables_is_named_until_it_accepts(node: Node) -> None:
    tried = node.namespace.run(["iptables-legacy", "-P", "FORWARD", "DROP"], check=False)
    if tried.returncode != 0:
        pytest.skip(f"this kernel has no legacy iptables ({tried.stderr.strip()})")
    (warning,) = node.converge().warnings
    assert "chain FORWARD of table ip filter of iptables-legacy (policy drop)" in warning
    assert node.passed(*FLOWS) == []
    assert node.thread.run(dropping_chains) == ["chain FORWARD of table ip filter of iptables-legacy (policy drop)"]
    node.run(warning.partition("accept them with: ")[2])
    assert node.converge() == ForwardReport()
    assert (POD, PEER_POD) in node.passed(*FLOWS)


def test_a_chain_that_takes_no_rules_is_a_warning(node: Node) -> None:
    """A table with an owner can be changed by that process alone."""
    owner = node.namespace.popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert owner.stdin is not None
    owner.stdin.write(
        "add table ip filter { flags owner; }; add chain ip filter FORWARD"
        " { type filter hook forward priority filter; policy drop; }\n"
    )
    owner.stdin.flush()
    wait_until(lambda: "FORWARD" in node.run("nft list ruleset"), timeout_s=20, what="the owner has its table")
    report = node.converge()
    assert report.opened == ()
    (warning,) = report.warnings
    assert "chain FORWARD of table ip filter (policy drop) takes no accept rules for 10.0.0.0/16" in warning


def test_a_change_of_the_chain_is_reported_and_nothing_else(node: Node) -> None:
    with node.thread.run(lambda: ChainMonitor("filter", "FORWARD")) as monitor:
        node.run("nft add table ip other")
        node.namespace.run(["nft", "add chain ip other FORWARD { type filter hook forward priority 0; }"])
        assert not monitor.changed()
        for command, news in (
            ("iptables -P FORWARD DROP", True),
            ("iptables -A FORWARD -j ACCEPT", False),
            ("iptables -D FORWARD -j ACCEPT", True),
            ("iptables -P FORWARD ACCEPT", True),
            ("ip6tables -P FORWARD DROP", True),
            ("iptables -A INPUT -j ACCEPT", False),
        ):
            node.run(command)
            assert monitor.changed() is news, command
            assert not monitor.changed()


@pytest.mark.parametrize("comment", [b"caf\xe9", b"two\n\nlines"])
def test_a_comment_of_any_bytes_is_no_obstacle(node: Node, comment: bytes) -> None:
    node.load(POLICY)
    node.converge()
    node.restore(node.run("iptables-save"))
    start = ["ip", "netns", "exec", node.namespace.name, "iptables", "-A", "FORWARD"]
    subprocess.run([*start, "-m", "comment", "--comment", comment, "-j", "DROP"], check=True, timeout=60)
    assert node.thread.run(find_leftovers) == []
    node.remove()
    left = node.run("nft list chain ip filter FORWARD")
    assert "accept" not in left, "ours are removed"
    assert " drop\n" in left
