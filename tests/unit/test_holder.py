"""What a machine's holder says of the end of the process before it."""

import pytest

from testbed.lab.holder import ending


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "exited with 0"),
        (None, "exited with None"),
        (-9, "was ended by SIGKILL"),
        (-35, "was ended by signal 35"),
    ],
)
def test_every_end_has_words_also_by_a_signal_without_a_name(exit_code: int | None, words: str) -> None:
    assert ending(exit_code) == words
