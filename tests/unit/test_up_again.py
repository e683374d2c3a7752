"""`up` on a lab that runs already."""

import os
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.spec import find_cluster_file, load_cluster
from testbed.control.client import LabRecord, start_ticks
from testbed.control.options import LabOptions
from testbed.control.questions import STATUS
from testbed.control.server import ControlServer, Verb
from testbed.control.wire import CONTROL_SOCKET
from testbed.errors import TestbedError
from testbed.host import up


def test_a_lab_that_was_kept_before_it_had_nodes_must_be_taken_down_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status: Any = {"state": "starting", "nodes": []}
    ControlServer(tmp_path / CONTROL_SOCKET, [Verb(STATUS, lambda _: status, changes=False)], os.getuid()).start()
    record = LabRecord("broken", os.getpid(), start_ticks(os.getpid()) or 0, tmp_path, os.getuid())
    monkeypatch.setattr(up, "prefix", lambda: "sudo testbed")
    cluster = load_cluster(str(find_cluster_file("two_nodes")))
    for options in (LabOptions(name="broken"), LabOptions(name="broken", dry_run=True)):
        with pytest.raises(TestbedError, match=r"^lab broken: .*\(sudo testbed down --lab broken\)$"):
            up._already_up(record, cluster, options)
