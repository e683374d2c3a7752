"""Readiness: every part has its say, and news is told from repetition."""

import pytest

from agent.node.health import Readiness


def test_every_part_must_be_fulfilled() -> None:
    readiness = Readiness(["lease", "rules"])
    assert readiness.reasons() == ("lease: not yet", "rules: not yet")
    readiness.mark_ready("rules")
    assert readiness.reasons() == ("lease: not yet",)
    readiness.mark_ready("lease")
    assert readiness.reasons() == ()


def test_a_healthy_part_may_fail_again() -> None:
    readiness = Readiness(["lease"])
    readiness.mark_ready("lease")
    readiness.mark_unready("lease", "fenced")
    assert readiness.reasons() == ("lease: fenced",)


def test_only_a_change_is_news() -> None:
    readiness = Readiness(["lease"])
    assert readiness.mark_unready("lease", "no etcd") is True
    assert readiness.mark_unready("lease", "no etcd") is False
    assert readiness.mark_unready("lease", "no subnet") is True
    assert readiness.mark_ready("lease") is True
    assert readiness.mark_ready("lease") is False


def test_a_part_that_nobody_announced_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Readiness(["lease"]).mark_ready("leese")
