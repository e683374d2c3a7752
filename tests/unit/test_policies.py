"""Network policies as values: what they mean, and the tables of a node."""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

import pytest

from agent.kernel.values import IPAddress
from testbed.cluster.namespace import Namespace
from testbed.cluster.network_policy import NetworkPolicy
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster
from testbed.lab.ruleset import Ruleset, difference, whole
from testbed.policies.evaluate import PolicyVerdict, evaluate
from testbed.policies.pairs import passing, port_answers
from testbed.policies.preview import after, reach_changes
from testbed.policies.ranges import Grant, allowed, union, without
from testbed.policies.tables import SKELETON, TABLE, wanted, wanted_on_bridge
from testbed.policies.world import End, NamedPort, PolicyPod, Protocol, World, cluster_dns
from tests.policy_cases import PORTS, Json, PlainPod, RandomPolicies, allows, namespace_labels, nine_pods

SETS = 200


def policy(spec: Json, name: str = "p", namespace: str = "default") -> NetworkPolicy:
    return NetworkPolicy.model_validate(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
    )


def pod(name: str, *addresses: str, node: str = "node1", namespace: str = "default", **labels: str) -> PolicyPod:
    return PolicyPod(
        key=ObjectKey(namespace, name),
        labels=labels or {"app": name},
        node=node,
        addresses=tuple(map(ip_address, addresses)),
        ports=(NamedPort("http", "tcp", 8080),),
        device=f"veth{name}",
    )


CLIENT = pod("client", "10.0.46.3", "fd00:46::3")
TOMCAT = pod("tomcat", "10.0.90.2", "fd00:90::2", node="node2")
OTHER = pod("other", "10.0.90.3", node="node2")
NODES = {
    "node1": frozenset({ip_address("192.168.8.227"), ip_address("10.0.46.1")}),
    "node2": frozenset({ip_address("192.168.8.228"), ip_address("10.0.90.1")}),
}


def world(*policies: NetworkPolicy, pods: Sequence[PolicyPod] = (CLIENT, TOMCAT, OTHER)) -> World:
    return World(policies, tuple(pods), {"shop": {"team": "a", "kubernetes.io/metadata.name": "shop"}}, NODES)


def end(one: PolicyPod) -> End:
    return End(one.addresses[0], one)


def ask(one: World, source: PolicyPod, target: PolicyPod, port: int | None = 8080) -> PolicyVerdict:
    return evaluate(one, end(source), end(target), "tcp" if port else "icmp", port)


# Reading


def test_what_is_left_out_is_as_in_kubernetes() -> None:
    assert policy({"podSelector": {}}).spec.directions == ("Ingress",)
    assert policy({"podSelector": {}, "ingress": []}).spec.directions == ("Ingress",)
    assert policy({"podSelector": {}, "egress": []}).spec.directions == ("Ingress",)
    assert policy({"podSelector": {}, "egress": [{}]}).spec.directions == ("Ingress", "Egress")
    assert policy({"podSelector": {}, "policyTypes": ["Egress"]}).spec.directions == ("Egress",)
    read = policy({"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]})
    assert read.spec.pod_selector.matches({})
    assert read.spec.ingress[0].ports[0].protocol == "TCP"


def test_a_policy_written_again_reads_the_same() -> None:
    for number in range(20):
        for one in RandomPolicies(number, nine_pods()).some():
            read = NetworkPolicy.model_validate(one)
            again = NetworkPolicy.model_validate(read.to_manifest())
            assert again.to_manifest() == read.to_manifest()
            assert again.spec.directions == read.spec.directions


CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16}
nodes: {node1: {}}
"""


def problems(spec: str) -> list[str]:
    document = f"---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    try:
        found = read_cluster((CLUSTER + document).encode(), "f.yaml")
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return [f"warning {problem}" for problem in found.warnings]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{ingress: [{from: [{}]}]}", "a peer that names none"),
        ("{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}", "addresses and labels in one peer"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", "not a network (got 10.0.0.0/33; want one such as"),
        ("{ingress: [{from: [{ipBlock: {}}]}]}", "cidr is missing"),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]}",
            "an exception outside the block (got 11.0.0.0/9; want a network inside 10.0.0.0/8)",
        ),
        ("{ingress: [{ports: [{endPort: 90}]}]}", "a range without a first number (got endPort without port"),
        ("{ingress: [{ports: [{port: web, endPort: 90}]}]}", "got endPort with port web"),
        ("{ingress: [{ports: [{port: 91, endPort: 90}]}]}", "a range whose end is below its start (got 91 to 90"),
        ("{ingress: [{ports: [{port: 80, protocol: ICMP}]}]}", "not one of the known values (got ICMP"),
        ("{podSelector: {matchExpressions: [{key: a, operator: In}]}}", "no values to compare with"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}", "values without an effect"),
        ("{podSelector: {matchExpressions: [{key: a}]}}", "operator is missing"),
        ("{policyTypes: [ingress]}", "not one of the known values (got ingress; want Ingress or Egress)"),
        ("{podselector: {}}", "unknown or unsupported key"),
        ("{egress: [{}], policyTypes: [Ingress]}", "warning error: f.yaml:10:16: spec.egress: rules without an effect"),
    ],
)
def test_mistakes_of_a_policy_are_one_line(spec: str, said: str) -> None:
    (problem,) = problems(spec)
    assert said in problem


# Meaning


def test_pods_that_no_policy_selects_are_reached() -> None:
    assert str(ask(world(), CLIENT, TOMCAT)) == "allowed: no policy applies to it"
    deny_other = world(policy({"podSelector": {"matchLabels": {"app": "other"}}}))
    assert ask(deny_other, CLIENT, TOMCAT).allowed


def test_a_default_deny_is_named_with_what_it_denies() -> None:
    denied = ask(world(policy({"podSelector": {}}, "default-deny")), CLIENT, TOMCAT)
    assert str(denied) == (
        "denied by policy default/default-deny (ingress of tomcat): no rule allows client → tomcat:8080"
    )


def test_policies_add_up() -> None:
    deny = policy({"podSelector": {}}, "deny")
    web = policy({"podSelector": {"matchLabels": {"app": "tomcat"}}, "ingress": [{"ports": [{"port": "http"}]}]}, "web")
    both = world(deny, web)
    assert str(ask(both, CLIENT, TOMCAT)) == "allowed by ingress policy default/web"
    assert not ask(both, CLIENT, TOMCAT, 8081).allowed
    assert not ask(both, CLIENT, TOMCAT, None).allowed
    assert not ask(both, CLIENT, OTHER).allowed


def test_both_ends_have_to_agree() -> None:
    out = policy({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]}, "no-way-out")
    into = policy({"podSelector": {"matchLabels": {"app": "tomcat"}}, "ingress": [{}]}, "come-in")
    assert str(ask(world(out, into), CLIENT, TOMCAT)) == (
        "denied by policy default/no-way-out (egress of client): no rule allows client → tomcat:8080"
    )
    assert ask(world(out, into), TOMCAT, CLIENT).allowed


def test_a_namespace_is_meant_by_its_labels_and_an_own_one_by_none() -> None:
    guest = pod("guest", "10.0.46.4", namespace="shop")
    by_name = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    for peer, from_guest, from_client in (
        ({"podSelector": {}}, False, True),
        ({"namespaceSelector": {}}, True, True),
        (by_name, True, False),
        ({**by_name, "podSelector": {"matchLabels": {"app": "nothing"}}}, False, False),
    ):
        one = world(policy({"podSelector": {}, "ingress": [{"from": [peer]}]}), pods=(CLIENT, TOMCAT, guest))
        assert (ask(one, guest, TOMCAT).allowed, ask(one, CLIENT, TOMCAT).allowed) == (from_guest, from_client), peer


def test_a_node_and_its_own_pods_always_reach_each_other() -> None:
    everything = world(policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    own, other = End(ip_address("192.168.8.228"), name="node2"), End(ip_address("192.168.8.227"), name="node1")
    assert str(evaluate(everything, own, end(TOMCAT), "tcp", 8080)).startswith("allowed: node2 and its own pods")
    assert evaluate(everything, end(TOMCAT), own, "tcp", 22).allowed
    assert not evaluate(everything, other, end(TOMCAT), "tcp", 8080).allowed
    assert str(evaluate(everything, end(CLIENT), end(CLIENT), "tcp", 1)) == "allowed: a pod always reaches itself"


def test_the_dns_of_the_lab_is_the_kube_dns_of_everybodys_manifests() -> None:
    to_dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    spec = {"podSelector": {}, "egress": [{"to": [to_dns], "ports": [{"protocol": "UDP", "port": 53}]}]}
    one = world(policy({**spec, "policyTypes": ["Egress"]}), pods=(CLIENT, cluster_dns()))
    assert evaluate(one, end(CLIENT), end(cluster_dns()), "udp", 53).allowed
    assert not evaluate(one, end(CLIENT), end(cluster_dns()), "tcp", 53).allowed
    assert wanted(one, "node1").sets["egress-client-4-ports"] == {"10.96.0.10 . udp . 53"}


# Ranges


def test_ranges_are_joined_and_cut() -> None:
    assert union([(5, 6), (1, 2), (3, 4), (9, 9), (5, 7)]) == [(1, 7), (9, 9)]
    assert without((1, 10), [(3, 4), (4, 5), (9, 12)]) == ((1, 2), (6, 8))
    assert without((1, 3), [(0, 9)]) == ()


def test_overlapping_grants_become_parts_that_do_not_overlap() -> None:
    ten, eleven, twelve = (int(ip_address(f"10.0.0.{one}")) for one in (10, 11, 12))
    found = allowed(
        [
            Grant(((ten, twelve),), (("tcp", 80, 80),)),
            Grant(((eleven, eleven),), (("tcp", 81, 90), ("udp", 53, 53))),
            Grant(((twelve, twelve),), None),
        ],
        4,
    )
    assert found.whole == {"10.0.0.12"}
    assert found.at_ports == {
        "10.0.0.10 . tcp . 80",
        "10.0.0.11 . tcp . 80-90",
        "10.0.0.11 . udp . 53",
        "10.0.0.12 . tcp . 80",
    }


# Tables


def test_without_policies_nothing_is_wanted() -> None:
    assert wanted(world(), "node1").is_empty
    assert wanted_on_bridge(world(), "node1").is_empty


def test_a_pods_packets_pass_a_chain_of_two_sets_on_its_own_node_only() -> None:
    spec = {
        "podSelector": {"matchLabels": {"app": "tomcat"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}],
    }
    found = wanted(world(policy(spec)), "node2")
    assert found.maps == {
        "egress4": {},
        "egress6": {},
        "ingress4": {"10.0.90.2": "goto ingress-tomcat"},
        "ingress6": {"fd00:90::2": "goto ingress-tomcat"},
    }
    assert found.chains == {
        "ingress-tomcat": (
            "ip saddr @ingress-tomcat-4 accept",
            "ip saddr . meta l4proto . th dport @ingress-tomcat-4-ports accept",
            "ip6 saddr @ingress-tomcat-6 accept",
            "ip6 saddr . meta l4proto . th dport @ingress-tomcat-6-ports accept",
            'counter drop comment "no ingress rule allows it"',
        )
    }
    assert found.sets == {
        "ingress-tomcat-4": {"10.0.90.2"},
        "ingress-tomcat-4-ports": {"10.0.46.3 . tcp . 8080"},
        "ingress-tomcat-6": {"fd00:90::2"},
        "ingress-tomcat-6-ports": {"fd00:46::3 . tcp . 8080"},
    }
    assert found.declared["ingress-tomcat-4"] == "type ipv4_addr; flags interval;"
    assert found.declared["ingress-tomcat-6-ports"] == "type ipv6_addr . inet_proto . inet_service; flags interval;"
    assert wanted(world(policy(spec)), "node1").is_empty


def test_one_more_peer_is_one_more_element() -> None:
    spec = {"podSelector": {"matchLabels": {"app": "tomcat"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
    before, after = (wanted(world(policy(spec), pods=pods), "node2") for pods in ([TOMCAT], [TOMCAT, OTHER]))
    assert difference(before, after).splitlines() == [
        f"delete element {TABLE} ingress-tomcat-4 {{ 10.0.90.2 }}",
        f"add element {TABLE} ingress-tomcat-4 {{ 10.0.90.2-10.0.90.3 }}",
    ]


def test_more_policies_are_no_more_rules() -> None:
    def many(count: int) -> Ruleset:
        return wanted(
            world(
                *(
                    policy({"podSelector": {}, "ingress": [{"ports": [{"port": number}]}]}, f"p{number}")
                    for number in range(1000, 1000 + 2 * count, 2)
                )
            ),
            "node2",
        )

    assert many(1).chains == many(500).chains
    assert len(many(500).sets["ingress-tomcat-4-ports"]) == 500


def test_the_bridge_delivers_to_an_isolated_pod_only_packets_for_its_addresses() -> None:
    both = world(policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    assert wanted_on_bridge(both, "node1").sets == {
        "senders": {"vethclient"},
        "receivers": {"vethclient"},
        "own4": {"vethclient . 10.0.46.3"},
        "own6": {"vethclient . fd00:46::3"},
    }


def test_a_pod_of_another_namespace_has_chains_of_its_own() -> None:
    guest = pod("client", "10.0.46.4", namespace="shop")
    found = wanted(
        world(policy({"podSelector": {}}), policy({"podSelector": {}}, namespace="shop"), pods=(CLIENT, guest)), "node1"
    )
    assert set(found.chains) == {"ingress-client", "ingress-shop_client"}
    assert "add chain inet testbed-policies ingress-shop_client" in whole(SKELETON, found)


# Everything against everything


def as_world(policies: Sequence[Json], pods: Sequence[PlainPod]) -> World:
    return World(
        tuple(map(NetworkPolicy.model_validate, policies)),
        tuple(
            PolicyPod(
                key=ObjectKey(one.namespace, one.name),
                labels=one.labels,
                node=f"node-{one.name}",
                addresses=(ip_address(one.address),),
                ports=tuple(NamedPort(name, as_protocol(p), n) for name, (p, n) in one.ports.items()),
                device=f"veth{one.namespace}{one.name}",
            )
            for one in pods
        ),
        namespace_labels(),
    )


def as_protocol(name: str) -> Protocol:
    known: dict[str, Protocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
    return known[name]


@pytest.mark.parametrize("seed", range(SETS))
def test_answer_and_tables_agree_with_a_naive_evaluation(seed: int) -> None:
    pods = nine_pods()
    policies = RandomPolicies(seed, pods).some()
    one = as_world(policies, pods)
    tables = {of.node: wanted(one, of.node) for of in one.pods}
    plain = {ObjectKey(of.namespace, of.name): of for of in pods}
    for source in one.pods:
        for target in one.pods:
            for protocol in ("TCP", "UDP", "SCTP"):
                for port in (*PORTS, 82):
                    expected = allows(
                        policies, namespace_labels(), plain[source.key], plain[target.key], protocol, port
                    )
                    case = (policies, source.key, target.key, protocol, port)
                    assert evaluate(one, end(source), end(target), as_protocol(protocol), port).allowed == expected, (
                        case
                    )
                    assert passes(tables, source, target, protocol.lower(), port) == expected, case


def passes(tables: Mapping[str, Ruleset], source: PolicyPod, target: PolicyPod, protocol: str, port: int) -> bool:
    """Return what the tables' elements let through: a chain that is not there lets everything pass."""
    for direction, own, far in (("egress", source, target), ("ingress", target, source)):
        table = tables[own.node]
        name = f"{direction}-{own.key.file_name}"
        if str(own.addresses[0]) not in table.maps[f"{direction}4"]:
            assert name not in table.chains
            continue
        whole_ones = table.sets.get(f"{name}-4", frozenset())
        at_ports = [one.split(" . ") for one in table.sets.get(f"{name}-4-ports", frozenset())]
        address = far.addresses[0]
        if not any(inside(address, one) for one in whole_ones) and not any(
            inside(address, addresses) and protocol == of and inside_ports(port, ports)
            for addresses, of, ports in at_ports
        ):
            return False
    return True


def inside(address: IPAddress, text: str) -> bool:
    first, _, last = text.partition("-")
    return int(ip_address(first)) <= int(address) <= int(ip_address(last or first))


def inside_ports(port: int, text: str) -> bool:
    first, last = re.fullmatch(r"(\d+)(?:-(\d+))?", text).groups()  # type: ignore[union-attr] # checked by the pattern
    return int(first) <= port <= int(last or first)


# All ports at once


def test_all_ports_are_reported_in_few_ranges() -> None:
    deny = policy({"podSelector": {}}, "deny")
    ports = [{"port": "http"}, {"port": 9000, "endPort": 9010}, {"protocol": "UDP"}]
    web = policy({"podSelector": {"matchLabels": {"app": "tomcat"}}, "ingress": [{"ports": ports}]}, "web")
    first, other = port_answers(world(deny, web), end(CLIENT), end(TOMCAT))
    assert (first.ports, str(first.verdict)) == (
        ["8080/tcp", "9000-9010/tcp", "*/udp"],
        "allowed by ingress policy default/web",
    )
    assert other.ports == ["0-8079/tcp", "8081-8999/tcp", "9011-65535/tcp", "*/sctp", "other protocols"]
    assert passing(port_answers(world(deny, web), end(CLIENT), end(TOMCAT))) == first.ports
    assert passing(port_answers(world(), end(CLIENT), end(TOMCAT))) == ["all"]
    assert passing(port_answers(world(deny), end(CLIENT), end(TOMCAT))) == []


# Before it is applied


def test_a_preview_names_the_pairs_that_would_gain_or_lose_ports() -> None:
    deny = policy({"podSelector": {"matchLabels": {"app": "tomcat"}}}, "deny")
    web = policy({"podSelector": {"matchLabels": {"app": "tomcat"}}, "ingress": [{"ports": [{"port": "http"}]}]}, "web")
    assert list(reach_changes(world(), after(world(), [deny]))) == [
        {"source": source, "target": "tomcat", "gains": [], "loses": ["all"]} for source in ("client", "other")
    ]
    assert list(reach_changes(world(deny), after(world(deny), [web]))) == [
        {"source": source, "target": "tomcat", "gains": ["8080/tcp"], "loses": []} for source in ("client", "other")
    ]
    assert list(reach_changes(world(deny), after(world(deny), [deny]))) == []


def test_a_preview_knows_what_new_labels_do() -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}]}
    guest = pod("guest", "10.0.46.4", namespace="shop")
    one = world(policy(spec), pods=(TOMCAT, guest))
    labelled = Namespace.model_validate(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "b"}}}
    )
    assert list(reach_changes(one, after(one, [labelled]))) == [
        {"source": "shop/guest", "target": "tomcat", "gains": ["all"], "loses": []}
    ]


@pytest.mark.parametrize("seed", range(0, SETS, 10))
def test_a_preview_is_the_difference_of_both_answers(seed: int) -> None:
    pods = nine_pods()
    before = as_world(RandomPolicies(seed, pods).some(3), pods)
    then = after(before, as_world(RandomPolicies(seed + 1, pods).some(3), pods).policies)
    changed = {(one["source"], one["target"]): one for one in reach_changes(before, then)}
    for source in before.pods:
        for target in before.pods:
            answers = [passing(port_answers(one, end(source), end(target))) for one in (before, then)]
            assert (answers[0] != answers[1]) == ((str(source.key), str(target.key)) in changed)


@pytest.mark.parametrize("seed", range(0, SETS, 10))
def test_every_port_has_the_answer_of_its_range(seed: int) -> None:
    one = as_world(RandomPolicies(seed, nine_pods()).some(), nine_pods())
    for source in one.pods:
        for target in one.pods:
            answers = port_answers(one, end(source), end(target))
            for port in (0, 1, *range(76, 87), 65535):
                (span,) = [
                    (span, answer)
                    for answer in answers
                    for span in answer.spans
                    if span.protocol == "udp" and span.first <= port <= span.last
                ]
                assert span[1].verdict.allowed == evaluate(one, end(source), end(target), "udp", port).allowed
