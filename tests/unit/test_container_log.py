from pathlib import Path

import pytest

from testbed.pods.container_log import CappedLog


@pytest.mark.row("B43")
def test_log_and_predecessor_never_exceed_the_limit_and_keep_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = CappedLog(str(path), limit_bytes=100)
    for number in range(100):
        log.write(b"%09d\n" % number)
        kept = [file.stat().st_size for file in tmp_path.iterdir()]
        assert sum(kept) <= 100
    text = (tmp_path / "log.1").read_bytes() + path.read_bytes()
    assert text.endswith(b"%09d\n" % 99)
    assert len(text) > 50


@pytest.mark.row("B43")
def test_one_piece_larger_than_the_limit_is_capped_too(tmp_path: Path) -> None:
    log = CappedLog(str(tmp_path / "log"), limit_bytes=100)
    log.write(b"x" * 1000)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 100


def test_a_restarted_container_goes_on_where_the_log_ended(tmp_path: Path) -> None:
    CappedLog(str(tmp_path / "log"), limit_bytes=100).write(b"before\n")
    CappedLog(str(tmp_path / "log"), limit_bytes=100).write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"
