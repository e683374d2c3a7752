"""Names of runs: of their labs, and of the directories for their bundles."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import pytest_plugin
from testbed.control.client import LabRecord
from testbed.testing.lab_handle import LabHandle
from testbed.testing.lab_runs import BundleDirectory, RunName, file_name_of, outdated


def test_workers_of_a_run_have_labs_of_their_own_that_belong_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TESTBED_TEST_LABS", raising=False)
    workers = [RunName.of({"workerid": name}) for name in ("gw0", "gw1")]
    controller = RunName(os.getppid(), None)
    assert len({worker.lab_prefix for worker in workers}) == 2
    assert all(controller.is_ours(f"{worker.lab_prefix}-1") for worker in workers)
    assert not controller.is_ours(f"pytest-{os.getppid()}1-1")


def test_prefix_of_lab_names_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_TEST_LABS", "mine")
    assert RunName.of(None).lab_prefix == f"mine-{os.getpid()}"


def test_last_three_runs_are_kept_with_all_their_workers_and_so_are_foreign_files() -> None:
    runs = [f"2026010{day}-120000-{day}" for day in range(1, 6)]
    workers = ["20260105-120001-5-gw0", "20260105-120001-5-gw1"]
    assert outdated([*runs, *workers, "mine", ".gitignore"]) == ["20260102-120000-2", "20260101-120000-1"]


def test_default_directory_hides_from_git_and_forgets_old_runs(tmp_path: Path) -> None:
    for day in range(1, 5):
        (tmp_path / ".lab-bundles" / f"2020010{day}-120000-{day}").mkdir(parents=True)
    place = BundleDirectory(None, tmp_path, RunName(99, None)).place_for("test_a.py::test_b", "lab-1")
    assert place.is_dir()
    assert sorted(entry.name for entry in (tmp_path / ".lab-bundles").iterdir() if entry.is_dir())[0].startswith(
        "20200103"
    )


def test_directory_of_the_users_choice_forgets_nothing(tmp_path: Path) -> None:
    for day in range(1, 6):
        (tmp_path / f"2020010{day}-120000-{day}").mkdir()
    BundleDirectory(tmp_path, Path("/nowhere"), RunName(99, None)).place_for("t", "lab-1")
    assert len(list(tmp_path.iterdir())) == 6


def test_nothing_is_made_before_the_first_bundle(tmp_path: Path) -> None:
    BundleDirectory(None, tmp_path, RunName(99, None))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("tests/test_a.py::test_b", "tests_test_a__test_b"),
        ("test_a.py::TestC::test_b[1-x y]", "test_a__TestC_test_b[1-x_y]"),
        ("../up/test_a.py::test_b", "up_test_a__test_b"),
    ],
)
def test_id_of_a_test_becomes_one_file_name(test: str, name: str) -> None:
    assert file_name_of(test) == name


def test_long_id_keeps_its_end() -> None:
    name = file_name_of("test_a.py::test_" + "x" * 300 + "_end")
    assert len(name) <= 120
    assert name.endswith("_end")


def test_a_bundle_that_cannot_be_written_is_named_and_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {"lab_bundles": tmp_path / "file" / "bundles"}
    config: Any = SimpleNamespace(getoption=options.get, rootpath=tmp_path)
    item: Any = SimpleNamespace(nodeid="test_a.py::test_b", stash=pytest.Stash())
    item.stash[pytest_plugin._bundles_key] = {}
    lab = LabHandle(LabRecord("one", 0, 0, tmp_path, 0))
    bundle = pytest_plugin.LabsOfTheRun(config)._bundle(item, lab, "it failed")
    assert [finding.partition(": ")[0] for finding in bundle.findings] == ["the bundle cannot be written"]
    assert item.stash[pytest_plugin._bundles_key] == {"one": bundle}


def test_captures_of_an_interrupted_test_are_removed(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(getoption=lambda _: None, rootpath=tmp_path)
    labs = pytest_plugin.LabsOfTheRun(config)
    captures = tmp_path / "captures"
    captures.mkdir()
    labs._captured[LabHandle(LabRecord("one", 0, 0, tmp_path, 0))] = captures
    labs.pytest_sessionfinish()
    assert not captures.exists()
