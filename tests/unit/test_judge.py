"""The judge of the exercises: what is wrong is said, what caused it is not."""

from dataclasses import replace

from testbed.exercises.judge import (
    JudgedLab,
    JudgedLease,
    JudgedNode,
    NameSeen,
    PairSeen,
    ServiceSeen,
    Verdict,
    judge,
)

ADDRESSES = {"node1": "192.168.8.1", "node2": "192.168.8.2"}
SUBNETS = {"node1": "10.0.1.0/24", "node2": "10.0.2.0/24"}


def node(name: str) -> JudgedNode:
    other = "node2" if name == "node1" else "node1"
    routes = {("10.0.0.0/16", "flannel0"), (SUBNETS[name], "docker0")}
    forwarding = frozenset({(SUBNETS[other], ADDRESSES[other])})
    return JudgedNode(name, ADDRESSES[name], True, forwarding, None, frozenset(routes), "flannel0", "docker0")


WELL = JudgedLab(
    network="10.0.0.0/16",
    nodes=(node("node1"), node("node2")),
    leases=tuple(JudgedLease(SUBNETS[name], ADDRESSES[name]) for name in SUBNETS),
    small=(PairSeen("a", "b", True), PairSeen("b", "a", True)),
    full=(PairSeen("a", "b", True), PairSeen("b", "a", True)),
    full_size=1472,
)


def wrong(seen: JudgedLab) -> dict[str, tuple[str, ...]]:
    return {one.check: one.wrong for one in judge(seen) if not one.holds}


def test_a_lab_that_is_well_holds_every_check() -> None:
    verdicts = judge(WELL)
    assert [one.check for one in verdicts] == [
        "agents",
        "leases",
        "forwarding tables",
        "routes",
        "every pair: small packets",
        "every pair: full-size packets (1472 bytes)",
    ]
    assert all(verdict == Verdict(verdict.check, True, ()) for verdict in verdicts)


def test_a_node_without_others_needs_no_route_into_the_overlay() -> None:
    alone = replace(node("node1"), forwarding=frozenset(), routes=frozenset({(SUBNETS["node1"], "docker0")}))
    assert WELL.leases is not None
    assert wrong(replace(WELL, nodes=(alone,), leases=WELL.leases[:1], small=(), full=())) == {}
    assert "routes" in wrong(replace(WELL, nodes=(alone, WELL.nodes[1])))


def test_of_an_agent_that_reports_nothing_the_kernels_tables_count() -> None:
    first, second = WELL.nodes
    silent = replace(second, forwarding=None, kernel_problems=())
    assert wrong(replace(WELL, nodes=(first, silent))) == {}
    said = ("node2's kernel has no route to 10.0.1.0/24",)
    assert wrong(replace(WELL, nodes=(first, replace(silent, kernel_problems=said)))) == {"forwarding tables": said}


def test_each_thing_that_is_wrong_is_found() -> None:
    first, second = WELL.nodes
    assert WELL.leases is not None
    assert wrong(replace(WELL, nodes=(first, replace(second, ready=False)))) == {
        "agents": ("node2's agent is not ready",)
    }
    assert wrong(replace(WELL, leases=WELL.leases[:1], nodes=(replace(first, forwarding=frozenset()), second))) == {
        "leases": ("node2 holds no lease",),
        "forwarding tables": ("no node forwards to node2",),
    }
    assert wrong(replace(WELL, nodes=(replace(first, forwarding=frozenset()), second))) == {
        "forwarding tables": ("node1's forwarding table differs from etcd's leases",)
    }
    assert wrong(replace(WELL, nodes=(first, replace(second, forwarding=None)))) == {
        "forwarding tables": ("node2's agent does not report its forwarding table",)
    }
    routes = frozenset({("10.0.0.0/16", "flannel0")})
    assert wrong(replace(WELL, nodes=(first, replace(second, routes=routes)))) == {
        "routes": ("node2's kernel has no route to its own pods, 10.0.2.0/24",)
    }
    routes = frozenset({("10.0.2.0/24", "docker0")})
    assert wrong(replace(WELL, nodes=(first, replace(second, routes=routes)))) == {
        "routes": ("node2's kernel has no route into the overlay",)
    }
    assert wrong(replace(WELL, full=(PairSeen("a", "b", False),))) == {
        "every pair: full-size packets (1472 bytes)": ("a -> b: no reply",)
    }
    assert set(wrong(replace(WELL, leases=None))) == {"leases", "forwarding tables"}


def test_of_two_families_each_is_looked_at() -> None:
    first, second = WELL.nodes
    own = {"node1": ("fd00:a:0:1::/64", "fd00:8::1"), "node2": ("fd00:a:0:2::/64", "fd00:8::2")}
    nodes = [
        replace(
            node,
            forwarding=(node.forwarding or frozenset()) | {own[other.name]},
            routes=node.routes | {(own[node.name][0], "docker0")},
        )
        for node, other in ((first, second), (second, first))
    ]
    leases = [JudgedLease(SUBNETS[name], ADDRESSES[name], own[name]) for name in SUBNETS]
    pairs = (*WELL.small, PairSeen("a", "b", True, 6), PairSeen("b", "a", True, 6))
    both = replace(WELL, nodes=nodes, leases=leases, small=pairs, full=pairs, has_ipv6=True)
    assert len(judge(both)) == 8
    assert wrong(both) == {}
    assert set(wrong(replace(both, nodes=(first, nodes[1])))) == {"forwarding tables", "routes"}
    silent = replace(both, small=(*WELL.small, PairSeen("a", "b", False, 6)))
    assert wrong(silent) == {"every pair by IPv6: small packets": ("a -> b: no reply",)}
    assert [one.trace for one in judge(silent) if one.trace] == ["-6 a b"]


def test_leases_of_machines_outside_the_lab_are_right_where_they_share_its_network() -> None:
    foreign = JudgedLease("10.0.9.0/24", "192.0.2.1")
    nodes = [
        replace(one, forwarding=(one.forwarding or frozenset()) | {("10.0.9.0/24", "192.0.2.1")}) for one in WELL.nodes
    ]
    shared = replace(WELL, nodes=nodes, leases=(*(WELL.leases or ()), foreign))
    assert set(wrong(shared)) == {"leases"}
    assert wrong(replace(shared, shares_network=True)) == {}


def test_a_foreign_lease_and_two_leases_of_a_node_are_found() -> None:
    leases = (*(WELL.leases or ()), JudgedLease("10.0.9.0/24", "192.0.2.1"), JudgedLease("10.0.3.0/24", "192.168.8.1"))
    assert wrong(replace(WELL, leases=leases))["leases"] == (
        "node1 holds 2 leases",
        "10.0.9.0/24 is leased to 192.0.2.1, which is not a node",
    )


def test_of_much_that_is_wrong_some_is_shown_and_the_rest_counted() -> None:
    pairs = [PairSeen("a", str(number), False) for number in range(30)]
    (lines,) = wrong(replace(WELL, small=pairs)).values()
    assert (len(lines), lines[-1]) == (9, "and 22 more")


def test_services_and_names_that_do_not_answer_are_found() -> None:
    services = (ServiceSeen("a", "web:80", ""), ServiceSeen("b", "web:80", "connection refused"))
    names = (NameSeen("a", True), NameSeen("b", False))
    assert wrong(replace(WELL, services=services, names=names)) == {
        "Services": ("b -> Service web:80: connection refused",),
        "names": ("b: no reply from the cluster's DNS",),
    }
    assert wrong(replace(WELL, services=services[:1], names=names[:1])) == {}
