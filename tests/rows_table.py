"""The pages of docs/results, made from reports of test runs.

    scripts/reliability-table [REPORT …]            print the tables
    scripts/reliability-table --write [REPORT …]    write the pages

Several reports, e.g. of the tests with and without root, count as one run; of a test that two of them ran, the first
counts. Exit code 1 when a row does not hold.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType

from tests.rows import ROWS, SOFTWARE, TABLES, Measured, Outcome, Ran, Row, read_measured, read_ran, read_report

DOCUMENTS = Path(__file__).resolve().parents[1] / "docs" / "results"
PAGES: Mapping[str, tuple[str, str]] = {
    "reliability.md": ("Results: faults and wrong input", "FB"),
    "network-model.md": ("Results: the Kubernetes network model", "KN"),
    "policies.md": ("Results: network policies", "PQ"),
    "compatibility.md": ("Results: as flannel", "C"),
}
"""Page → its title, and the letters of its tables."""
CASES = """
Each case, and the answers that its probes must get: `tests/e2e/policies.yaml`. One that does not hold has a row here.
"""
HEAD = "Written by `scripts/reliability-table --write` from a run of all tests. [What it means](../reliability.md).\n"
Report = Mapping[str, Mapping[str, Outcome]]
Measurements = Mapping[str, Measured]
NOTHING_MEASURED: Measurements = MappingProxyType({})
TIMED = "F"
"""Letters of tables whose rows have a limit in seconds."""


def default_report() -> Path:
    """Return where `scripts/test` leaves its report."""
    return Path(os.environ.get("TESTBED_ROWS") or f"/tmp/testbed-rows-{os.getuid()}.json")


def merge(reports: Iterable[Report]) -> dict[str, dict[str, Outcome]]:
    """Return one report out of several; a test that one of them ran counts as run."""
    merged: dict[str, dict[str, Outcome]] = {}
    for report in reports:
        for row, tests in report.items():
            for test, outcome in tests.items():
                known = merged.setdefault(row, {})
                if test not in known or known[test] in ("not run", "skipped"):
                    known[test] = outcome
    return merged


def result(row: Row, tests: Mapping[str, Outcome]) -> str:
    """Return how a row fared, in a few words."""
    count = Counter(tests.values())
    if not tests:
        return f"not there yet: {row.absent}" if row.absent else "NO TEST"
    if count["failed"] or count["expected failure"]:
        known = " (known)" if not count["failed"] else ""
        return f"DOES NOT HOLD{known}: {count['failed'] + count['expected failure']} of {len(tests)} tests"
    if count["not run"] or count["skipped"]:
        return f"not run: {count['not run'] + count['skipped']} of {len(tests)} tests"
    return f"holds; not there yet: {row.absent}" if row.absent else "holds"


def shown_tests(tests: Iterable[str]) -> str:
    """Return the tests of a row by file, each once with the number of its cases."""
    files: dict[str, Counter[str]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file.removeprefix("tests/"), Counter())[name.partition("[")[0].removeprefix("test_")] += 1
    return "<br>".join(
        f"{file}: " + ", ".join(f"{name} ({cases})" if cases > 1 else name for name, cases in names.items())
        for file, names in sorted(files.items())
    )


def shown_limits(tests: Iterable[str], measured: Measurements) -> str:
    """Return what the tests of a row promise, each promise once."""
    return "<br>".join(dict.fromkeys(measured[test]["promise"] for test in tests if test in measured))


def shown_times(tests: Iterable[str], measured: Measurements) -> str:
    """Return the median and the worst of a row's measurements."""
    seconds = [each for test in tests if test in measured for each in measured[test]["seconds"]]
    return f"{median(seconds):.1f} s, {max(seconds):.1f} s of {len(seconds)}" if seconds else ""


def shown_misses(tests: Iterable[str], measured: Measurements) -> str:
    """Return why the tests of a row failed, each reason once."""
    reasons = dict.fromkeys(measured[test].get("missed", "") for test in tests if test in measured)
    return "".join(f"; {reason.replace('|', '/')}" for reason in reasons if reason)


def table(letter: str, report: Report, measured: Measurements = NOTHING_MEASURED) -> str:
    """Return the rows of one letter as a Markdown table; what has limits shows them."""
    timed = letter in TIMED
    headings = ["row", TABLES[letter], *(["limit", "median, worst"] if timed else []), "our tests", "result"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for names in alike(letter, report):
        first, row = names[0], ROWS[names[0]]
        tests = {test: outcome for name in names for test, outcome in report.get(name, {}).items()}
        times = [shown_limits(tests, measured), shown_times(tests, measured)] if timed else []
        cells = (
            f"{first} to {names[-1]}" if len(names) > 1 else first,
            f"{len(names)} cases of {row.suite}" if len(names) > 1 else shown_row(row),
            *times,
            shown_tests(tests),
            result(row, tests) + shown_misses(tests, measured),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def alike(letter: str, report: Report) -> list[list[str]]:
    """Return the rows of one letter; neighbours of one suite that all hold are together."""
    groups: list[list[str]] = []
    for name, row in ROWS.items():
        if not name.startswith(letter):
            continue
        before = groups[-1][0] if groups else name
        holds = {result(ROWS[one], report.get(one, {})) for one in (before, name)} == {"holds"}
        if groups and row.suite and ROWS[before].suite == row.suite and holds:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def shown_row(row: Row) -> str:
    """Return what a row asks, and who asks for it."""
    return row.what.replace("|", "\\|") + (f" ({row.source})" if row.source else "")


def software_table(report: Report, runs: Sequence[Ran]) -> str:
    """Return the programs beside which rows were run, with version and day, as a Markdown table."""
    lines = ["| software | version | when | rows, by result |", "|---|---|---|---|"]
    for program in SOFTWARE:
        ran = next((ran for ran in runs if program in ran["versions"]), None)
        version, day = (ran["versions"][program], ran["day"]) if ran else ("", "")
        rows: dict[str, list[str]] = {}
        for name, row in ROWS.items():
            if program in row.software:
                rows.setdefault(result(row, report.get(name, {})), []).append(name)
        results = "; ".join(f"{words}: {', '.join(names)}" for words, names in rows.items())
        lines.append(f"| {program} | {version} | {day} | {results} |")
    return "\n".join(lines)


def page(name: str, report: Report, measured: Measurements = NOTHING_MEASURED, runs: Sequence[Ran] = ()) -> str:
    """Return a page of results, whole."""
    title, letters = PAGES[name]
    headings = {letter: TABLES[letter][:1].upper() + TABLES[letter][1:] for letter in letters}
    tables = [
        f"\n## {headings[letter]}\n{CASES if letter == 'Q' else ''}\n{table(letter, report, measured)}\n"
        for letter in letters
    ]
    if "C" in letters:
        tables.append(f"\n## Beside other software\n\n{software_table(report, runs)}\n")
    return "".join([f"# {title}\n\n{HEAD}", *tables])


def main(argv: Sequence[str]) -> int:
    """Return the script: see the module's text."""
    parser = argparse.ArgumentParser(
        prog="scripts/reliability-table", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "reports", nargs="*", type=Path, metavar="REPORT", help="default: that of the last scripts/test"
    )
    parser.add_argument("--write", action="store_true", help="write the pages of docs/results")
    options = parser.parse_args(argv)
    try:
        files = options.reports or [default_report()]
        report = merge([read_report(file) for file in files])
        runs = [read_ran(file) for file in files]
        # As with results: what an earlier one of the reports says of a test counts.
        measured = {test: each for file in reversed(files) for test, each in read_measured(file).items()}
        if options.write:
            for name in PAGES:
                (DOCUMENTS / name).write_text(page(name, report, measured, runs), encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        print(f"error: scripts/reliability-table: {error} (want a report of scripts/test)", file=sys.stderr)
        return 2
    if not options.write:
        print("\n\n".join(table(letter, report, measured) for letter in TABLES))
    results = Counter(result(row, report.get(name, {})).partition(":")[0] for name, row in ROWS.items())
    print(", ".join(f"{count} {words}" for words, count in sorted(results.items())), file=sys.stderr)
    return 1 if any(words.startswith(("DOES NOT", "NO TEST")) for words in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
