"""TCP between pods while agents die: no stream is reset, none stands still for long, nothing is lost of any."""

import json
from collections.abc import Callable, Iterator

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.lab_handle import LabHandle
from tests.e2e.streams import Streams
from tests.rows import MEASURED

pytestmark = pytest.mark.slow

PODS = ("shell1", "shell2", "shell3")
EACH = 17
"""51 streams in a ring: each goes from one node to another."""
GAP_LIMIT_S, MOVING_LIMIT_S = 3.0, 7.0


@pytest.fixture
def lab(new_lab: NewLab) -> Iterator[LabHandle]:
    """Start three nodes with a pod each."""
    with new_lab("faults") as handle:
        yield handle


@pytest.mark.timeout(300)
def test_fifty_streams_outlive_every_agent(lab: LabHandle, record_property: Callable[[str, object], None]) -> None:
    subnets = {name: node.subnet for name, node in lab.nodes.items()}
    with Heartbeats(lab) as heartbeats:
        streams = Streams(lab, PODS, EACH)
        lab.wait_until(lambda: streams.established() == streams.count, 20, "every stream is there")
        began = heartbeats.wait_steady(20)
        for name, node in lab.nodes.items():
            with lab.fault(f"agent kill {name}"):
                pass
            lab.wait_until(lambda: lab.nodes[name].agent_restarts > node.agent_restarts, 10, f"{name} has another")  # noqa: B023
            lab.agent(name).wait_ready()
            heartbeats.wait_steady(20)
        assert streams.established() == streams.count
        with heartbeats.locked():
            gap = heartbeats.record.longest_gap(began, heartbeats.record.newest)
        found = streams.end()
    assert len(found) == streams.count
    assert [one for one in found if one.error] == []
    assert all(one.equal for one in found), [one for one in found if not one.equal]
    assert all(one.bytes > 100_000 for one in found), "every stream carried something"
    slowest = max(one.gap_s for one in found)
    told = {"promise": f"gap of {GAP_LIMIT_S:g} s", "seconds": [round(gap.seconds, 2)]}
    record_property(MEASURED, json.dumps(told))
    print(f"probes: longest gap {gap}; streams: {len(found)}, none reset, longest standstill {slowest:.2f} s")
    assert 0 < gap.seconds <= GAP_LIMIT_S, f"probes noticed that agents died, and not for long: {gap}"
    assert slowest <= MOVING_LIMIT_S
    assert {name: node.subnet for name, node in lab.nodes.items()} == subnets
