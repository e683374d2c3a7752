"""The same policies by every backend and data path, and by IPv6."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.lab import Lab, lab_of, skip_without
from tests.e2e.policy_probes import Probe, Prober, still_answers

pytestmark = [pytest.mark.slow]

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friends}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [echo, echo1, echo2]}]}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 8080}]}]
"""
WAYS = {
    "udp": ("--backend", "udp"),
    "udp in Python": ("--backend", "udp", "--datapath", "python"),
    "udp by the kernel": ("--backend", "udp", "--datapath", "kernel"),
    "vxlan": ("--backend", "vxlan"),
    "host-gw": ("--backend", "host-gw"),
    "ipip": ("--backend", "ipip"),
    "wireguard": ("--backend", "wireguard"),
}
CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: everywhere}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
nodes: {node1: {}, node2: {}}
"""
DUAL_STACK = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: everywhere}
network: {Network: 10.0.0.0/16, SubnetLen: 24, EnableIPv6: true, IPv6Network: "fd00:a::/48", Backend: {Type: vxlan}}
underlay: {topology: single, cidr: 192.168.8.0/24, ipv6Cidr: "fd00:8::/64"}
nodes: {node1: {}, node2: {}}
"""


def pod(name: str, node: str, role: str) -> str:
    return f"""---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}, role: {role}}}}}
spec: {{nodeName: {node}, containers: [{{name: echo, image: echo, ports: [{{containerPort: 8080}}]}}]}}
"""


PODS = "".join(
    (
        pod("friend", "node1", "friend"),
        pod("stranger", "node1", "stranger"),
        pod("echo1", "node1", "server"),
        pod("echo2", "node2", "server"),
        pod("far", "node2", "stranger"),
    )
)


def labs(text: str, directory: pytest.TempPathFactory, *options: str) -> Iterator[Lab]:
    file = directory.mktemp("everywhere") / "cluster.yaml"
    file.write_text(text + PODS)
    with lab_of(file, *options) as lab:
        yield lab


@pytest.fixture(params=WAYS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    options = WAYS[request.param]
    skip_without("fou" if options[-1] == "kernel" else options[1])
    yield from labs(CLUSTER, tmp_path_factory, *options)


@pytest.fixture(params=["vxlan", "host-gw"])
def dual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    skip_without(request.param)
    yield from labs(DUAL_STACK, tmp_path_factory, "--backend", request.param)


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield a lab in which nothing but policies needs to know connections."""
    options = "dns: false\nagent: {args: [--ip-masq=false]}\n"
    yield from labs(DUAL_STACK + options, tmp_path_factory, "--backend", "host-gw")


SOURCES = {"friend", "stranger", "far"}


def reached(lab: Lab, family: int) -> set[tuple[str, str]]:
    """Return the pairs whose first pod gets an answer from the second."""
    addresses = {one["name"]: one["address" if family == 4 else "ipv6_address"] for one in lab.json("status")["pods"]}
    url = "http://{}:8080/hostname" if family == 4 else "http://[{}]:8080/hostname"
    return {
        (source, target)
        for source in SOURCES
        for target in ("echo1", "echo2")
        if lab.exec(source, "curl", "-sg", "-m1", url.format(addresses[target])).code == 0
    }


EVERYONE = {(source, target) for source in SOURCES for target in ("echo1", "echo2")}
FRIEND = {("friend", "echo1"), ("friend", "echo2")}


@pytest.mark.row("P10")
def test_a_policy_is_enforced_by_every_backend_and_data_path(lab: Lab) -> None:
    assert reached(lab, 4) == EVERYONE
    lab.must("apply", "-f", "-", "--wait", stdin=POLICY)
    assert reached(lab, 4) == FRIEND
    traced = lab.json("trace", "far", "echo1:8080")
    assert traced["reasons"][0] == (
        "dropped by policy default/only-friends (ingress of echo1): no rule allows far → echo1:8080"
    )
    lab.must("delete", "networkpolicy", "only-friends")
    assert reached(lab, 4) == EVERYONE


@pytest.mark.row("P12")
def test_what_is_open_goes_on_where_nothing_else_tracks_connections(bare: Lab) -> None:
    both = [Prober(bare), Prober(bare)]
    both[1].addresses = {one["name"]: one["ipv6_address"] for one in bare.json("status")["pods"]}
    probes = [Probe("friend", target, "TCP", 8080) for target in ("echo1", "echo2")]
    with contextlib.ExitStack() as until_the_end:
        opened = [until_the_end.enter_context(prober.open(probe)) for prober in both for probe in probes]
        assert [still_answers(one, "before") for one in opened] == [True] * 4
        bare.must("apply", "-f", "-", "--wait", stdin=POLICY.replace("role: friend", "role: nobody"))
        assert [prober.passing(probes) for prober in both] == [set(), set()], "new ones do not begin"
        assert [still_answers(one, "later") for one in opened] == [True] * 4


@pytest.mark.row("P10")
def test_a_policy_is_enforced_by_either_family(dual: Lab) -> None:
    """Neighbours of one bridge still find each other, which IPv6 does by packets that pass the rules."""
    assert [reached(dual, family) for family in (4, 6)] == [EVERYONE, EVERYONE]
    dual.must("apply", "-f", "-", "--wait", stdin=POLICY)
    for node in ("node1", "node2"):
        dual.run(node, "ip", "-6", "neighbour", "flush", "dev", "docker0")
    assert [reached(dual, family) for family in (4, 6)] == [FRIEND, FRIEND]
    assert dual.testbed("policy", "-6", "friend", "echo2:8080").code == 0
    traced = dual.json("trace", "-6", "stranger", "echo1:8080")
    assert traced["reasons"][0].startswith("dropped by policy default/only-friends (ingress of echo1)")
    dual.must("delete", "networkpolicy", "only-friends")
    assert [reached(dual, family) for family in (4, 6)] == [EVERYONE, EVERYONE]
