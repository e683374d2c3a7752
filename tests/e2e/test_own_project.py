"""The project of docs/own-project.md: its tests pass, and fail where its overlay is broken."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.inner_pytest import Project, prefix_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-project"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for file in EXAMPLE.glob("*.*"):
        shutil.copy(file, tmp_path / file.name)
    return Project(tmp_path, prefix_for("own"))


def test_the_example_passes_and_leaves_no_lab(project: Project) -> None:
    run = project.run()
    assert (run.code, set(run.outcomes.values()), len(run.outcomes)) == (0, {"passed"}, 3), run.out
    assert project.labs() == []


@pytest.mark.slow
def test_the_example_fails_with_a_bundle_where_nothing_is_forwarded(project: Project) -> None:
    cluster = project.directory / "cluster.yaml"
    cluster.write_text(cluster.read_text().replace("Type: udp", "Type: alloc"))
    name = "test_a_pod_reaches_a_pod_on_another_node"
    run = project.run("--lab-bundles=bundles", "-k", name)
    assert run.outcomes == {name: "failure"}, run.out
    assert (run.bundle(name) / "README.txt").is_file()
