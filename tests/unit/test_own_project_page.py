"""docs/own-project.md shows files that are there, as they are."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-project.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cluster.yaml", "test_overlay.py"])
def test_the_files_of_the_example_are_on_the_page(name: str) -> None:
    language = "python" if name.endswith(".py") else "yaml"
    assert f"```{language}\n{(ROOT / 'examples' / 'own-project' / name).read_text()}```" in PAGE


def test_the_job_on_the_page_is_the_one_of_the_workflow() -> None:
    job = WORKFLOW[WORKFLOW.index("  own-project:") :]
    assert f"```yaml\njobs:\n{job}```" in PAGE


def test_the_workflow_runs_what_ci_runs_where_the_page_says() -> None:
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert {job["runs-on"] for job in jobs.values()} == {"ubuntu-24.04"}
    assert ".ci/run" in jobs["test"]["steps"][1]["run"]
    directories = {step.get("working-directory") for step in jobs["own-project"]["steps"]} - {None}
    assert [(ROOT / directory).is_dir() for directory in directories] == [True]
