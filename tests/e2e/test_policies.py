"""NetworkPolicies in a lab of nine pods: what real probes get is what the cases say, and what `testbed` says."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.e2e.policy_probes import Probe, Prober
from tests.policy_cases import NAMES, NAMESPACES, PORTS, Json

Apply = Callable[..., None]
IN_FORCE_S = 1.0
REPAIR_S = 5.0
CASES: Sequence[Mapping[str, Any]] = yaml.safe_load((Path(__file__).parent / "policies.yaml").read_text())
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
    """The probes that pass by the lines of a case."""
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"].replace(" ", "-"))
def test_probes_get_what_the_case_says(case: Mapping[str, Any], apply: Apply, prober: Prober) -> None:
    apply(*policies_of(case, prober.addresses))
    compare(prober, expected_of(case["expect"]))
