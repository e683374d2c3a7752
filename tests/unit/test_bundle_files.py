"""What a bundle takes from the directory of a lab that does not answer: its logs, and nothing that lies elsewhere."""

import os
from pathlib import Path

from testbed.control.client import LabRecord
from testbed.testing.bundle import LARGEST_COPY, write_bundle
from testbed.testing.lab_handle import LabHandle


def test_a_dead_labs_bundle_has_its_logs_and_nothing_that_a_container_planted(tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("root:x\n")
    rundir, bundle = tmp_path / "lab", tmp_path / "bundle"
    volume = rundir / "nodes" / "node1" / "pods" / "web" / "volumes" / "data"
    of_pods = rundir / "logs" / "pods" / "web"
    for directory in (rundir / "logs", volume, of_pods):
        directory.mkdir(parents=True)
    (rundir / "logs" / "agent-node1.log").write_text("agent\n")
    (of_pods / "main.log").write_text("container\n")
    (volume / "evil.log").symlink_to(secret)
    (of_pods / "evil.log").symlink_to(secret)
    (rundir / "cluster.yaml").symlink_to(secret)
    os.mkfifo(volume / "fifo.log")
    os.mkfifo(rundir / "logs" / "etcd1.log")
    (rundir / "lab.log").touch()
    os.truncate(rundir / "lab.log", 1 << 40)
    record = LabRecord("dead", 1 << 22, 1, rundir, 0)

    written = write_bundle(LabHandle(record), bundle, title="a test")

    files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
    logs = {f"logs/{name}.log" for name in ("agent-node1", "pods/web/main", "pods/web/evil", "etcd1", "lab")}
    assert set(files) == {"README.txt", "cluster.yaml", *logs}
    assert files["logs/agent-node1.log"].read_text() == "agent\n"
    assert files["logs/pods/web/main.log"].read_text() == "container\n"
    assert "is a FIFO" in files["logs/etcd1.log"].read_text()
    assert "is a symbolic link" in files["cluster.yaml"].read_text()
    assert files["logs/lab.log"].stat().st_size == LARGEST_COPY
    assert not any(b"root:x" in path.read_bytes() for path in files.values())
    assert written.problems
