"""The fault `disk full`, on a machine whose /run is a directory of ours, as in a lab."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.faults.catalogue import parse
from testbed.faults.ledger import Injected
from testbed.faults.node_faults import NodeFaults
from testbed.lab.nodes import Nodes

pytestmark = pytest.mark.root


@pytest.fixture
def pid(tmp_path: Path) -> Iterator[int]:
    """Return a process with its own mounts, to which `tmp_path` is /run."""
    hold = f"mount --bind {tmp_path} /run && echo up && exec sleep infinity"
    command = ["unshare", "--mount", "--net", "--propagation=private", "sh", "-c", hold]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None  # Popen was given a pipe
        assert holder.stdout.readline() == b"up\n"
        yield holder.pid
        holder.kill()


def filled(pid: int, directory: Path) -> Injected:
    """Fill the disk of the machine."""
    nodes = Nodes()
    unused: Any = None
    node: Any = SimpleNamespace(name="node1", pid=pid, run=directory, expected=True)
    nodes.add([node])
    (directory / "flannel").mkdir()
    (directory / "flannel" / "subnet.env").write_text("FLANNEL_MTU=1472\n")
    return NodeFaults(nodes, unused, unused, unused, unused, unused).fill_disk(parse(["disk", "full", "node1"]))


def can_write(pid: int) -> bool:
    script = "head -c 20000 /dev/zero > /run/flannel/probe"
    command = ["nsenter", "--target", str(pid), "--mount", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_full_disk_has_room_again_when_it_is_healed(pid: int, tmp_path: Path) -> None:
    done = filled(pid, tmp_path)
    assert done.undo is not None
    assert not can_write(pid)
    done.undo()
    assert can_write(pid)
    assert (tmp_path / "flannel" / "subnet.env").read_text() == "FLANNEL_MTU=1472\n"


@pytest.mark.parametrize("agent_is_back", [True, False])
def test_a_full_disk_that_a_crash_removed_is_healed(pid: int, agent_is_back: bool, tmp_path: Path) -> None:
    done = filled(pid, tmp_path)
    assert done.undo is not None
    # As the fault `node crash` does, which removes the mount with its directory.
    shutil.rmtree(tmp_path / "flannel")
    if agent_is_back:
        (tmp_path / "flannel").mkdir()
    assert done.undo() == "/run/flannel of node1 has free space again"
