"""Who has which subnet, whatever happens to agents, keys and watches: real agents in bare namespaces, a real etcd."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.netns.agents import ROOT, Agent, Underlay, ping, run, wait_until
from tests.waiting import constantly

pytestmark = [pytest.mark.root, pytest.mark.slow]

SUBNETS = "/coreos.com/network/subnets"
TTL_S = 5
SHORT = f"--subnet-lease-ttl={TTL_S}s"
NODE1, NODE2, NODE3 = "192.168.8.227", "192.168.8.228", "192.168.8.229"
KEPT_FOR_S = 30.0
"""How long the thief's key is looked at."""
CHANGE_LIMIT_S = 5.0
EVENTS, KEYS = 2_500, 100


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        made = Underlay(tmp_path, f"ss{os.getpid()}-", undo)
        made.start_etcd()
        made.write_config()
        yield made


def value(public_ip: str) -> str:
    return json.dumps({"PublicIP": public_ip, "PublicIPv6": None}, separators=(",", ":"))


def revision_of(underlay: Underlay, key: str) -> tuple[int, str]:
    """Return the key's mod_revision and value."""
    (pair,) = json.loads(underlay.etcdctl("get", f"{SUBNETS}/{key}", "-w=json").stdout)["kvs"]
    return pair["mod_revision"], pair["value"]


def forwarding(agent: Agent) -> dict[str, str]:
    """Return the next hop of each subnet, without ports."""
    return {entry["subnet"]: entry["via"].partition(":")[0] for entry in agent.state()["forwarding"]}


@contextmanager
def cut_off(underlay: Underlay, agent: Agent) -> Iterator[None]:
    """Yield the node hears nothing of etcd, and its connections to it are gone."""
    rule = "table ip cut { chain input { type filter hook input priority 0; ip saddr 192.168.8.11 drop; }; }"
    run("ip", "netns", "exec", agent.netns, "nft", rule)
    cut_connections(agent)
    try:
        yield
    finally:
        run("ip", "netns", "exec", agent.netns, "nft", "delete table ip cut")


def cut_connections(agent: Agent) -> None:
    """End every connection to etcd now, as when a machine in between drops its state."""
    run("ip", "netns", "exec", agent.netns, "ss", "--kill", "state", "established", "dport = :2379")


@pytest.mark.row("F5")
@pytest.mark.row("C14")
def test_a_node_that_slept_through_its_lease_never_writes_the_key_of_the_next_owner(underlay: Underlay) -> None:
    node1 = underlay.agent("node1", NODE1, SHORT, pinned="10.0.46.1/24")
    node1.wait_ready()
    node1.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: underlay.leases() == {}, TTL_S + 10, "the lease of the sleeper has ended", underlay.leases)
    node2 = underlay.agent("node2", NODE2, SHORT, pinned="10.0.46.1/24")
    node2.wait_ready()
    assert node2.subnet() == "10.0.46.0/24"
    taken = revision_of(underlay, "10.0.46.0-24")
    node1.process.send_signal(signal.SIGCONT)
    wait_until(lambda: NODE2 in node1.log, 10, "the sleeper says who has its subnet", lambda: node1.log)
    assert node1.process.wait(20) == 1, "it ends, so that a supervisor starts it for another subnet"
    node1.start()
    constantly(
        lambda: revision_of(underlay, "10.0.46.0-24") == taken, for_s=KEPT_FOR_S, what="the thief's key is untouched"
    )
    node1.wait_ready()
    assert node1.subnet() != "10.0.46.0/24"
    assert node2.state()["ready"] is True
    assert forwarding(node2) == {node1.subnet(): NODE1}


@pytest.mark.row("C25")
def test_a_reservation_survives_restarts(underlay: Underlay) -> None:
    key = "10.0.77.0-24"
    underlay.etcdctl("put", f"{SUBNETS}/{key}", value(NODE1))
    node1 = underlay.agent("node1", NODE1, SHORT)
    for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        node1.wait_ready()
        assert node1.subnet() == "10.0.77.0/24"
        assert node1.state()["lease"]["reservation"] is True
        entry = underlay.dump()[f"{SUBNETS}/{key}"]
        assert entry == {"value": value(NODE1), "has_lease": False}
        node1.end(how)
        assert list(underlay.leases()) == [f"{SUBNETS}/{key}"]
        node1.start()
    node1.wait_ready()
    assert underlay.etcdctl("lease", "list").stdout.strip() == "found 0 leases"


@pytest.mark.row("F21")
def test_a_peer_that_moved_during_an_outage_with_compaction_gets_its_packets_at_the_new_address(
    underlay: Underlay,
) -> None:
    node1 = underlay.agent("node1", NODE1, pinned="10.0.46.1/24")
    node1.wait_ready()
    machines = {address: underlay.host(f"peer{address[-3:]}", address) for address in (NODE2, NODE3)}
    underlay.etcdctl("put", f"{SUBNETS}/10.0.90.0-24", value(NODE2))
    wait_until(lambda: forwarding(node1) == {"10.0.90.0/24": NODE2}, 5, "the peer is known", lambda: node1.log)
    heard = {address: Ear(netns) for address, netns in machines.items()}
    wait_until(lambda: heard[NODE2].hears(node1), 5, "packets go to where the peer is")
    with cut_off(underlay, node1):
        wait_until(lambda: "keeping the last peers" in node1.log, 20, "the watch is gone", lambda: node1.log)
        underlay.etcdctl("put", f"{SUBNETS}/10.0.90.0-24", value(NODE3))
        revision = json.loads(underlay.etcdctl("get", "x", "-w=json").stdout)["header"]["revision"]
        underlay.etcdctl("compaction", str(revision))
        assert heard[NODE2].hears(node1), "with the last table until etcd is back"
    wait_until(lambda: heard[NODE3].hears(node1), CHANGE_LIMIT_S, "packets go to the new address")
    assert not heard[NODE2].hears(node1)
    assert forwarding(node1) == {"10.0.90.0/24": NODE3}


class Ear:
    """Counts datagrams of the overlay that reach a machine without an agent."""

    RULES = (
        "table ip ear { counter heard { }; chain input { type filter hook input priority 0; "
        "udp dport 8285 counter name heard drop; }; }"
    )

    def __init__(self, netns: str) -> None:
        self._netns = netns
        run("ip", "netns", "exec", netns, "nft", self.RULES)

    def hears(self, node: Agent) -> bool:
        """Return whether a packet of the node for 10.0.90.9 comes here."""
        before = self._count()
        ping(node.netns, "10.0.90.9", "-W1")
        return self._count() > before

    def _count(self) -> int:
        listed = run("ip", "netns", "exec", self._netns, "nft", "-j", "list", "counter", "ip", "ear", "heard").stdout
        count: int = json.loads(listed)["nftables"][-1]["counter"]["packets"]
        return count


def test_thousands_of_events_and_a_cut_while_catching_up_end_in_what_etcd_has(underlay: Underlay) -> None:
    node1 = underlay.agent("node1", NODE1, "--subnet-lease-ttl=120s", pinned="10.0.46.1/24")
    node1.wait_ready()
    node1.process.send_signal(signal.SIGSTOP)
    before = json.loads(underlay.etcdctl("get", "x", "-w=json").stdout)["header"]["revision"]
    for number in range(EVENTS // KEYS):
        underlay.etcdctl("txn", stdin=transaction(number))
    events = json.loads(underlay.etcdctl("get", "x", "-w=json").stdout)["header"]["revision"] - before
    assert events == EVENTS // KEYS, "a transaction is one revision"
    wanted = {f"10.0.{100 + n}.0/24": f"192.168.9.{(EVENTS // KEYS - 1 + n) % 200 + 1}" for n in range(0, KEYS, 2)}
    assert len(underlay.leases()) == len(wanted) + 1
    node1.process.send_signal(signal.SIGCONT)
    for _ in range(5):
        cut_connections(node1)
    wait_until(lambda: forwarding(node1) == wanted, 10, "the table is what etcd has", lambda: forwarding(node1))
    assert "Traceback" not in node1.log


def transaction(number: int) -> str:
    """Return it in etcdctl's form: every subnet at another address; the last one removes every other."""
    lines = []
    for n in range(KEYS):
        key = f"{SUBNETS}/10.0.{100 + n}.0-24"
        if n % 2 and number == EVENTS // KEYS - 1:
            lines.append(f"del {key}")
        else:
            lines.append(f"put {key} {json.dumps(value(f'192.168.9.{(number + n) % 200 + 1}'))}")
    return "\n" + "\n".join(lines) + "\n\n\n"


@pytest.mark.row("B40")
@pytest.mark.row("C32")
def test_junk_beside_good_keys_is_one_warning_each_and_does_no_harm(underlay: Underlay) -> None:
    junk = ("10.0.5.0", "10.0.5.300-24", "10.0.5.0-33", "10.0.5.1-24", "$(touch pwned)-24", "; touch pwned-24")
    bad_values = {"10.0.6.0-24": "no JSON", "10.0.7.0-24": '{"PublicIP":"$(touch pwned)"}'}
    good = {f"10.0.{number}.0/24": f"192.168.8.{number}" for number in (90, 91, 92)}
    node1 = underlay.agent("node1", NODE1, pinned="10.0.46.1/24")
    node1.wait_ready()
    for key in junk:
        underlay.etcdctl("put", f"{SUBNETS}/{key}", value(NODE2))
    for key, text in bad_values.items():
        underlay.etcdctl("put", f"{SUBNETS}/{key}", text)
    for subnet, address in good.items():
        underlay.etcdctl("put", f"{SUBNETS}/{subnet.replace('/', '-')}", value(address))
    wait_until(lambda: forwarding(node1) == good, 5, "the good ones are known", lambda: node1.log)
    # The list that comes every half minute shows them all again.
    constantly(lambda: forwarding(node1) == good, for_s=33, what="the good ones stay")
    warnings = [line for line in node1.log.splitlines() if " WARNING " in line]
    for key in (*junk, *bad_values):
        assert len([line for line in warnings if f"/{key}'" in line]) == 1, (key, warnings)
    assert "Traceback" not in node1.log
    assert not list(ROOT.glob("pwned*"))


@pytest.mark.timeout(300)
def test_a_node_has_the_same_subnet_after_forty_restarts(underlay: Underlay) -> None:
    nodes = [underlay.agent("node1", NODE1), underlay.agent("node2", NODE2)]
    for node in nodes:
        node.wait_ready()
    subnets = {node.name: node.subnet() for node in nodes}
    for how in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(20):
            for node in nodes:
                node.end(how)
                node.start()
            for node in nodes:
                node.wait_ready()
                assert node.subnet() == subnets[node.name]
    assert len(underlay.leases()) == len(nodes)
    assert len(underlay.etcdctl("lease", "list").stdout.splitlines()) == 1 + len(nodes)
