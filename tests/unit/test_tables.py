"""Every table at 80 columns with long names: each cell whole, as in a pipe."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.text import Text

from testbed.output import tables as render
from testbed.output.layout import table_lines
from tests.documents import ROOT
from tests.tables import KnownTable, every_table

WIDTH = 80
LONGEST_NAME = 63
TEXT = "its container nginx ended with exit code 127 and is started again in 10 s, after 3 restarts"
TABLES = every_table()


def name(number: int) -> str:
    return f"pod-{number}-".ljust(LONGEST_NAME, "x")


FILLINGS: dict[str, Sequence[str]] = {
    "short": ("node1", "10.0.46.2", "yes", "0"),
    "long names": tuple(map(name, range(20))),
    "IPv6": ("node1", "192.168.8.227, fd00:8::227", "10.0.46.0/24, fd00:a:0:46::/64", "ready, drained", "1/1", "0"),
    "texts": ("2026-11-22T19:05:34Z", TEXT, "Normal"),
    "all": (name(1), "2026-11-22T19:05:34Z", "fd00:a:0:46::2, fd00:a:0:46::3", TEXT, f"{name(2)} -> {name(3)}: lost"),
    "several lines": ("check", f"{name(1)} -> {name(2)}: no answer\n{name(2)} -> {name(1)}: no answer", "no"),
    "nothing": ("", "-"),
}


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_no_cell_is_cut_on_a_terminal_of_80_columns(
    table: KnownTable, filling: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = FILLINGS[filling]
    headings = [name(number) if heading is None else heading.upper() for number, heading in enumerate(table.headings)]
    rows = [[texts[(row + number) % len(texts)] for number in range(len(headings))] for row in range(3)]
    is_matrix = None in table.headings
    monkeypatch.setattr(render, "screen_width", lambda: WIDTH)
    render.matrix(headings, rows) if is_matrix else render.plain_columns(headings, rows)
    shown = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(render, "screen_width", lambda: sys.maxsize)
    render.plain_columns(headings, rows)
    piped = capsys.readouterr().out.splitlines()
    assert len(piped) == 1 + sum(max(cell.count("\n") + 1 for cell in row) for row in rows)
    missing = Counter(" ".join(piped).split()) - Counter(" ".join(shown).split())
    assert not missing, "\n".join(shown)
    assert max(map(len, shown)) <= WIDTH, "\n".join(shown)
    # Texts are read in order, whatever line they are on.
    flat = " ".join(" ".join(shown).split())
    below = " ".join(" ".join(line for line in shown if line.startswith("    ")).split())
    for cell in {cell for row in rows for cell in row if len(cell.split()) > 1}:
        words = cell.split()
        in_order = re.compile(".*?".join(map(re.escape, words)))
        assert in_order.search(flat) or in_order.search(below), f"{cell}\n" + "\n".join(shown)


def test_no_table_is_printed_past_these() -> None:
    elsewhere = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "testbed").rglob("*.py")
        if re.search(r"rich[. ]+(import )?table|tabulate|prettytable", Path(file).read_text(encoding="utf-8"))
    ]
    assert elsewhere == []
    assert len(TABLES) >= 25


def lines(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    return [line.plain for line in table_lines(headings, [[Text(cell) for cell in row] for row in rows], width)]


NODES = ("NODE", "ADDRESS", "SUBNET", "AGENT", "PEERS", "RESTARTS")
NODE = ("node1", "192.168.8.227, fd00:8::227", "10.0.46.0/24, fd00:a:0:46::/64", "ready", "1/1", "0")


def test_two_addresses_stand_below_one_another_where_a_line_is_too_short_for_both() -> None:
    assert lines(NODES, [NODE], 80) == [
        "NODE   ADDRESS         SUBNET            AGENT  PEERS  RESTARTS",
        "node1  192.168.8.227,  10.0.46.0/24,     ready  1/1    0",
        "       fd00:8::227     fd00:a:0:46::/64",
    ]
    assert len(lines(NODES, [NODE], 120)) == 2


def test_texts_wrap_between_words_and_a_path_is_not_broken() -> None:
    rows = [
        ("kernel: wireguard", "no", "a module that is not loaded now and was not tried", "the wireguard backend"),
        ("tomcat10", "yes", "/usr/share/catalina.sh", "image tomcat"),
    ]
    assert lines(("CHECK", "OK", "FOUND", "NEEDED FOR"), rows, 70) == [
        "CHECK              OK   FOUND                   NEEDED FOR",
        "kernel: wireguard  no   a module that is not    the wireguard backend",
        "                        loaded now and was not",
        "                        tried",
        "tomcat10           yes  /usr/share/catalina.sh  image tomcat",
    ]


def test_long_cells_of_the_last_column_stand_below_their_rows() -> None:
    headings = ("AT", "TYPE", "OBJECT", "REASON", "MESSAGE")
    rows = [
        ("2026-11-22T19:05:34Z", "Normal", "node/node1", "Started", "agent runs as process 46"),
        ("2026-11-22T19:05:34Z", "Warning", "pod/nginx", "BackOff", TEXT),
    ]
    assert lines(headings, rows, 80) == [
        "AT                    TYPE     OBJECT      REASON   MESSAGE",
        "2026-11-22T19:05:34Z  Normal   node/node1  Started  agent runs as process 46",
        "2026-11-22T19:05:34Z  Warning  pod/nginx   BackOff",
        "    MESSAGE  its container nginx ended with exit code 127 and is started again",
        "             in 10 s, after 3 restarts",
    ]


def test_the_widest_last_column_gets_lines_of_its_own() -> None:
    nodes = (*NODES, "BACKEND", "DATAPATH", "AGENT PID")
    node = ("node1", "192.168.8.227", "10.0.46.0/24", "ready", "1/1", "0", "udp", "native", "4234")
    assert lines(nodes, [node], 80) == [
        "NODE   ADDRESS        SUBNET        AGENT  PEERS  RESTARTS  BACKEND  DATAPATH",
        "node1  192.168.8.227  10.0.46.0/24  ready  1/1    0         udp      native",
        "    AGENT PID  4234",
    ]
    headings = ("POD", "NODE", "ADDRESS", "READY", "STATE", "RESTARTS", "SINCE", "CONTAINERS")
    nginx = ("nginx", "node1", "10.0.46.2", "2/2", "Running", "0", "2026-11-22T19:05:35Z", "nginx=nginx, writer=shell")
    assert lines(headings, [nginx], 80) == [
        "POD    NODE   ADDRESS    READY  STATE    RESTARTS  SINCE",
        "nginx  node1  10.0.46.2  2/2    Running  0         2026-11-22T19:05:35Z",
        "    CONTAINERS  nginx=nginx, writer=shell",
    ]


def test_a_matrix_without_room_goes_on_in_a_second_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "screen_width", lambda: 40)
    render.matrix(("FROM", "nginx", "client", "tomcat"), [("nginx", ".", "0.16 ms ttl=64", "0.57 ms ttl=62")])
    assert capsys.readouterr().out.splitlines() == [
        "FROM   nginx  client",
        "nginx  .      0.16 ms ttl=64",
        "",
        "FROM   tomcat",
        "nginx  0.57 ms ttl=62",
    ]


def test_brackets_in_a_text_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    render.say("lab x: ready (/tmp/[red]/cluster.yaml)")
    assert capsys.readouterr().out == "lab x: ready (/tmp/[red]/cluster.yaml)\n"
