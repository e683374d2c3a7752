"""The shipped guestbook: a web tier of three behind every node's port 30080, a backend by cluster IP and by name."""

from collections.abc import Iterator

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab

pytestmark = pytest.mark.slow
NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab) -> Iterator[Lab]:
    with new_lab("guestbook") as handle:
        yield Lab(handle.name)


@pytest.mark.parametrize("asker", [*NODES, "client"])
def test_every_node_answers_with_the_backend_and_every_web_pod_and_backend_is_used(lab: Lab, asker: str) -> None:
    addresses = [lab.node(name)["address"] for name in NODES]
    urls = [f"http://{address}:30080/" for address in addresses for _ in range(8)]
    # «pod backend-… answers ADDRESS: GET /»; the address is the web pod's, for nginx asks on the client's behalf.
    said = [line.split() for line in lab.run(asker, "curl", "-s", *urls).splitlines()]
    assert len(said) == len(urls)
    pods = lab.json("status")["pods"]
    assert {words[1] for words in said} == {pod["name"] for pod in pods if pod["name"].startswith("backend-")}
    assert {words[3].rstrip(":") for words in said} <= {
        pod["address"] for pod in pods if pod["name"].startswith("web-")
    }


@pytest.mark.parametrize("backend", ["10.96.0.20", "backend", "backend.default.svc.cluster.local"])
def test_the_backend_is_reached_by_its_cluster_ip_and_by_its_name(lab: Lab, backend: str) -> None:
    # A connection each: within one, all requests go to one pod.
    asked = ["curl", "-s", "-H", "Connection: close", *[f"http://{backend}/hostname"] * 16]
    answered = set(lab.run("client", *asked).split())
    assert answered == {pod["name"] for pod in lab.json("status")["pods"] if pod["name"].startswith("backend-")}, (
        "16 requests, each to one of two at random, all came to one"
    )


def test_pods_are_spread_one_web_a_node(lab: Lab) -> None:
    web = [pod["node"] for pod in lab.json("status")["pods"] if pod["name"].startswith("web-")]
    assert sorted(web) == list(NODES)
