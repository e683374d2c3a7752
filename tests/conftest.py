"""What all tests share: the link from tests to the rows of docs/reliability.md, and a report of how the rows fared.

`@pytest.mark.row("B25")` says that a test shows row B25. `--rows-report FILE` writes every row's tests with their
outcomes as JSON; `scripts/reliability-table` turns that into the tables of docs/reliability.md.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.fuzz.fuzzer import TARGETS, Fuzzer
from tests.rows import MEASURED, ROWS, Outcome, RowsReport


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows-report", metavar="FILE", type=Path, help="write how the rows of docs/reliability.md fared")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RowsPlugin(config.getoption("rows_report")), "rows")


@pytest.fixture(scope="session")
def fuzzers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Fuzzer]]:
    """Yield both fuzzers, running side by side."""
    with ExitStack() as undo:
        yield {target: Fuzzer(target, tmp_path_factory.mktemp(target), undo) for target in TARGETS}


@pytest.fixture(scope="session", autouse=True)
def fuzzers_first(request: pytest.FixtureRequest) -> None:
    """Start the fuzzers before the first test if any test will wait for them, so that the others run meanwhile."""
    if shutil.which("clang") and any("fuzzers" in getattr(item, "fixturenames", ()) for item in request.session.items):
        # One that does not compile is told by the tests that wait for it.
        with suppress(subprocess.CalledProcessError):
            request.getfixturevalue("fuzzers")


class RowsPlugin:
    """Follows the tests that are marked with rows."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._report = RowsReport()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which tests belong to which rows; a row that nobody knows is a mistake in the test."""
        for item in items:
            for marker in item.iter_markers("row"):
                if not marker.args or marker.kwargs or any(row not in ROWS for row in marker.args):
                    raise pytest.UsageError(
                        f"{item.nodeid}: no such row (got {marker.args}; want ids of tests/rows.py)"
                    )
                for row in marker.args:
                    self._report.expect(row, item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in one phase (set-up, call, tear-down) of one test."""
        self._report.note(report.nodeid, _outcome(report))
        for name, value in report.user_properties:
            if name == MEASURED:
                self._report.measure(report.nodeid, str(value))

    def pytest_sessionfinish(self) -> None:
        """Write the report if it was asked for."""
        if self._file is not None:
            self._report.write(self._file)


def _outcome(phase: pytest.TestReport) -> Outcome:
    if hasattr(phase, "wasxfail") and phase.skipped:
        return "expected failure"
    return phase.outcome
