from testbed.testing.soak import grown

BEFORE = {"node1 agent descriptors": 20, "node1 agent RSS kB": 40_000, "etcd leases": 3, "node1 agent CPU ticks": 5}


def test_what_stays_and_what_the_system_does_by_itself_is_no_problem() -> None:
    assert grown({**BEFORE, "node1 agent RSS kB": 45_000, "node1 agent CPU ticks": 5_000}, BEFORE) == []


def test_everything_that_leaks_is_told() -> None:
    now = {"node1 agent descriptors": 40, "node1 agent RSS kB": 80_000, "etcd leases": 4, "node1 agent CPU ticks": 5}
    told = grown(now, BEFORE)
    assert [line.partition(":")[0] for line in told] == ["node1 agent descriptors", "node1 agent RSS kB", "etcd leases"]


def test_what_was_not_counted_before_is_not_compared() -> None:
    assert grown({"node4 links": 9}, BEFORE) == []
