"""Numbers of a cluster file that no network can have, and clusters that no machine can hold."""

import pytest

from testbed.cluster.capacity import too_big
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16}
underlay:
  cidr: 192.168.8.0/24
  mtu: 1500
  switches: [s1]
  links:
    - {ends: [node1, s1], bandwidth: 100, delay: 10ms, loss: 1}
    - {ends: [node2, s1]}
nodes: {node1: {}, node2: {}}
"""


def only_problem_of(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_cluster(text.encode(), "c.yaml")
    (problem,) = caught.value.problems
    return str(problem)


def test_the_cluster_without_wrong_numbers_is_good() -> None:
    assert read_cluster(CLUSTER.encode(), "c.yaml").name == "c"


@pytest.mark.row("B18")
@pytest.mark.parametrize("mtu", ["0", "67", "575", "65536", "-1", "1500.5", "1500B", '"1500"', "true", ".inf"])
def test_an_mtu_that_no_underlay_has_is_refused_with_its_range(mtu: str) -> None:
    problem = only_problem_of(CLUSTER.replace("mtu: 1500", f"mtu: {mtu}"))
    assert problem.startswith("error: c.yaml:7:8: underlay.mtu: ")
    assert "want 576 to 65535" in problem or "want a whole number" in problem


@pytest.mark.row("B18")
@pytest.mark.parametrize("mtu", ["576", "65535"])
def test_the_limits_of_the_mtu_are_taken(mtu: str) -> None:
    read_cluster(CLUSTER.replace("mtu: 1500", f"mtu: {mtu}").encode(), "c.yaml")


@pytest.mark.row("B19")
@pytest.mark.parametrize(
    ("good", "name", "unit", "values"),
    [
        ("bandwidth: 100", "bandwidth", "Mbit/s", ["-1", "0", ".inf", "-.inf", ".nan", "1e9"]),
        ("loss: 1", "loss", "percent", ["-1", "101", ".inf", ".nan"]),
        ("delay: 10ms", "delay", "us, ms or s", ["-1ms", "10", "ms", "inf", "nan", "1h", ".inf", ".nan", "1e400s"]),
    ],
)
def test_a_value_that_no_link_has_is_refused_with_its_field_and_unit(
    good: str, name: str, unit: str, values: list[str]
) -> None:
    for value in values:
        problem = only_problem_of(CLUSTER.replace(good, f"{name}: {value}"))
        assert f": underlay.links[0].{name}: " in problem, value
        assert unit in problem or "wrong type" in problem, problem


@pytest.mark.row("B20")
def test_more_than_the_machine_holds_is_reported_with_the_estimate_and_the_limit() -> None:
    complaint = too_big(nodes=1000, pods=2000, available_mib=4000)
    assert complaint is not None
    assert complaint.startswith("environment: more nodes than this machine holds (got 1000 nodes and 2000 pods, about ")
    assert "MiB of memory are free; want at most 80 nodes" in complaint.replace("4000 ", "")
    assert too_big(nodes=2, pods=4, available_mib=4000) is None
