"""Which pairs of pods are skipped beside changes."""

from testbed.lab.ping import PairResult
from testbed.lab.pod_pings import skip


def pair(source: str, destination: str, received: int, sent: int = 1) -> PairResult:
    return PairResult(source, destination, "10.0.1.2", sent, received)


def test_a_pair_without_an_answer_is_skipped_when_one_of_its_pods_was_terminated_meanwhile() -> None:
    results = skip([pair("a", "gone", 0), pair("gone", "a", 0), pair("late", "gone", 0)], {"gone", "late"})
    assert [one.skipped for one in results] == [
        "terminated meanwhile: gone",
        "terminated meanwhile: gone",
        "terminated meanwhile: late, gone",
    ]


def test_a_pair_that_lost_only_some_is_skipped_too() -> None:
    assert skip([pair("a", "gone", 2, sent=3)], {"gone"})[0].skipped


def test_an_answer_is_a_result_and_a_silent_pair_is_lost() -> None:
    results = [pair("a", "gone", 1), pair("a", "b", 0)]
    assert skip(results, {"gone"}) == results
    assert skip(results, ()) == results
