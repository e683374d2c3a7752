from pathlib import Path

import pytest

from testbed.control.options import OPTIONS_FILE, read_options
from testbed.errors import TestbedError


@pytest.mark.parametrize("text", ["", "root's own\n", "[]", "{}", '{"name": 1}', "[" * 100_000])
def test_a_file_that_holds_no_options_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / OPTIONS_FILE).write_text(text)
    with pytest.raises(TestbedError, match=r"options\.json: not the options of a lab") as caught:
        read_options(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
