"""The agent's log: one line per event, whatever the event's text holds."""

import logging
import re

import pytest

from agent.daemon.log import OneLineFormatter


@pytest.fixture
def record() -> logging.LogRecord:
    record = logging.LogRecord("agent.x", logging.WARNING, __file__, 1, "lease %s refused", ("a\nb",), None)
    record.created, record.msecs = 1700000000.25, 250.0
    return record


def test_a_line_has_utc_time_level_and_text(record: logging.LogRecord) -> None:
    assert OneLineFormatter().format(record) == "2023-11-14T22:13:20.250Z WARNING lease a | b refused"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jvxlan\a", r"\x1b[2Jvxlan\x07"),
        ("a\r\tb\x85c\u2028d", r"a\r\tb\x85c\u2028d"),
        ("abc\u202edef\u2066", r"abc\u202edef\u2066"),
        ("not UTF-8: \udce9", r"not UTF-8: \udce9"),
        ("Knoten Zürich, узел, 节点, عقدة …", "Knoten Zürich, узел, 节点, عقدة …"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped_and_letters_are_not(
    record: logging.LogRecord, text: str, shown: str
) -> None:
    record.args = (text,)
    assert OneLineFormatter().format(record) == f"2023-11-14T22:13:20.250Z WARNING lease {shown} refused"


def test_an_unexpected_error_stays_on_its_line(record: logging.LogRecord) -> None:
    try:
        raise ValueError("of a bug")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    line = OneLineFormatter().format(record)
    assert re.fullmatch(r".*\| ValueError: of a bug", line)
