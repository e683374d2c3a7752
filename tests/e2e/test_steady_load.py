"""A Deployment of six on three nodes under a steady 200 requests a second on its cluster IP.

What is planned costs no request; a program that is killed costs at most a second of them.
"""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.e2e.steady_load import REQUESTS_PER_S, Outcome, SteadyLoad
from tests.e2e.test_workloads import CLUSTER, apply, deployment, nodes_of, pods_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
AFTERMATH_S = 1.0
"""How long the stream runs on after each event: what it has spoilt must have time to show."""
CLUSTER_IP, PORT = "10.96.0.66", 80
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"clusterIP": CLUSTER_IP, "selector": {"app": "web"}, "ports": [{"port": PORT, "targetPort": 8080}]},
}


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab) -> Iterator[Lab]:
    with new_lab(CLUSTER) as handle:
        yield Lab(handle.name)


@pytest.fixture
def six(lab: Lab) -> Iterator[Lab]:
    """Yield the lab with six pods, two a node, behind one cluster IP."""
    assert apply(lab, deployment("web", 6), SERVICE).code == 0
    assert len(nodes_of(lab, "web")) == 6
    yield lab
    lab.must("delete", "deployment", "web")


def run_on() -> None:
    """Let the stream go on for a while, with nothing else happening."""
    threading.Event().wait(AFTERMATH_S)


def begin(lab: Lab) -> SteadyLoad:
    load = SteadyLoad(lab, "client", CLUSTER_IP, PORT)
    run_on()
    return load


def end(load: SteadyLoad) -> Outcome:
    run_on()
    outcome = load.stop()
    assert outcome.rate > REQUESTS_PER_S / 2, f"too slow a stream shows nothing: {outcome.rate:.0f}/s"
    print(f"{outcome.sent} requests, {len(outcome.failed)} failed within {outcome.trouble_s:.2f} s")
    return outcome


def test_scaling_down_and_up_fails_no_request(six: Lab) -> None:
    load = begin(six)
    six.must("scale", "deployment", "web", "--replicas", "3", "--wait")
    run_on()
    six.must("scale", "deployment", "web", "--replicas", "6", "--wait")
    assert end(load).failed == ()


def test_deleting_a_pod_fails_no_request(six: Lab) -> None:
    load = begin(six)
    six.must("delete", "pod", pods_of(six, "web")[0]["metadata"]["name"])
    wait_until(lambda: len(pods_of(six, "web")) == 6, timeout_s=10, what="replaced")
    assert end(load).failed == ()


def test_a_new_template_fails_no_request(six: Lab) -> None:
    load = begin(six)
    assert apply(six, deployment("web", 6, env=[{"name": "COLOUR", "value": "green"}])).code == 0
    assert end(load).failed == ()


def test_draining_and_deleting_a_node_fails_no_request(six: Lab) -> None:
    six.must("node", "add", "node4")
    load = begin(six)
    six.must("node", "drain", "node3")
    assert nodes_of(six, "web") == ["node1", "node1", "node2", "node2", "node4", "node4"]
    six.must("node", "delete", "node3")
    outcome = end(load)
    six.must("node", "add", "node3")
    six.must("node", "delete", "node4")
    assert outcome.failed == ()


def test_killing_a_pods_program_costs_at_most_a_second_of_requests(six: Lab) -> None:
    victim = pods_of(six, "web")[0]
    load = begin(six)
    (pid,) = victim["testbed"]["pids"].values()
    six.kill_9(pid)
    run_on()
    outcome = end(load)
    assert outcome.trouble_s <= 1.0, json.dumps(outcome.failed)
