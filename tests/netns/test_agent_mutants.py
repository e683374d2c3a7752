"""The tests of rows that need agents and no lab can fail: with an agent in which one thing is broken they do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
LIMIT_S = 200.0

CASES = (
    (
        "F5",
        "unfenced",
        "test_agent.py::test_a_foreign_owner_of_our_subnet_ends_the_agent_loudly",
        "the fenced agent is not ready",
    ),
    (
        "F19",
        "rules",
        "test_agent.py::test_a_read_only_disk_keeps_the_agent_unready_until_it_is_writable",
        "is ready",
    ),
    (
        "F26",
        "blind",
        "test_agent_foresees_and_follows.py::test_another_config_changes_nothing_that_runs_and_is_reported_once",
        "the change is told",
    ),
    (
        "F37",
        "address",
        "test_agent_foresees_and_follows.py::test_an_address_that_moves_to_another_interface_is_followed",
        "the pods reach each other again",
    ),
    (
        "F38",
        "mute",
        "test_one_address_twice.py::test_the_second_reports_the_owner_of_its_address_and_the_first_keeps_everything",
        "the second is refused",
    ),
    (
        "F49",
        "serene",
        "test_lease_over.py::test_a_lease_that_is_over_while_etcd_answers_is_a_reason_not_to_be_ready",
        "not ready",
    ),
)
"""Row, mutant, the row's test, and what that has to complain of."""


@pytest.mark.timeout(LIMIT_S + 20)
@pytest.mark.parametrize(("mutant", "test", "complaint"), [pytest.param(*case, id=row) for row, *case in CASES])
def test_a_broken_agent_does_not_pass(mutant: str, test: str, complaint: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "netns" / test)],
        cwd=ROOT,
        env={**os.environ, "TESTBED_TEST_MUTANT": mutant},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert complaint in done.stdout
