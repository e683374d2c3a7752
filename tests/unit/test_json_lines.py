import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel.journal import FileJournal
from agent.kernel.json_lines import append, is_complete, pieces


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for piece in pieces(path) for line in piece.read_text().splitlines()]


def test_the_first_lines_and_the_newest_are_kept_in_three_files(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for number in range(1000):
        append(path, {"n": number}, piece_bytes=100)
        assert number in numbers(path)
        assert len(list(tmp_path.iterdir())) <= 3
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 400
    kept = numbers(path)
    assert kept[:5] == [0, 1, 2, 3, 4]
    assert kept[-5:] == [995, 996, 997, 998, 999]
    assert kept == sorted(kept)


def test_it_is_complete_until_something_was_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written = 0
    while is_complete(path):
        assert numbers(path) == list(range(written))
        append(path, {"n": written}, piece_bytes=100)
        written += 1
    assert numbers(path) != list(range(written))
    assert written > 20


def test_several_processes_share_a_file_and_lose_no_line_of_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys; from pathlib import Path; from agent.kernel.json_lines import append\n"
        "for n in range(2000): append(Path(sys.argv[1]), {'n': n, 'who': sys.argv[2]}, piece_bytes=20_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), who]) for who in "abc"]
    assert [writer.wait(100) for writer in writers] == [0, 0, 0]
    lines = [json.loads(line) for piece in pieces(path) for line in piece.read_text().splitlines()]
    assert len(pieces(path)) == 3
    for who in "abc":
        mine = [line["n"] for line in lines if line["who"] == who]
        assert mine == sorted(set(mine))
    assert max(line["n"] for line in lines) == 1999


def test_a_journal_that_cannot_be_written_costs_the_record_and_not_the_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = FileJournal(tmp_path / "there" / "journal.jsonl", "node1")
    (tmp_path / "there").rmdir()
    for _ in range(3):
        journal.record(["ip", "link"], "why")
    assert caplog.text.count("changes are not recorded") == 1
    (tmp_path / "there").mkdir()
    journal.record(["ip", "link"], "why")
    assert len(pieces(tmp_path / "there" / "journal.jsonl")) == 1
