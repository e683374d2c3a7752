"""The matrix of pings."""

import pytest

from testbed.control.answers.lab import PingAnswer
from testbed.output import tables as render


def ping(destination: str, received: int, skipped: str | None = None) -> PingAnswer:
    return {
        "source": "a",
        "destination": destination,
        "address": "10.0.1.2",
        "sent": 1,
        "received": received,
        "ttl": 62,
        "rtt_ms": [0.5] * received,
        "error": None,
        "skipped": skipped,
    }


def test_a_lab_without_pods_has_no_empty_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    render.pings([])
    assert capsys.readouterr().out == "no pods to ping\n"


def test_a_skipped_pair_is_neither_lost_nor_received(capsys: pytest.CaptureFixture[str]) -> None:
    render.pings([ping("b", 1), ping("c", 0), ping("d", 0, "terminated meanwhile: d")])
    assert capsys.readouterr().out.splitlines() == [
        "FROM \\ TO  b               c     d",
        "a          0.50 ms ttl=62  lost  skipped",
        "",
        "3 pairs, 3 sent, 1 received, 1 lost, 1 skipped",
        "  a -> c (10.0.1.2): no reply",
        "  a -> d (10.0.1.2): skipped (terminated meanwhile: d)",
    ]


def test_many_targets_have_a_line_for_each_sender_and_a_skipped_pair_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [ping(f"pod{number}", 1) for number in range(render.MATRIX_TARGETS)]
    render.pings([*many, ping("d", 0, "terminated meanwhile: d")])
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["a", "13", "12", "0"]
