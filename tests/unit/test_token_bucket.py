"""How often something may happen."""

from agent.datapath.python_pump import TokenBucket


def test_burst_then_rate() -> None:
    bucket = TokenBucket(rate_per_s=100, burst=5, now_s=50.0)
    assert [bucket.take(50.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(50.011)
    assert not bucket.take(50.011)


def test_at_most_the_rate_in_every_second() -> None:
    bucket = TokenBucket(rate_per_s=100, burst=100, now_s=0.0)
    taken = [sum(bucket.take(second + step / 1000) for step in range(1000)) for second in range(3)]
    assert taken[0] <= 200
    assert taken[1:] == [100, 100]


def test_idle_time_gives_no_more_than_the_burst() -> None:
    bucket = TokenBucket(rate_per_s=100, burst=5, now_s=0.0)
    assert sum(bucket.take(3600.0) for _ in range(50)) == 5


def test_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1, burst=1, now_s=10.0)
    assert bucket.take(10.0)
    assert not bucket.take(0.0)
    assert not bucket.take(10.5)
