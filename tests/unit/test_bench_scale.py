"""`bench scale` keeps what it has measured when a larger lab does not come up."""

import pytest

from testbed.bench import scale
from testbed.bench.scale_plan import ScalePlan
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
