"""`cleanup` on a node that has lost its network."""

import sys
from pathlib import Path

import pytest

from tests.netns.conftest import NamespaceMaker

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]


def test_without_an_underlay_everything_but_the_lease_is_removed(namespaces: NamespaceMaker, tmp_path: Path) -> None:
    node, subnet_file = namespaces("node"), tmp_path / "subnet.env"
    subnet_file.write_text("FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET=10.0.46.1/24\nFLANNEL_MTU=1472\n")
    node.run(["nft", "add table ip overlay-agent-10.0.0.0-16"])
    node.run(["ip", "route", "add", "unreachable", "10.0.0.0/16", "metric", "4278198272"])
    agent = ["env", "-C", str(ROOT), sys.executable, "-m", "agent"]
    done = node.run([*agent, "cleanup", "--revoke", f"--subnet-file={subnet_file}"], check=False)
    assert (done.returncode, done.stderr.startswith("error: ")) == (3, True), done.stderr
    assert node.run(["nft", "list", "ruleset"]).stdout == ""
    assert node.run(["ip", "route", "show", "type", "unreachable"]).stdout == ""
    assert not subnet_file.exists()
