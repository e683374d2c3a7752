"""What a test may write to say which cluster it wants."""

import sys
from pathlib import Path

import pytest
import yaml

from testbed.testing import lab_choice
from testbed.testing.lab_choice import ClusterChoice, LabNotUp, choose, fresh_name, start_lab


def test_word_is_the_name_of_a_cluster(tmp_path: Path) -> None:
    assert choose("two_nodes", tmp_path) == ClusterChoice("two_nodes")


@pytest.mark.parametrize("written", ["own.yaml", "./own.yaml", Path("own.yaml")])
def test_path_is_relative_to_the_test_file(written: str | Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("")
    assert choose(written, tmp_path) == ClusterChoice(str(tmp_path / "own.yaml"))


def test_text_with_lines_is_yaml(tmp_path: Path) -> None:
    text = "kind: Cluster\nnodes: {}\n"
    assert choose(text, tmp_path).text == text


def test_dicts_are_documents_in_their_order(tmp_path: Path) -> None:
    documents = [{"kind": "Cluster", "nodes": {"node1": {}}}, {"kind": "Pod"}]
    text = choose(documents, tmp_path).text
    assert text is not None
    assert list(yaml.safe_load_all(text)) == documents
    assert choose({"kind": "Cluster"}, tmp_path).text == "kind: Cluster\n"


def test_equal_specs_are_the_same_choice_and_share_the_lab(tmp_path: Path) -> None:
    spec = {"kind": "Cluster", "nodes": {"node1": {}}}
    assert choose(dict(spec), tmp_path) == choose(dict(spec), tmp_path)


@pytest.mark.parametrize("wanted", ["missing.yaml", "", 3, None, [], ["two_nodes"]])
def test_an_invalid_cluster_is_refused_with_a_valid_form(wanted: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(got .*"):
        choose(wanted, tmp_path)


def test_no_two_labs_of_a_process_have_one_name() -> None:
    assert fresh_name("x") != fresh_name("x")


def test_a_lab_that_does_not_come_up_in_time_is_reported_with_its_output_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho making switches\necho warning: little memory >&2\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(lab_choice, "START_LIMIT_S", 2.0)
    with pytest.raises(LabNotUp) as failed:
        start_lab(ClusterChoice("two_nodes"), "never-up", tmp_path)
    said = "testbed up two_nodes --lab never-up: no end after 2 s\nmaking switches\nwarning: little memory"
    assert (str(failed.value), failed.value.exit_code, failed.value.lab) == (said, 1, None)
