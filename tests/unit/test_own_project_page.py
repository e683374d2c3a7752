"""The workflow that docs/own-project.md sends its readers to."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")


def test_the_workflow_runs_what_ci_runs_where_the_page_says() -> None:
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert {job["runs-on"] for job in jobs.values()} == {"ubuntu-24.04"}
    assert ".ci/run" in jobs["test"]["steps"][1]["run"]
    directories = {step.get("working-directory") for step in jobs["own-project"]["steps"]} - {None}
    assert [(ROOT / directory).is_dir() for directory in directories] == [True]
