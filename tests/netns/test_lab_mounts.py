"""The lab's view of the host: no temporary files, no disks, and nothing that can be written but the network's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.pods.devices import DEVICE_LINKS, DEVICES
from testbed.processes.namespaces import MACHINE_CAPABILITIES

pytestmark = pytest.mark.root

OF_THE_NETWORK = ("/proc/sys/net/ipv4/ip_forward", "/sys/class/net/lo/mtu", "/sys/devices/virtual/net/lo/mtu")
OF_THE_MACHINE = ("/proc/sys/vm/swappiness", "/proc/sysrq-trigger", "/proc/mtrr", "/sys/kernel/uevent_seqnum")

LOOK = """
import json, os, sys
from pathlib import Path
from testbed.supervisor.lab_init import make_mounts_private
from testbed.processes import namespaces
rundir, clone, other = map(Path, sys.argv[1:4])
namespaces.make_mounts_private()
disk = Path("/run/disk of the host")
namespaces.mount("tmpfs", "/run", "tmpfs")
disk.mkdir()
namespaces.mount("tmpfs", str(disk), "tmpfs")
make_mounts_private(rundir, [clone])
def opens(device):
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError:
        return False
    return True
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
    "settings writable": [path for path in sys.argv[4:] if os.access(path, os.W_OK)],
    "disk still mounted": any(mount.path == str(disk) for mount in namespaces.mounts_below("/run")),
    "devices": sorted(os.listdir("/dev")),
    "opened": [name for name in ("null", "net/tun", "ptmx") if opens("/dev/" + name)],
}))
"""


def test_a_lab_sees_the_clone_below_tmp_and_writes_only_its_own_files_and_network_settings(tmp_path: Path) -> None:
    rundir, clone, other = tmp_path / "rundir", tmp_path / "clone", tmp_path / "other"
    for directory in (rundir, clone, other):
        directory.mkdir()
    (clone / "code.py").touch()
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--net",
            "--fork",
            sys.executable,
            "-c",
            LOOK,
            str(rundir),
            str(clone),
            str(other),
            *OF_THE_MACHINE,
            *OF_THE_NETWORK,
        ],
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
        "settings writable": list(OF_THE_NETWORK),
        "disk still mounted": False,
        "devices": sorted([*DEVICES, *DEVICE_LINKS, "net", "pts", "shm"]),
        "opened": ["null", "net/tun", "ptmx"],
    }
    assert (rundir / "probe").exists()
    assert not (clone / "probe").exists()


def test_no_program_of_a_lab_gets_back_the_capabilities_over_the_machine() -> None:
    """Not even as root, for whom exec would otherwise bring them all."""
    program = "import os; from testbed.processes import namespaces; namespaces.give_up_the_machine(); "
    program += "os.execvp('grep', ['grep', '^Cap', '/proc/self/status'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own = Path("/proc/self/status").read_text()
    before, after = _capabilities(own), _capabilities(done.stdout)
    given_up = sum(1 << number for number in MACHINE_CAPABILITIES.values())
    assert before["CapEff"] & given_up
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert after[kind] == before[kind] & ~given_up
    assert (after["CapInh"], after["CapAmb"]) == (0, 0)


def _capabilities(status: str) -> dict[str, int]:
    lines = [line.split() for line in status.splitlines() if line.startswith("Cap")]
    return {name.rstrip(":"): int(mask, 16) for name, mask in lines}
