"""What faults of cables, partitions and devices do to packets, and that nothing of them is left."""

import re
from collections.abc import Iterator

import pytest

from testbed.control.questions import IPERF
from testbed.testing.lab_handle import LabHandle

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(two_nodes_handle: LabHandle) -> Iterator[LabHandle]:
    """Yield the shared lab, left with nothing broken."""
    two_nodes_handle.wait_ready()
    yield two_nodes_handle
    two_nodes_handle.heal()


class Pings:
    """What the real ping says of one quick series."""

    def __init__(self, lab: LabHandle, count: int = 20) -> None:
        target = next(pod.address for pod in lab.pods.values() if pod.name == "shell2")
        said = lab.exec("shell1", "ping", f"-c{count}", "-i0.02", "-W1", str(target)).stdout
        self.sent = count
        self.received = int(re.findall(r"(\d+) received", said)[0])
        self.duplicates = int((re.findall(r"\+(\d+) duplicates", said) or [0])[0])
        self.average_ms = float((re.findall(r"= [\d.]+/([\d.]+)/", said) or [0])[0])


def test_an_unplugged_cable_carries_nothing_and_leaves_addresses_and_routes(lab: LabHandle) -> None:
    before = lab.exec("node1", "ip", "-4", "-o", "address").check()
    with lab.fault("link down node1 s1"):
        assert Pings(lab, 2).received == 0
        assert "node1-eth0 linkdown" in lab.exec("node1", "ip", "route").check()
    lab.wait_until(lambda: Pings(lab, 1).received == 1, 5)
    assert lab.exec("node1", "ip", "-4", "-o", "address").check() == before


def test_a_flapping_cable_ends_by_itself(lab: LabHandle) -> None:
    with lab.fault("link flap node1 s1 4 100ms"):
        lab.wait_until(lambda: lab.faults() == [], 5)
        lab.wait_until(lambda: Pings(lab, 1).received == 1, 5)


@pytest.mark.slow
def test_loss_delay_duplicates_and_damage_come_together_and_go_one_by_one(lab: LabHandle) -> None:
    good = Pings(lab)
    assert (good.received, good.duplicates) == (20, 0)
    with lab.fault("link loss node1 s1 40"):
        assert 2 <= Pings(lab, 50).received <= 40  # both ways: 36 %
        with lab.fault("link delay node1 s1 30ms"):
            assert Pings(lab, 50).average_ms > 60
    with lab.fault("link duplicate node1 s1 50"):
        assert Pings(lab).duplicates > 0
    with lab.fault("link corrupt node1 s1 50"):
        assert Pings(lab, 40).received < 40  # what is damaged is dropped
    good = Pings(lab)
    assert (good.received, good.duplicates) == (20, 0)
    assert good.average_ms < 30


@pytest.mark.slow
def test_a_slow_cable_is_as_slow_as_was_asked(lab: LabHandle) -> None:
    with lab.fault("link rate node1 s1 2"):
        slow = lab.ask(IPERF, {"source": "shell1", "destination": "shell2", "seconds": 1})["bits_per_second"]
    assert slow < 4e6
    fast = lab.ask(IPERF, {"source": "shell1", "destination": "shell2", "seconds": 1})["bits_per_second"]
    assert fast > 20e6


def test_the_sides_of_a_partition_do_not_hear_each_other_and_all_others_do(lab: LabHandle) -> None:
    with lab.fault("partition node1 / node2"):
        assert lab.ping("node1", "node2").lost == 1
        assert lab.ping("shell1", "shell2").lost == 1
        assert lab.ping("node1", "etcd1").lost == 0
    assert lab.ping("node1", "node2").lost == 0


def test_loss_in_one_direction_leaves_the_other(lab: LabHandle) -> None:
    with lab.fault("oneway node1 / node2"):
        dropped = "nft list ruleset | grep -c 'counter packets [1-9].* drop'"
        assert lab.ping("node2", "node1").lost == 1  # the answer is not heard
        assert lab.script(dropped, "node2").stdout.strip() == "1"
        assert "testbed-fault" not in lab.exec("node1", "nft", "list", "tables").check()


@pytest.mark.slow
def test_lost_state_of_a_node_is_recreated(lab: LabHandle) -> None:
    for fault in ("device delete node1", "rules flush node1", "lease revoke node1"):
        with lab.fault(fault) as done:
            assert not done["on"]
            lab.wait_until(lambda: lab.ping("shell1", "shell2").lost == 0, 10)
    lab.wait_until(lambda: "overlay-agent-" in lab.exec("node1", "nft", "list", "tables").check(), 10)
    lab.wait_ready()
