"""Programs that end soon: their output, or an OSError with their own words."""

import pytest

from testbed.processes import short_commands
from testbed.processes.short_commands import output_of


def test_the_output_is_returned_and_input_arrives() -> None:
    assert output_of(["cat"], "one\ntwo\n") == "one\ntwo\n"
    assert output_of(["cat"]) == "", "standard input is empty, not the caller's"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo second >&2; exit 1", "sh: first"),
        ("echo only on stdout; exit 1", "sh: only on stdout"),
        ("exit 3", "sh: exit code 3"),
        ("kill -9 $$", "sh: exit code -9"),
    ],
)
def test_a_failure_is_an_error_with_the_first_line_that_it_said(script: str, said: str) -> None:
    with pytest.raises(OSError, match=f"^{said}$"):
        output_of(["sh", "-c", script], called="sh")


def test_one_that_does_not_end_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_commands, "LIMIT_S", 0.05)
    with pytest.raises(OSError, match=r"^sleep 60: no end after 0\.05 s$"):
        output_of(["sleep", "60"])


def test_a_missing_program_is_an_error_of_its_name() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        output_of(["no-such-program"])
