"""Columns on terminals that are too narrow for them."""

import pytest
from rich.console import Console

from testbed.control.answers.lab import PingAnswer
from testbed.output import tables as render

HEADINGS = ("node", "address", "subnet", "agent", "peers", "restarts")
NODE = ("node1", "192.168.8.227, fd00:8::227", "10.0.46.0/24, fd00:a:0:46::/64", "ready", "1/1", 0)


def columns_on(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setattr(render, "console", lambda: Console(highlight=False, emoji=False, width=width))
    render.columns(HEADINGS, [NODE])
    return capsys.readouterr().out.splitlines()


def test_two_addresses_stand_below_one_another_before_a_name_is_shortened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert columns_on(80, monkeypatch, capsys) == [
        "NODE   ADDRESS         SUBNET            AGENT  PEERS  RESTARTS",
        "node1  192.168.8.227,  10.0.46.0/24,     ready  1/1    0",
        "       fd00:8::227     fd00:a:0:46::/64",
    ]


def test_where_there_is_room_every_row_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(columns_on(120, monkeypatch, capsys)) == 2


def test_the_longest_column_wraps_before_another_is_shortened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "console", lambda: Console(highlight=False, emoji=False, width=60))
    rows = [
        ("kernel: wireguard", "no", "a module that is not loaded now and was not tried", "the wireguard backend"),
        ("tomcat10", "yes", "/usr/share/catalina.sh", "image tomcat"),
    ]
    render.columns(("check", "ok", "found", "needed for"), rows)
    assert capsys.readouterr().out.splitlines() == [
        "CHECK              OK   FOUND          NEEDED FOR",
        "kernel: wireguard  no   a module that  the wireguard backend",
        "                        is not loaded",
        "                        now and was",
        "                        not tried",
        "tomcat10           yes  /usr/share/ca  image tomcat",
        "                        talina.sh",
    ]


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
        "  a -> c (10.0.1.2): no answer",
        "  a -> d (10.0.1.2): skipped (terminated meanwhile: d)",
    ]


def test_many_targets_have_a_line_for_each_sender_in_which_what_was_skipped_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    many = [ping(f"pod{number}", 1) for number in range(render.MATRIX_TARGETS)]
    render.pings([*many, ping("d", 0, "terminated meanwhile: d")])
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["a", "13", "12", "0"]
