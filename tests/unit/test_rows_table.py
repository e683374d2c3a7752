"""From the marks on tests to the pages of docs/results."""

import re
from pathlib import Path

import pytest

from tests.rows import (
    ROWS,
    SOFTWARE,
    TABLES,
    Measured,
    Outcome,
    Row,
    RowsReport,
    read_measured,
    read_ran,
    read_report,
)
from tests.rows_table import DOCUMENTS, PAGES, main, merge, page, result, shown_tests, software_table, table


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        (["passed", "passed", "passed"], "passed"),
        (["passed", "failed", "passed"], "failed"),
        (["passed", "passed", "failed"], "failed"),
        (["skipped", "passed"], "skipped"),
        (["passed", "expected failure", "passed"], "expected failure"),
        ([], "not run"),
    ],
)
def test_the_worst_phase_of_a_test_counts_and_comes_back_from_the_file(
    tmp_path: Path, phases: list[Outcome], outcome: Outcome
) -> None:
    report = RowsReport()
    report.expect("B1", "t")
    for phase in phases:
        report.note("t", phase)
        report.note("of no row", "failed")
    report.write(tmp_path / "rows.json")
    assert read_report(tmp_path / "rows.json") == {"B1": {"t": outcome}}
    assert read_ran(tmp_path / "rows.json")["versions"] == {}, "this row needs no other program"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_programs_are_listed_with_the_version_that_a_passed_test_met(tmp_path: Path) -> None:
    assert all(name in SOFTWARE for row in ROWS.values() for name in row.software)
    report = RowsReport()
    report.expect("C5", "a")
    report.note("a", "passed")
    report.expect("C35", "b")
    report.note("b", "skipped")
    file = tmp_path / "rows.json"
    report.write(file)
    ran = read_ran(file)
    assert set(ran["versions"]) == {"flanneld", "nftables"}
    assert re.fullmatch(r"\d+\.\d+(\.\d+)*", ran["versions"]["nftables"])
    shown = software_table(read_report(file), [ran])
    assert f"| nftables | {ran['versions']['nftables']} | {ran['day']} | holds: C5; NO TEST: C27, C34 |" in shown
    assert "| dockerd |  |  | not run: 1 of 1 tests: C35 |" in shown
    assert shown.splitlines()[-1].startswith("| CNI plugins |")


def test_a_test_that_one_of_two_runs_skipped_counts_as_the_other_had_it() -> None:
    assert merge([{"B1": {"a": "skipped", "b": "passed"}}, {"B1": {"a": "passed", "b": "not run"}}]) == {
        "B1": {"a": "passed", "b": "passed"}
    }


@pytest.mark.parametrize(
    ("absent", "tests", "said"),
    [
        ("", {}, "NO TEST"),
        ("no services", {}, "not there yet: no services"),
        ("", {"a": "passed", "b": "passed"}, "holds"),
        ("no services", {"a": "passed"}, "holds; not there yet: no services"),
        ("", {"a": "passed", "b": "failed", "c": "skipped"}, "DOES NOT HOLD: 1 of 3 tests"),
        ("", {"a": "passed", "b": "expected failure"}, "DOES NOT HOLD (known): 1 of 2 tests"),
        ("", {"a": "passed", "b": "skipped"}, "not run: 1 of 2 tests"),
    ],
)
def test_a_row_holds_only_when_all_its_tests_passed(absent: str, tests: dict[str, Outcome], said: str) -> None:
    assert result(Row("x", absent), tests) == said


def test_cases_of_one_test_are_counted_below_their_file() -> None:
    tests = ["tests/unit/test_b.py::test_it[1]", "tests/unit/test_b.py::test_it[2]", "tests/netns/test_a.py::test_one"]
    assert shown_tests(tests) == "netns/test_a.py: one<br>unit/test_b.py: it (2)"


def test_every_row_is_in_the_table_of_its_letter() -> None:
    for name in ROWS:
        assert f"| {name} | " in table(name[0], {})


def test_a_page_is_written_completely_with_its_tables() -> None:
    made = page("reliability.md", {"B1": {"tests/a.py::test_x": "passed"}})
    assert made.startswith("# Results: faults and wrong input\n")
    assert "| a.py: x | holds |" in made
    assert made.index("| F1 | ") < made.index("| B1 | ")


def test_a_row_shows_the_issues_that_ask_for_it() -> None:
    assert "| no subnet twice (1289, 805, 1129, 1182, 813) |" in table("C", {})


def test_cases_of_a_suite_that_hold_share_a_row_and_one_that_does_not_has_its_own() -> None:
    suite = [name for name, row in ROWS.items() if row.suite == "netpol"]
    report: dict[str, dict[str, Outcome]] = {
        name: {f"tests/e2e/a.py::test_case[{name}]": "failed" if name == suite[2] else "passed"} for name in suite
    }
    made = table("Q", report).splitlines()
    assert made[2] == "| Q1 to Q2 | 2 cases of netpol | e2e/a.py: case (2) | holds |"
    assert made[3] == f"| Q3 | {ROWS['Q3'].what} | e2e/a.py: case | DOES NOT HOLD: 1 of 1 tests |"
    rest = len(suite) - 3
    assert made[4] == f"| Q4 to {suite[-1]} | {rest} cases of netpol | e2e/a.py: case ({rest}) | holds |"


def rows_of(text: str) -> list[str]:
    """Return the names in the first column of a page, those of a range one by one."""
    names = []
    for first, last in re.findall(r"^\| ([A-Z]\d+)(?: to ([A-Z]\d+))? \| ", text, re.MULTILINE):
        numbers = range(int(first[1:]), int((last or first)[1:]) + 1)
        names += [f"{first[0]}{number}" for number in numbers]
    return names


@pytest.mark.parametrize("name", PAGES)
def test_every_row_is_on_its_page_once(name: str) -> None:
    shown = rows_of((DOCUMENTS / name).read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(row for row in ROWS if row[0] in PAGES[name][1])


def test_every_table_is_on_one_page() -> None:
    assert sorted("".join(letters for _, letters in PAGES.values())) == sorted(TABLES)
    assert set(TABLES) == {name[0] for name in ROWS}


def test_a_fault_shows_its_limit_and_what_was_measured(tmp_path: Path) -> None:
    report = RowsReport()
    report.expect("F1", "tests/a.py::test_x")
    report.note("tests/a.py::test_x", "passed")
    report.measure("tests/a.py::test_x", '{"promise": "gap of 3 s", "seconds": [0.5, 1.5, 0.7]}')
    report.write(tmp_path / "rows.json")
    made = table("F", read_report(tmp_path / "rows.json"), read_measured(tmp_path / "rows.json"))
    assert "| F1 | agent ended by SIGTERM, started again | gap of 3 s | 0.7 s, 1.5 s of 3 | a.py: x | holds |" in made


def test_a_miss_shows_its_reason() -> None:
    measured: dict[str, Measured] = {
        "tests/e2e/a.py::test_x": {"promise": "5 s", "seconds": [7.5], "missed": "works again after 7.5 s (limit 5 s)"}
    }
    made = table("F", {"F1": {"tests/e2e/a.py::test_x": "failed"}}, measured)
    assert "| 7.5 s, 7.5 s of 1 |" in made
    assert "DOES NOT HOLD: 1 of 1 tests; works again after 7.5 s (limit 5 s) |" in made


def test_a_missing_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: scripts/reliability-table: ")
