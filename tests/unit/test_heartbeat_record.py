import pytest

from testbed.faults.heartbeat_record import HeartbeatRecord

PERIOD_S = 0.1


def record_of(
    lost: dict[tuple[str, str], set[int]], count: int = 100, pods: tuple[str, ...] = ("a", "b")
) -> HeartbeatRecord:
    """Build a record of `count` probes of which these are lost; each takes 1 ms."""
    record = HeartbeatRecord(("a", "b"), PERIOD_S)
    for number in range(count):
        at = number * PERIOD_S
        got = [
            (source, destination, number, at + 0.001, True)
            for source, destination in record.arrivals
            if number not in lost.get((source, destination), set())
        ]
        record.add({"number": number, "at": at, "got": got})
    return record


def test_without_a_loss_there_is_no_gap() -> None:
    record = record_of({})
    assert record.longest_gap(0, 99).seconds == 0
    assert record.recovered_after(2, 9).seconds == 0
    assert record.lost(0, 99) == {}
    assert record.share_lost(0, 99) == 0


def test_the_gap_of_the_worst_pair_counts() -> None:
    record = record_of({("a", "b"): set(range(20, 50)), ("b", "a"): set(range(30, 35))})
    gap = record.longest_gap(1.0, 9.0)
    assert gap.seconds == pytest.approx(3.0, abs=0.01)  # the last that came was sent at 1.9, the next lost at 4.9
    assert gap.pair == ("a", "b")


def test_two_short_gaps_are_no_long_one() -> None:
    record = record_of({("a", "b"): {20, 21, 30, 31}})
    assert record.longest_gap(1.0, 9.0).seconds == pytest.approx(0.2, abs=0.01)


def test_recovery_ends_with_the_last_loss() -> None:
    record = record_of({("a", "b"): {20, 21, 22, 40}})
    assert record.recovered_after(2.0, 9.0).seconds == pytest.approx(2.1, abs=0.01)


def test_damage_is_counted_and_is_no_arrival() -> None:
    record = record_of({})
    record.add({"number": 100, "at": 10.0, "got": [("a", "b", 100, 10.2, False), ("b", "a", 100, 10.2, True)]})
    assert record.damaged == 1
    assert record.lost(0, 99) == {("a", "b"): [10.0]}


def test_a_packet_still_in_flight_is_unknown() -> None:
    record = record_of({("a", "b"): set(range(95, 100))})
    assert record.lost(0, record.newest) == {}


def test_a_pod_that_was_deleted_has_lost_nothing() -> None:
    record = record_of({("a", "b"): set(range(50, 100))})
    assert record.lost(0, 99)
    record.forget({"b"})
    assert record.lost(0, 99) == {}
    assert record.longest_gap(0, 99).pair is None
    record.add({"number": 100, "at": 10.0, "got": [("a", "b", 100, 10.001, True)]})
    assert record.lost(0, 99) == {}
