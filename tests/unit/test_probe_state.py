"""Thresholds of probes, as Kubernetes counts them."""

from typing import Any

import pytest

from testbed.cluster.probe import Probe
from testbed.pods.probe_state import ALIVE, NOT_READY_YET, ProbeState


def probe(**numbers: int) -> Probe:
    fields: dict[str, Any] = {"tcpSocket": {"port": 80}, **numbers}
    return Probe.model_validate(fields)


def passing(start: ProbeState, results: str, **numbers: int) -> str:
    """Return what the probe says after each of the results; + is a success."""
    said, state = "", start
    for result in results:
        state = state.after(result == "+", probe(**numbers))
        said += "y" if state.passing else "n"
    return said


def test_defaults_are_kubernetes_own() -> None:
    read = probe()
    assert (read.initial_delay_seconds, read.period_seconds, read.timeout_seconds) == (0, 10, 1)
    assert (read.success_threshold, read.failure_threshold) == (1, 3)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ("+", "y"),
        ("-+", "ny"),
        ("+--+", "yyyy"),
        ("+---", "yyyn"),
        ("+---+", "yyyny"),
        ("+--+--", "yyyyyy"),
    ],
)
def test_a_container_is_ready_from_its_first_success_until_three_failures_in_a_row(results: str, said: str) -> None:
    assert passing(NOT_READY_YET, results) == said


def test_more_successes_are_needed_if_the_probe_sets_a_threshold() -> None:
    assert passing(NOT_READY_YET, "++-+++", successThreshold=3) == "nnnnny"
    assert passing(NOT_READY_YET, "+++-++-", successThreshold=2, failureThreshold=1) == "nyynny" + "n"


def test_a_container_lives_until_the_failures_are_enough() -> None:
    assert passing(ALIVE, "--+---") == "yyyyyn"
    assert passing(ALIVE, "-", failureThreshold=1) == "n"
