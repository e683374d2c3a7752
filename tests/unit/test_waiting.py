"""Waiting for a condition: its value, and what is said when it does not come."""

import pytest

from testbed.errors import TestbedError
from testbed.testing.waiting import NotInTime, wait_until


def test_first_true_value_is_returned() -> None:
    values = iter([0, None, 7, 8])
    assert wait_until(lambda: next(values), 1, period_s=0) == 7


def test_failure_reports_what_was_awaited_and_the_last_state() -> None:
    with pytest.raises(NotInTime, match=r"not within 0 s: a miracle \(last seen: \[\]\)"):
        wait_until(lambda: [], 0, "a miracle", period_s=0)


@pytest.mark.parametrize("failure", [AssertionError("not like this"), TestbedError("no such pod")])
def test_failed_condition_is_not_true_yet_and_its_message_is_the_last_state(failure: Exception) -> None:
    def condition() -> bool:
        raise failure

    with pytest.raises(NotInTime, match=str(failure)):
        wait_until(condition, 0, period_s=0)


def test_mistake_in_the_condition_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, 1)
