"""Which UDP flows are forgotten after a change of Services and host ports, as values."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest

from agent.kernel.values import Flow, IPAddress
from testbed.cluster.object_key import key_of
from testbed.services.endpoints import BoundPort, Endpoint, HostPort
from testbed.services.udp_flows import FlowNode, Target, Translation, Translations, of_services, on_node, unsettled

HERE = Endpoint(IPv4Address("10.0.46.2"), 8080, key_of("web1"), "node1")
THERE = Endpoint(IPv4Address("10.0.90.2"), 8080, key_of("web2"), "node2")
CLUSTER_IP, NODE, OTHER_NODE, OUTSIDE = map(IPv4Address, ("10.96.3.7", "192.168.8.1", "192.168.8.2", "192.168.8.10"))
POD = IPv4Address("10.0.46.9")
AT_CLUSTER_IP, AT_NODE, AT_HOST = (CLUSTER_IP, 53), (None, 30053), (None, 5140)
BOUND = BoundPort(key_of("web"), "", "udp", CLUSTER_IP, 53, 30053, None, False, (HERE, THERE))
HOST_PORT = HostPort("udp", None, 5140, HERE)


def translations(*bound: BoundPort, host: tuple[HostPort, ...] = ()) -> Translations:
    """Return what node1 translates."""
    local = [one for one in bound if one.local_only and one.endpoints]
    return on_node("node1", of_services(bound), local, host)


def targets(*endpoints: Endpoint) -> frozenset[Target]:
    return frozenset((one.address, one.port) for one in endpoints)


def flow(
    destination: str | IPAddress,
    port: int,
    to: Endpoint | None = None,
    *,
    source: IPv4Address = POD,
    masqueraded: bool = False,
) -> Flow:
    """Return a flow that was translated to `to`, or not at all."""
    where = IPv4Address(str(destination))
    reply_source, reply_port = (where, port) if to is None else (to.address, to.port)
    return Flow(source, 4000, where, port, reply_source, reply_port, NODE if masqueraded else source)


# What is translated


def test_a_service_is_translated_at_its_cluster_ip_and_its_node_port() -> None:
    both = Translation(targets(HERE, THERE))
    assert translations(BOUND) == {AT_CLUSTER_IP: both, AT_NODE: both}
    assert translations(replace(BOUND, node_port=None)).keys() == {AT_CLUSTER_IP}
    assert translations(replace(BOUND, endpoints=())) == dict.fromkeys(
        (AT_CLUSTER_IP, AT_NODE), Translation(frozenset())
    )


def test_tcp_is_not_counted() -> None:
    assert translations(replace(BOUND, protocol="tcp"), host=(replace(HOST_PORT, protocol="tcp"),)) == {}


def test_a_local_node_port_leads_clients_from_outside_to_pods_of_the_node() -> None:
    found = translations(replace(BOUND, local_only=True))
    assert found[AT_NODE].from_outside == targets(HERE)
    assert found[AT_NODE].targets == targets(HERE, THERE)
    assert found[AT_CLUSTER_IP].from_outside is None


def test_a_host_port_is_translated_at_its_address_or_at_all_of_the_node() -> None:
    at_address = replace(HOST_PORT, address=NODE)
    assert translations(host=(HOST_PORT, at_address)).keys() == {AT_HOST, (NODE, 5140)}


def test_a_node_port_comes_before_a_host_port_as_in_the_rules_unless_it_leads_nowhere() -> None:
    both = replace(HOST_PORT, port=30053, to=THERE)
    one = replace(BOUND, endpoints=(HERE,))
    assert translations(one, host=(both,))[AT_NODE].targets == targets(HERE)
    assert translations(replace(one, endpoints=()), host=(both,))[AT_NODE].targets == targets(THERE)


# Which keys are looked at

LESS = replace(BOUND, endpoints=(HERE,))
NONE = replace(BOUND, endpoints=())


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        pytest.param([], [BOUND], {AT_CLUSTER_IP, AT_NODE}, id="new"),
        pytest.param([BOUND], [], {AT_CLUSTER_IP, AT_NODE}, id="gone"),
        pytest.param([BOUND], [LESS], {AT_CLUSTER_IP, AT_NODE}, id="one endpoint less"),
        pytest.param([LESS], [replace(BOUND, endpoints=(THERE,))], {AT_CLUSTER_IP, AT_NODE}, id="another endpoint"),
        pytest.param([LESS], [NONE], {AT_CLUSTER_IP, AT_NODE}, id="its last endpoint"),
        pytest.param([NONE], [LESS], {AT_CLUSTER_IP, AT_NODE}, id="the first"),
        pytest.param([BOUND], [replace(BOUND, node_port=30054)], {AT_NODE, (None, 30054)}, id="another node port"),
        pytest.param([BOUND], [replace(BOUND, node_port=None)], {AT_NODE}, id="no node port any more"),
        pytest.param([BOUND], [replace(BOUND, local_only=True)], {AT_NODE}, id="another traffic policy"),
        pytest.param([replace(BOUND, local_only=True)], [BOUND], {AT_NODE}, id="the old traffic policy"),
        pytest.param([replace(LESS, local_only=True)], [replace(BOUND, local_only=True)], set(), id="local, more"),
        pytest.param([LESS], [BOUND], set(), id="one endpoint more"),
        pytest.param([BOUND], [replace(BOUND, affinity_s=10)], set(), id="session affinity"),
        pytest.param([BOUND], [BOUND, replace(BOUND, protocol="tcp", port=80)], set(), id="TCP"),
        pytest.param([BOUND], [BOUND], set(), id="nothing"),
    ],
)
def test_only_keys_whose_flows_may_be_wrong_now_are_checked(
    old: list[BoundPort], new: list[BoundPort], keys: set[object]
) -> None:
    assert unsettled(translations(*old), translations(*new)) == keys


def test_the_pod_behind_a_host_port_is_looked_at_when_it_comes_goes_or_is_another() -> None:
    one, other = translations(host=(HOST_PORT,)), translations(host=(replace(HOST_PORT, to=THERE),))
    assert unsettled({}, one) == unsettled(one, {}) == unsettled(one, other) == {AT_HOST}


# Which flows are forgotten


def stale(flow: Flow, now: Translations, *keys: object) -> bool:
    """Return whether node1 forgets the flow after a change of these keys."""
    node = FlowNode(now, frozenset({NODE, ip_address("127.0.0.1")}), IPv4Network("10.0.0.0/16"))
    return node.is_stale(flow, frozenset(keys))  # type: ignore[arg-type]  # of keys


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(flow(CLUSTER_IP, 53), True, id="began before the Service"),
        pytest.param(flow(CLUSTER_IP, 53, HERE), False, id="to a pod that serves"),
        pytest.param(flow(CLUSTER_IP, 53, THERE), True, id="to a pod that serves no longer"),
        pytest.param(flow(CLUSTER_IP, 53, replace(HERE, port=9)), True, id="to another port of the pod"),
        pytest.param(flow(CLUSTER_IP, 54), False, id="to another port of the address"),
        pytest.param(flow(NODE, 30053), True, id="node port, began before the Service"),
        pytest.param(flow(NODE, 30053, HERE, masqueraded=True), False, id="node port, to a pod that serves"),
        pytest.param(flow(NODE, 30053, THERE, masqueraded=True), True, id="node port, to a pod that serves no longer"),
        pytest.param(flow(NODE, 30053, HERE, source=OUTSIDE), True, id="node port, from outside, not masqueraded"),
        pytest.param(flow(NODE, 30053, HERE, source=OUTSIDE, masqueraded=True), False, id="node port, from outside"),
        pytest.param(flow(OTHER_NODE, 30053), False, id="another node's node port"),
        pytest.param(flow("127.0.0.1", 30053), False, id="loopback"),
        pytest.param(flow(HERE.address, 8080), False, id="to the pod itself"),
    ],
)
def test_after_a_service_came_or_lost_a_pod(one: Flow, expected: bool) -> None:
    assert stale(one, translations(LESS), AT_CLUSTER_IP, AT_NODE) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(flow(CLUSTER_IP, 53, HERE), True, id="to a pod"),
        pytest.param(flow(CLUSTER_IP, 53), False, id="not translated"),
        pytest.param(flow(NODE, 30053, HERE, masqueraded=True), True, id="node port, to a pod"),
        pytest.param(flow(NODE, 30053), False, id="to a program of the node itself"),
    ],
)
def test_after_a_service_went(one: Flow, expected: bool) -> None:
    assert stale(one, {}, AT_CLUSTER_IP, AT_NODE) == expected


def test_after_a_service_lost_its_last_pod_none_of_its_flows_is_right() -> None:
    for one in (flow(CLUSTER_IP, 53), flow(CLUSTER_IP, 53, HERE), flow(NODE, 30053, HERE, masqueraded=True)):
        assert stale(one, translations(NONE), AT_CLUSTER_IP, AT_NODE)


def test_flows_of_keys_that_did_not_change_are_left_alone_even_when_they_are_wrong() -> None:
    now = translations(LESS)
    assert not stale(flow(CLUSTER_IP, 53), now, AT_HOST)
    assert not stale(flow(NODE, 30053), now, AT_CLUSTER_IP)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param(flow(NODE, 30053, HERE, source=OUTSIDE), False, id="from outside to a pod here"),
        pytest.param(flow(NODE, 30053, HERE, source=OUTSIDE, masqueraded=True), True, id="as it was: masqueraded"),
        pytest.param(flow(NODE, 30053, THERE, source=OUTSIDE, masqueraded=True), True, id="to another node's pod"),
        pytest.param(flow(NODE, 30053, THERE), False, id="from a pod to another node's pod"),
        pytest.param(flow(NODE, 30053, THERE, source=NODE, masqueraded=True), False, id="from the node itself"),
    ],
)
def test_after_a_node_port_became_local(one: Flow, expected: bool) -> None:
    assert stale(one, translations(replace(BOUND, local_only=True)), AT_NODE) == expected


def test_a_pod_of_the_nodes_own_network_is_reached_without_masquerading() -> None:
    own = replace(HERE, address=NODE)
    one = flow(NODE, 30053, own, source=OUTSIDE)
    assert not stale(one, translations(replace(BOUND, endpoints=(own,))), AT_NODE)


def test_a_host_port_keeps_the_clients_address() -> None:
    now = translations(host=(HOST_PORT,))
    assert not stale(flow(NODE, 5140, HERE, source=OUTSIDE), now, AT_HOST)
    assert stale(flow(NODE, 5140, source=OUTSIDE), now, AT_HOST)
    assert stale(flow(NODE, 5140, THERE, source=OUTSIDE), now, AT_HOST)


def test_when_the_host_port_at_an_address_goes_the_one_at_all_addresses_holds() -> None:
    now = translations(host=(HOST_PORT,))
    assert stale(flow(NODE, 5140, THERE), now, (NODE, 5140))
    assert not stale(flow(NODE, 5140, HERE), now, (NODE, 5140))


def test_the_same_by_ipv6() -> None:
    cluster_ip, pod, node = map(IPv6Address, ("fd00:10:96::7", "fd00:a:0:46::2", "fd00:8::1"))
    bound = replace(BOUND, cluster_ip=cluster_ip, endpoints=(replace(HERE, address=pod),))
    now = translations(bound)
    judge = FlowNode(now, frozenset({node, IPv6Address("::1")}), IPv6Network("fd00:a::/48"))
    client = IPv6Address("fd00:a:0:46::9")
    before = Flow(client, 4000, cluster_ip, 53, cluster_ip, 53, client)
    keys = frozenset(now)
    assert judge.is_stale(before, keys)
    assert not judge.is_stale(replace(before, reply_source=pod, reply_source_port=8080), keys)
    assert judge.is_stale(replace(before, destination=node, destination_port=30053), keys)
    assert not judge.is_stale(replace(before, destination=IPv6Address("::1"), destination_port=30053), keys)
