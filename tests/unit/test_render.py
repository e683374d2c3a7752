"""Columns on terminals that are too narrow for them."""

import pytest
from rich.console import Console

from testbed.command import render

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
