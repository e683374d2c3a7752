"""`bench scale` keeps what it has measured when a larger lab does not come up."""

from typing import Any

import pytest

from testbed.bench import scale
from testbed.bench.scale_plan import ScalePlan, rows
from testbed.cluster.spec import Cluster
from testbed.errors import TestbedError


def measured_up_to(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def size(_plan: ScalePlan, cluster: Cluster, _tell: object) -> dict[str, float]:
        nodes = len(cluster.nodes)
        if nodes > largest:
            raise TestbedError("bench scale: 7 nodes did not follow etcd within 60 s")
        return {"nodes": nodes, "up_s": 0.1 * nodes}

    monkeypatch.setattr(scale, "_size", size)


def test_a_size_that_fails_ends_it_and_the_smaller_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_up_to(2, monkeypatch)
    result = scale.run(ScalePlan((1, 2, 3, 4), 1, 1.0, plain=False), lambda _: None)
    assert [one["nodes"] for one in result["sizes"]] == [1, 2]
    assert result["failed"] == {"nodes": 3, "why": "7 nodes did not follow etcd within 60 s"}


def test_one_whose_first_size_fails_has_nothing_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_up_to(0, monkeypatch)
    with pytest.raises(TestbedError, match="did not follow etcd"):
        scale.run(ScalePlan((1, 2), 1, 1.0, plain=False), lambda _: None)


@pytest.mark.parametrize("sent", [0, 1000])
def test_lost_pings_are_a_row_only_where_some_were_sent(sent: int) -> None:
    size: Any = {
        "nodes": 2,
        "phases_s": {},
        "up_s": 1.0,
        "down_s": 1.0,
        "memory_kib": dict.fromkeys(("init", "everything", "agents", "pauses", "machines"), 1024),
        "cores_at_rest": 0.0,
        "pings": {"sent": sent, "lost": 0, "which": []},
        "neighbours": {"collectable": 0},
        "join_s": 1.0,
        "leave_s": 1.0,
        "agent_killed_s": 1.0,
        "etcd_restarted": {"watches_s": 1.0, "pings_lost": 0, "pings_sent": 0},
        "load": 0.0,
    }
    result: Any = {"sizes": [size]}
    assert any(title == "pings lost" for title, _, _ in rows(result)) == bool(sent)
