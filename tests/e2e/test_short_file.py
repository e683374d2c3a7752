"""The shortest cluster file and the one of `testbed init` become labs."""

from pathlib import Path

from testbed.pytest_plugin import NewLab
from tests.e2e.command import run_verb


def test_two_names_become_a_lab_whose_nodes_reach_each_other(new_lab: NewLab) -> None:
    with new_lab("nodes: [left, right]\n") as lab:
        assert {node.peers_known for node in lab.nodes.values()} == {1}
        assert lab.ping("left", "right").lost == 0


def test_the_starter_file_becomes_a_lab_with_a_service(new_lab: NewLab, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(run_verb("init").out)
    with new_lab(file) as lab:
        assert lab.curl("shell", "http://echo/hostname").status == 200
