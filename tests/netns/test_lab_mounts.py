"""The lab's view of the file system: the host's without its temporary files, and nothing of it can be written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

LOOK = """
import json, os, sys
from pathlib import Path
from testbed.lab.lab_init import make_mounts_private
rundir, clone, other = map(Path, sys.argv[1:])
make_mounts_private(rundir, [clone])
def writable(directory):
    try:
        (directory / "probe").write_text("x")
    except OSError:
        return False
    return True
print(json.dumps({
    "clone": (clone / "code.py").exists(), "other": other.exists(), "clone writable": writable(clone),
    "rundir writable": writable(rundir), "root writable": writable(Path("/usr")),
    "tmp writable": writable(Path("/tmp")),
}))
"""


def test_a_clone_below_tmp_is_seen_and_nothing_else_there_and_only_the_labs_own_can_be_written(tmp_path: Path) -> None:
    rundir, clone, other = tmp_path / "rundir", tmp_path / "clone", tmp_path / "other"
    for directory in (rundir, clone, other):
        directory.mkdir()
    (clone / "code.py").touch()
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", LOOK, str(rundir), str(clone), str(other)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "clone": True,
        "other": False,
        "clone writable": False,
        "rundir writable": True,
        "root writable": False,
        "tmp writable": True,
    }
    assert (rundir / "probe").exists()
    assert not (clone / "probe").exists()
