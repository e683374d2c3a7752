"""NetworkPolicies in a lab of nine pods: what real probes get is what the cases say, and what `testbed` says."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from ipaddress import IPv4Address
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.e2e.policy_forgery import GOOD, forgeries, heard, inside
from tests.e2e.policy_probes import Probe, Prober, still_answers
from tests.policy_cases import (
    CASES,
    NAMED,
    NAMES,
    NAMESPACES,
    PORTS,
    Json,
    PlainPod,
    RandomPolicies,
    allows,
    namespace_labels,
)
from tests.waiting import constantly, wait_until

Apply = Callable[..., None]
IN_EVERY_RUN = 12
"""Cases; the others are for the slow runs."""
IN_FORCE_S = 1.0
REPAIR_S = 5.0
ASKED_AGAIN_S = 3.0
"""A neighbour that did not answer is asked again after 1 s, and the packet that waited for it is sent again as late."""
CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: policies}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
nodes: {node1: {}, node2: {}}
"""
"""a and b of each namespace are on one node, so that pairs are on one bridge and on two nodes."""
NODES = {"a": "node1", "b": "node1", "c": "node2"}


def documents(*objects: Json) -> str:
    return "".join(f"---\n{json.dumps(one)}\n" for one in objects)


def pod(namespace: str, name: str, node: str, **labels: str) -> Json:
    containers = [
        {
            "name": f"port-{port}",
            "image": "echo",
            "env": [{"name": "PORT", "value": str(port)}],
            "ports": [
                {"containerPort": port, "protocol": protocol, "name": f"serve-{port}-{protocol.lower()}"}
                for protocol in ("TCP", "UDP")
            ],
        }
        for port in PORTS
    ]
    metadata = {"name": name, "namespace": namespace, "labels": {"pod": name, **labels}}
    spec = {"nodeName": node, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def policy(name: str, namespace: str, **spec: Any) -> Json:  # noqa: ANN401 - JSON
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def namespace(name: str, **labels: str) -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"ns": name, **labels}}}


PODS = [f"{one}/{name}" for one, name in product(NAMESPACES, NAMES)]
PROBES = [
    Probe(source, target, protocol, port)
    for source, target, protocol, port in product(PODS, PODS, ("TCP", "UDP"), PORTS)
    if source != target
]


@pytest.fixture(scope="module")
def lab(new_lab: NewLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("policies") / "policies.yaml"
    pods = (pod(one, name, NODES[name]) for one, name in product(NAMESPACES, NAMES))
    file.write_text(CLUSTER + documents(*map(namespace, NAMESPACES), *pods))
    with new_lab(str(file)) as handle:
        yield Lab(handle.name)


@pytest.fixture(scope="module")
def prober(lab: Lab) -> Prober:
    return Prober(lab)


@pytest.fixture
def apply(lab: Lab) -> Iterator[Apply]:
    """Apply objects and wait until they are in force; those that are not part of the lab go with the test."""
    applied: dict[tuple[str, str, str], Json] = {}

    def put(*objects: Json) -> None:
        applied.update(
            {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one for one in objects}
        )
        lab.must("apply", "-f", "-", "--wait", stdin=documents(*objects))

    yield put
    policies = [one for one in applied.values() if one["kind"] == "NetworkPolicy"]
    if policies:
        lab.must("delete", "-f", "-", stdin=documents(*policies))


def expected_of(lines: Sequence[str]) -> set[Probe]:
    """Return the probes that pass by the lines of a case."""
    passing = set(PROBES)
    for line in lines:
        verdict, source, target, *ports = line.split()
        meant = {
            probe
            for probe in PROBES
            if fnmatchcase(probe.source, source)
            and fnmatchcase(probe.target, target)
            and fnmatchcase(f"{probe.port}/{probe.protocol}", *ports or ["*"])
        }
        assert meant, f"no probe is meant by: {line}"
        passing = passing - meant if verdict == "deny" else passing | meant
    return passing


def compare(prober: Prober, expected: set[Probe], probes: Sequence[Probe] = PROBES) -> None:
    """Fail for each probe that gets another answer than expected."""
    passing = prober.passing(probes, expected)
    lines = [f"{probe} passes" for probe in sorted(passing - expected)]
    lines += [f"{probe} does not pass" for probe in sorted(expected - passing)]
    assert not lines, "\n".join(lines[:20])


def policies_of(case: Mapping[str, Any], addresses: Mapping[str, str]) -> list[Json]:
    text = re.sub(r"\{(\w/\w)\}", lambda found: addresses[found[1]], json.dumps(case["policies"]))
    return [policy(name, spec.pop("in"), **spec) for name, spec in json.loads(text).items()]


def test_without_policies_every_pair_passes(prober: Prober) -> None:
    compare(prober, set(PROBES))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            id=case["case"].replace(" ", "-"),
            marks=[pytest.mark.row(f"Q{number}")] + [pytest.mark.slow] * (number > IN_EVERY_RUN),
        )
        for number, case in enumerate(CASES, 1)
    ],
)
def test_probes_get_the_answers_of_the_case(case: Mapping[str, Any], apply: Apply, prober: Prober) -> None:
    apply(*policies_of(case, prober.addresses))
    compare(prober, expected_of(case["expect"]))


# Changes


def one_probe(source: str, target: str, port: int = 80) -> Probe:
    return Probe(source, target, "TCP", port)


def becomes(prober: Prober, probe: Probe, *, passes: bool, within_s: float, what: str) -> None:
    """Wait until the probe passes, or does not."""
    margin_s = 0.3 if passes else 0.1
    wait_until(lambda: (probe in prober.passing([probe], margin_s=margin_s)) is passes, timeout_s=within_s, what=what)


@pytest.mark.parametrize("target", ["x/b", "x/c"], ids=["same node", "other node"])
@pytest.mark.row("P1")
def test_a_policy_is_in_force_within_a_second(target: str, lab: Lab, apply: Apply, prober: Prober) -> None:
    probe = one_probe("x/a", target)
    assert prober.passing([probe], [probe])
    deny = policy("deny", "x", podSelector={})
    lab.must("apply", "-f", "-", stdin=documents(deny))
    try:
        becomes(prober, probe, passes=False, within_s=IN_FORCE_S, what="the policy is in force")
    finally:
        lab.must("delete", "networkpolicy", "deny", "-n", "x")
    becomes(prober, probe, passes=True, within_s=IN_FORCE_S, what="the policy is no longer in force")


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("target", ["x/b", "x/c"], ids=["same node", "other node"])
@pytest.mark.row("P12")
def test_what_is_open_goes_on_under_a_policy_that_forbids_it(
    target: str, protocol: str, apply: Apply, prober: Prober
) -> None:
    """Kubernetes leaves it to the implementation; the guide says what ours does."""
    probe = Probe("x/a", target, protocol, 80)
    numbers = count()
    with prober.open(probe) as opened:

        def goes_on() -> bool:
            return still_answers(opened, f"number-{next(numbers)}")

        assert goes_on()
        apply(policy("deny", "x", podSelector={}, policyTypes=["Ingress", "Egress"]))
        assert not prober.passing([probe], margin_s=ASKED_AGAIN_S), "a new one does not begin"
        constantly(goes_on, for_s=3, what="the open one goes on")
        assert not prober.passing([probe]), "still no new one"


@pytest.mark.row("P13")
def test_a_named_port_is_the_number_that_each_pod_gives_it(lab: Lab, apply: Apply) -> None:
    def named(name: str, node: str, web: int) -> Json:
        made = pod("x", name, node, role="named")
        for container in made["spec"]["containers"]:
            number = container["env"][0]["value"]
            for port in container["ports"]:
                port["name"] = f"{'web' if number == str(web) else 'other'}-{port['protocol'].lower()}"
        return made

    pods = documents(named("first", "node1", 80), named("second", "node2", 81))
    lab.must("apply", "-f", "-", "--wait", stdin=pods)
    try:
        prober = Prober(lab)
        probes = [
            Probe(source, target, protocol, port)
            for source, target, protocol, port in product(
                ("x/a", "x/c"), ("x/first", "x/second"), ("TCP", "UDP"), PORTS
            )
        ]
        compare(prober, set(probes), probes)
        web = [{"port": "web-tcp"}, {"port": "web-udp", "protocol": "UDP"}]
        passes = {probe for probe in probes if (probe.target, probe.port) in {("x/first", 80), ("x/second", 81)}}
        apply(policy("in", "x", podSelector={"matchLabels": {"role": "named"}}, ingress=[{"ports": web}]))
        compare(prober, passes, probes)
        apply(
            policy("in", "x", podSelector={"matchLabels": {"role": "named"}}, ingress=[{}]),
            policy("out", "x", podSelector={}, policyTypes=["Egress"], egress=[{"ports": web}]),
        )
        compare(prober, passes, probes)
    finally:
        lab.must("delete", "-f", "-", stdin=pods)


@pytest.mark.row("P4")
def test_labels_of_pods_and_namespaces_decide_as_they_are_now(lab: Lab, apply: Apply, prober: Prober) -> None:
    from_y, from_b = one_probe("y/c", "x/a"), one_probe("x/b", "x/a")
    peers = [
        {"namespaceSelector": {"matchLabels": {"ns2": "updated"}}},
        {"podSelector": {"matchLabels": {"pod2": "updated"}}},
    ]
    apply(policy("one", "x", podSelector={"matchLabels": {"pod": "a"}}, ingress=[{"from": peers}]))
    assert not prober.passing([from_y, from_b])
    lab.must("apply", "-f", "-", stdin=documents(namespace("y", ns2="updated"), pod("x", "b", "node1", pod2="updated")))
    for probe in (from_y, from_b):
        becomes(prober, probe, passes=True, within_s=10, what=f"{probe} by the new label")
    lab.must("apply", "-f", "-", stdin=documents(namespace("y"), pod("x", "b", "node1")))
    for probe in (from_y, from_b):
        becomes(prober, probe, passes=False, within_s=10, what=f"{probe} without the label")


@pytest.mark.slow
@pytest.mark.row("P8")
@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_pod_with_another_address_is_isolated_from_its_first_moment(node: str, lab: Lab, apply: Apply) -> None:
    """Probes of the address begin before the pod has it; without a policy they get through."""
    old, new = (documents(pod("x", name, node)) for name in ("old", "new"))
    for manifest in (old, new):
        lab.must("apply", "-f", "-", "--wait", stdin=manifest)
    addresses = Prober(lab).addresses
    first, second = addresses["x/old"], addresses["x/new"]
    lab.must("delete", "pod", "old", "new", "-n", "x")
    try:
        assert comes(lab, "x/new", first, new), "without a policy"
        lab.must("delete", "pod", "new", "-n", "x")
        lab.must("apply", "-f", "-", "--wait", stdin=old)
        apply(policy("deny", "x", podSelector={"matchLabels": {"pod": "new"}}))
        assert not comes(lab, "x/new", second, new)
        assert lab.exec(node, "curl", "-s", "-m1", f"http://{second}/hostname").code == 0, "it serves its node"
    finally:
        lab.testbed("delete", "-f", "-", stdin=old + new)


def comes(lab: Lab, name: str, address: str, manifest: str) -> set[Probe]:
    """Apply a pod that gets this address; return the probes from x/a that it answered in the meantime."""
    prober = Prober(lab)
    prober.addresses = {**prober.addresses, name: address}
    found: set[Probe] = set()
    with ThreadPoolExecutor(1) as workers:
        applied = workers.submit(lab.must, "apply", "-f", "-", "--wait", stdin=manifest)
        while not applied.done():
            found |= prober.passing([one_probe("x/a", name)], margin_s=0.1)
        applied.result()
    found |= prober.passing([one_probe("x/a", name)], margin_s=ASKED_AGAIN_S)
    assert Prober(lab).addresses[name] == address
    return found


@pytest.mark.row("P11")
def test_a_node_reaches_its_own_pods_and_another_does_not(lab: Lab, apply: Apply, prober: Prober) -> None:
    apply(policy("deny", "x", podSelector={}, policyTypes=["Ingress", "Egress"]))
    urls = {name: f"http://{prober.addresses[name]}/hostname" for name in ("x/a", "x/c")}
    reached = {
        (node, name): lab.exec(node, "curl", "-s", "-m3", url).code == 0
        for node in ("node1", "node2")
        for name, url in urls.items()
    }
    assert reached == {
        ("node1", "x/a"): True,
        ("node1", "x/c"): False,
        ("node2", "x/a"): False,
        ("node2", "x/c"): True,
    }
    # So probes of the kubelet's kind find the pods ready, and a pod reaches its node.
    assert all(one["ready"] for one in lab.json("status")["pods"])
    address = lab.node("node1")["address"]
    assert lab.exec("x/a", "ping", "-c1", "-W5", address, container="port-80").code == 0


@pytest.mark.slow
@pytest.mark.row("P11")
def test_a_pod_with_its_nodes_network_is_a_node_to_policies(lab: Lab, apply: Apply, prober: Prober) -> None:
    spec = {"nodeName": "node1", "hostNetwork": True, "containers": [{"name": "shell", "image": "shell"}]}
    manifest = {**pod("x", "host", "node1"), "spec": spec}
    apply(
        policy("all", "x", podSelector={}, policyTypes=["Ingress", "Egress"], ingress=[{"from": [{"podSelector": {}}]}])
    )
    lab.must("apply", "-f", "-", "--wait", stdin=documents(manifest))
    try:
        for name, code in (("x/a", 0), ("y/a", 0), ("x/c", 28)):
            url = f"http://{prober.addresses[name]}/hostname"
            assert lab.exec("x/host", "curl", "-s", "-m1", url).code == code, name
    finally:
        lab.must("delete", "pod", "host", "-n", "x")


@pytest.mark.slow
def test_a_service_leads_to_its_pods_where_policies_let_it(lab: Lab, apply: Apply) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "x"},
        "spec": {"selector": {"pod": "c"}, "ports": [{"port": 8000, "targetPort": "serve-80-tcp"}]},
    }
    lab.must("apply", "-f", "-", "--wait", stdin=documents(service))
    try:
        url = f"http://{lab.json('get', 'services', 'web', '-n', 'x')['spec']['clusterIP']}:8000/hostname"
        apply(policy("one", "x", podSelector={}, ingress=[{"from": [{"podSelector": {"matchLabels": {"pod": "a"}}}]}]))
        codes = {
            name: lab.exec(name, "curl", "-s", "-m1", url, container="port-80").code for name in ("x/a", "x/b", "y/c")
        }
        assert codes == {"x/a": 0, "x/b": 28, "y/c": 28}
        # Its own pod comes back to itself by the Service, as Kubernetes has it.
        assert lab.exec("x/c", "curl", "-s", "-m1", url, container="port-80").code == 0
        assert lab.testbed("policy", "-n", "x", "a", "svc/web:8000").code == 0
        said = lab.testbed("policy", "-n", "x", "b", "svc/web:8000")
        assert (said.code, "denied by policy x/one (ingress of x/c)" in said.out) == (1, True)
    finally:
        lab.must("delete", "service", "web", "-n", "x")


# What must not open them


HARMS = (
    "delete table inet testbed-policies",
    "flush chain inet testbed-policies forward",
    "flush chain inet testbed-policies ingress-x_b",
    "flush map inet testbed-policies ingress4",
    "delete table bridge testbed-policies",
)


def rules_are_there(lab: Lab) -> bool:
    listed = lab.exec("node1", "nft", "list", "ruleset").out
    return all(word in listed for word in ("ip daddr vmap @ingress4", "goto ingress-x_b", "@own4", "no ingress rule"))


@pytest.mark.row("P6")
def test_deleted_rules_are_restored(lab: Lab, apply: Apply, prober: Prober) -> None:
    apply(policy("deny", "x", podSelector={}))
    probe = one_probe("x/a", "x/b")
    for harm in HARMS:
        lab.run("node1", "nft", harm)
        wait_until(lambda: rules_are_there(lab), timeout_s=REPAIR_S, what=f"rules after: {harm}")
        becomes(prober, probe, passes=False, within_s=REPAIR_S, what=f"denied again after: {harm}")
    assert "PoliciesRestored" in lab.must("events")


@pytest.mark.row("P5")
def test_policies_outlive_the_agent(lab: Lab, apply: Apply, prober: Prober) -> None:
    apply(policy("deny", "x", podSelector={}))
    denied = [one_probe("x/a", "x/b"), one_probe("x/a", "x/c"), one_probe("y/c", "x/a")]
    good = one_probe("x/a", "y/b")
    before = lab.node("node1")["agent"]["pid"]
    lab.kill_9(before)
    constantly(
        lambda: prober.passing([*denied, good], [good]) == {good}, for_s=3, what="denied while the agent is away"
    )
    wait_until(lambda: lab.node("node1")["agent"]["pid"] not in (None, before), timeout_s=30, what="another agent")


@pytest.mark.slow
@pytest.mark.row("P7")
def test_policies_are_there_after_a_reboot(lab: Lab, apply: Apply) -> None:
    apply(policy("deny", "x", podSelector={}))
    lab.must("fault", "node", "reboot", "node1")
    wait_until(lambda: all(one["ready"] for one in lab.json("status")["pods"]), timeout_s=60, what="all pods again")
    prober = Prober(lab)
    denied, good = [one_probe("x/c", "x/a"), one_probe("y/a", "x/b")], one_probe("x/a", "y/b")
    assert prober.passing([*denied, good], [good]) == {good}
    becomes(prober, one_probe("x/a", "y/c"), passes=True, within_s=10, what="the overlay carries again")


@pytest.mark.parametrize("target", ["x/b", "x/c"], ids=["same node", "other node"])
@pytest.mark.row("P9")
def test_no_forged_packet_passes_a_default_deny(target: str, apply: Apply, prober: Prober) -> None:
    addresses = prober.addresses
    gateway = b"\x02\x42" + IPv4Address(f"{addresses['x/a'].rpartition('.')[0]}.1").packed
    frames = forgeries(addresses["x/a"], addresses[target], addresses["y/a"], gateway, beside=target == "x/b")
    good = frames.pop(GOOD)
    with inside(prober.pid, "x/a") as sender, inside(prober.pid, target) as listener:
        sender.send(good)
        wait_until(lambda: heard(listener), timeout_s=20, what="without a policy it arrives")
        apply(policy("deny", "x", podSelector={}, policyTypes=["Ingress"]))
        heard(listener)
        for what, frame in frames.items():
            sender.send(frame)
            assert not heard(listener, 0.1), what
        apply(policy("deny", "x", podSelector={}, policyTypes=["Ingress"], ingress=[{}]))
        sender.send(good)
        wait_until(lambda: heard(listener), timeout_s=20, what="allowed, it arrives again")


# What testbed says


def plain_pods(addresses: Mapping[str, str]) -> dict[str, PlainPod]:
    return {
        f"{one}/{name}": PlainPod(one, name, {"pod": name}, addresses[f"{one}/{name}"], NAMED)
        for one, name in product(NAMESPACES, NAMES)
    }


@pytest.mark.parametrize(
    "seeds",
    [range(4), pytest.param(range(4, 200), marks=[pytest.mark.slow, pytest.mark.timeout(1500)])],
    ids=["few", "many"],
)
@pytest.mark.row("P3")
def test_random_policies_agree_with_probes_and_with_testbed(seeds: range, lab: Lab, prober: Prober) -> None:
    pods = plain_pods(prober.addresses)
    for seed in seeds:
        policies = RandomPolicies(seed, list(pods.values())).some()
        expected = {
            probe
            for probe in PROBES
            if allows(policies, namespace_labels(), pods[probe.source], pods[probe.target], probe.protocol, probe.port)
        }
        lab.must("apply", "-f", "-", "--wait", stdin=documents(*policies))
        try:
            compare(prober, expected)
            said = lab.json("policy", "--matrix")["pairs"]
        finally:
            lab.must("delete", "-f", "-", stdin=documents(*policies))
        by_pair = {(one["source"], one["target"]): one["ports"] for one in said}
        wrong = [
            str(probe)
            for probe in PROBES
            if is_among(f"{probe.port}/{probe.protocol.lower()}", by_pair[probe.source, probe.target])
            is not (probe in expected)
        ]
        assert not wrong, (seed, wrong, policies)


def is_among(port: str, ports: Sequence[str]) -> bool:
    number, _, protocol = port.partition("/")
    for one in ports:
        numbers, _, of = one.partition("/")
        first, _, last = numbers.partition("-")
        if one == "all" or (of == protocol and (first == "*" or int(first) <= int(number) <= int(last or first))):
            return True
    return False


def test_trace_names_the_policy_that_drops_and_those_that_let_pass(lab: Lab, apply: Apply) -> None:
    peer = [{"podSelector": {"matchLabels": {"pod": "a"}}}]
    apply(
        policy("default-deny", "x", podSelector={}),
        policy(
            "from-a", "x", podSelector={"matchLabels": {"pod": "c"}}, ingress=[{"from": peer, "ports": [{"port": 80}]}]
        ),
        policy("out", "y", podSelector={"matchLabels": {"pod": "a"}}, policyTypes=["Egress"]),
    )
    lost = lab.json("trace", "-n", "x", "b", "c:80")
    assert lost["reasons"][0] == (
        "dropped by policies x/default-deny, x/from-a (ingress of x/c): no rule allows x/b → x/c:80"
    )
    assert lost["lost_at"]["reason"] == lost["reasons"][0]
    assert "chain ingress-x_c" in lost["reasons"][1]
    beside = lab.json("trace", "-n", "x", "a", "b:81")
    assert beside["reasons"][0] == "dropped by policy x/default-deny (ingress of x/b): no rule allows x/a → x/b:81"
    going_out = lab.json("trace", "y/a", "x/c:80")
    assert going_out["reasons"][0] == "dropped by policy y/out (egress of y/a): no rule allows y/a → x/c:80"
    passed = lab.json("trace", "-n", "x", "a", "c:80")
    assert passed["outcome"] == "answered"
    assert [(one["leg"], one["pod"], one["direction"], one["allowed_by"]) for one in passed["policies"]] == [
        ("request", "x/c", "Ingress", ["x/from-a"]),
        ("reply", "x/a", "Ingress", []),
    ]
    assert any("ingress of x/c: allowed by policy x/from-a" in hop["why"] for hop in passed["hops"])
    assert any("reply of a known connection" in hop["why"] for hop in passed["hops"])


def test_policy_answers_for_one_port_for_all_and_for_every_pair(lab: Lab, apply: Apply, tmp_path: Path) -> None:
    apply(policy("one", "x", podSelector={}, ingress=[{"ports": [{"port": 80, "endPort": 81}]}]))
    assert lab.testbed("policy", "y/a", "x/a:80").code == 0
    denied = lab.testbed("policy", "y/a", "x/a:82")
    assert (denied.code, "denied by policy x/one (ingress of x/a): no rule allows y/a → x/a:82" in denied.out) == (
        1,
        True,
    )
    lines = lab.json("policy", "y/a", "x/a")["targets"][0]["lines"]
    assert [(one["ports"], one["allowed"]) for one in lines] == [
        (["80-81/tcp"], True),
        (["0-79/tcp", "82-65535/tcp", "*/udp", "*/sctp", "other protocols"], False),
    ]
    assert lab.testbed("policy", "x/a", "x/a:1").code == 0
    outside = lab.testbed("policy", "192.168.8.10", "x/a", "--udp")
    assert (outside.code, "denied by policy x/one" in outside.out) == (1, True)
    picture = tmp_path / "matrix.svg"
    matrix = lab.must("policy", "--matrix", "-n", "x", "--svg", str(picture))
    assert "80-81/tcp" in matrix
    assert "<title>y/" not in picture.read_text()
    assert "<title>x/b → x/a: 80-81/tcp pass</title>" in picture.read_text()
    assert "no pod, node or address nothing" in lab.testbed("policy", "nothing", "x/a").err


def test_describe_shows_whom_a_policy_isolates_and_what_isolates_a_pod(lab: Lab, apply: Apply) -> None:
    apply(policy("both", "x", podSelector={"matchLabels": {"pod": "a"}}, policyTypes=["Ingress", "Egress"]))
    assert lab.json("describe", "pod", "x/a")["Network policies"] == "x/both (ingress and egress)"
    assert lab.json("describe", "pod", "x/b")["Network policies"] is None
    described = lab.json("describe", "networkpolicy", "both", "-n", "x")
    assert (described["Isolates"], list(described["Pods"])) == ("Ingress, Egress", ["x/a"])


def test_a_dry_run_names_the_pairs_that_would_gain_or_lose_a_path(lab: Lab, apply: Apply, prober: Prober) -> None:
    deny = policy("deny", "x", podSelector={"matchLabels": {"pod": "a"}}, ingress=[{"ports": [{"port": 80}]}])
    answer = json.loads(lab.must("apply", "-f", "-", "--dry-run", "-o", "json", stdin=documents(deny)))
    sources = [name for name in PODS if name != "x/a"]
    assert [(one["source"], one["target"], one["gains"]) for one in answer["reach"]] == [
        (source, "x/a", []) for source in sources
    ]
    assert answer["reach"][0]["loses"] == ["0-79/tcp", "81-65535/tcp", "*/udp", "*/sctp", "other protocols"]
    compare(prober, set(PROBES))
    apply(deny)
    compare(prober, {probe for probe in PROBES if probe.target != "x/a" or (probe.protocol, probe.port) == ("TCP", 80)})
    open_again = policy("deny", "x", podSelector={"matchLabels": {"pod": "a"}}, ingress=[{}])
    shown = lab.must("apply", "-f", "-", "--dry-run", stdin=documents(open_again))
    assert re.search(r"y/a +x/a +0-79/tcp, 81-65535/tcp", shown), shown


def test_check_expects_what_policies_allow(lab: Lab, apply: Apply) -> None:
    apply(policy("deny", "x", podSelector={}), policy("out", "y", podSelector={}, policyTypes=["Egress"]))
    answer = lab.json("check")
    assert answer["well"], answer["checks"]
    lab.run(
        "node1", "nft", "add table ip other; add chain ip other f { type filter hook forward priority 0; policy drop; }"
    )
    try:
        wrong = [line for one in lab.json("check")["checks"] for line in one["wrong"]]
        assert "x/a -> z/c: no reply" in wrong
        assert not any("-> x/" in line or line.startswith("y/") for line in wrong)
    finally:
        lab.run("node1", "nft", "delete", "table", "ip", "other")
