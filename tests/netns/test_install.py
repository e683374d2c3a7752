"""What scripts/install decides, without network: it runs in a mount namespace of its own on stand-ins for clones.

scripts/bare-machine --proofs shows the same with real clones on a real bare machine.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
DECIDES = (
    "scripts/install",
    "scripts/requirements.lock",
    "pyproject.toml",
    "setup.py",
    "testbed/pods/pause.c",
    "testbed/faults/monotonic_sleep.c",
    "agent/datapath/native/build.py",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "agent/datapath/native").glob("*.[ch]"))),
)
"""What the stamp of a finished install covers, in its order."""

NOBODY = "setpriv --reuid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
"""Not root; the capability is for pytest's temporary directories, which only root may enter."""

Shell = Callable[..., "subprocess.CompletedProcess[str]"]
MakeClone = Callable[[str], Path]


@pytest.fixture
def sh(tmp_path: Path) -> Shell:
    """Run a script in a mount namespace with an empty /usr/local/bin, without network, with root's search path."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes mount namespaces")
    commands = tmp_path / "usr-local-bin"
    commands.mkdir()
    preparation = f"set -e; mount --bind {commands} /usr/local/bin; cd {tmp_path}\n"

    def run(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["unshare", "--mount", "--net", "bash", "-c", preparation + script],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(tmp_path), **environment},
        )

    return run


@pytest.fixture
def clone(tmp_path: Path) -> MakeClone:
    """Make a clone that was never installed."""

    def make(name: str) -> Path:
        root = tmp_path / name
        for directory in ("agent/datapath/native", "testbed/pods", "testbed/faults", "topologies"):
            (root / directory).mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", root / "scripts")
        for file in DECIDES[2:]:
            shutil.copy(ROOT / file, root / file)
        return root

    return make


def finish(root: Path) -> None:
    """Leave in `root` what a finished install leaves there; the program `testbed` says which clone it is of."""
    binaries = root / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to("/usr/bin/python3")
    (binaries / "testbed").write_text(f"print('this is {root.name}')\n")
    pause = root / "testbed/pods/bin/pause"
    pause.parent.mkdir()
    sleep = root / "testbed/faults/bin/monotonic_sleep.so"
    sleep.parent.mkdir()
    native = root / "agent/datapath/native/_native.so"
    for compiled in (pause, sleep, native):
        compiled.write_text("")
    for program in (binaries / "testbed", pause, native):
        program.chmod(0o755)
    sums = subprocess.run(["sha256sum", *DECIDES], cwd=root, capture_output=True, text=True, check=True).stdout
    (root / ".venv/installed").write_text(f"{root}\n{Path('/usr/bin/python3').resolve()}\n{sums}")


@pytest.fixture
def installed(clone: MakeClone) -> MakeClone:
    """Make a clone with everything installed."""

    def make(name: str) -> Path:
        root = clone(name)
        finish(root)
        return root

    return make


def snapshot(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in root.rglob("*")}


def test_with_everything_present_it_is_silent_and_changes_nothing(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    assert sh(f"{root}/scripts/install").stdout == "install: everything is there\n"
    before = snapshot(root.parent)
    again = sh(f"{root}/scripts/install --tests --quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert snapshot(root.parent) == before


def test_another_python_first_in_path_is_not_run(sh: Shell, installed: MakeClone, tmp_path: Path) -> None:
    root = installed("clone")
    foreign = tmp_path / "conda/bin"
    foreign.mkdir(parents=True)
    for name in ("python", "python3", "pip"):
        (foreign / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/was-run\nexit 99\n")
        (foreign / name).chmod(0o755)
    result = sh(
        f"{root}/scripts/install; {root}/scripts/up; testbed",
        PATH=f"{foreign}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        PYTHONHOME=str(foreign.parent),
        PYTHONPATH=str(foreign),
        CONDA_PREFIX=str(foreign.parent),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["this is clone", "this is clone"]
    assert not (tmp_path / "was-run").exists()


def test_the_command_is_of_the_clone_installed_last_and_up_in_another_does_not_take_it(
    sh: Shell, installed: MakeClone
) -> None:
    first, second = installed("first"), installed("second")
    path = "export PATH=/usr/local/bin:$PATH; "
    assert sh(f"{path}{first}/scripts/install >/dev/null; testbed").stdout == "this is first\n"
    taken = sh(f"{path}{second}/scripts/install; testbed").stdout.splitlines()
    assert taken[0] == f"install: the command testbed now runs this clone, {second} (before: {first})"
    assert taken[-1] == "this is second"
    assert sh(f"{path}{first}/scripts/up; testbed").stdout == "this is first\nthis is second\n"


def test_a_foreign_command_of_that_name_is_kept(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    result = sh(f"echo theirs >/usr/local/bin/testbed; {root}/scripts/install; cat /usr/local/bin/testbed")
    assert "/usr/local/bin/testbed is not ours and stays as it is" in result.stdout
    assert result.stdout.endswith("theirs\n")


def test_the_command_of_a_removed_clone_reports_it(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    result = sh(f"{root}/scripts/install; mv {root} {root}-moved; /usr/local/bin/testbed ping")
    assert result.returncode == 3
    assert result.stderr.startswith("error: testbed: its clone is gone or not installed")


@pytest.mark.parametrize("command", ["up --help", "test --unit", "check"])
def test_a_moved_clone_says_so_to_a_user_who_cannot_repair_it(sh: Shell, installed: MakeClone, command: str) -> None:
    root = installed("clone")
    moved = root.rename(root.with_name("moved elsewhere"))
    result = sh(f"{NOBODY} '{moved}'/scripts/{command}")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == (
        f"error: scripts/install: the clone was moved (got a .venv made in {root}; "
        f"want one made in {moved}: sudo scripts/install)\n"
    )


@pytest.mark.parametrize("command", ["test --unit", "check", "install --check"])
def test_a_clone_that_was_never_installed_says_so(sh: Shell, clone: MakeClone, command: str) -> None:
    root = clone("clone")
    result = sh(f"{NOBODY} {root}/scripts/{command}")
    assert result.returncode == 3
    assert result.stderr == f"error: scripts/install: nothing is installed yet in {root} (want sudo scripts/install)\n"


def test_a_venv_of_a_python_that_the_system_has_replaced_is_named(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    stamp = root / ".venv/installed"
    stamp.write_text(stamp.read_text().replace(str(Path("/usr/bin/python3").resolve()), "/usr/bin/python3.10"))
    result = sh(f"{NOBODY} {root}/scripts/install --check")
    assert result.returncode == 3
    assert "the system's Python was replaced (got a .venv of /usr/bin/python3.10;" in result.stderr


def test_a_read_only_clone_works_when_everything_is_there(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    assert sh(f"{read_only(root)}; {root}/scripts/up two_nodes").stdout == "this is clone\n"


@pytest.mark.parametrize("command", ["install", "up two_nodes", "test"])
def test_a_read_only_clone_that_lacks_something_says_so(sh: Shell, clone: MakeClone, command: str) -> None:
    root = clone("clone")
    result = sh(f"{read_only(root)}; {root}/scripts/{command}")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == (
        f"error: scripts/install: the clone cannot be written to (got {root} on a read-only file system; "
        f"want a writable copy: cp -a {root} ELSEWHERE)\n"
    )


def test_a_changed_list_of_python_packages_is_noticed(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    with (root / "scripts/requirements.lock").open("a") as lock:
        lock.write("another==1.0\n")
    result = sh(f"{read_only(root)}; {root}/scripts/up two_nodes")
    assert (result.returncode, result.stdout) == (3, "")


def test_a_machine_without_tun_is_reported_with_a_remedy(sh: Shell, installed: MakeClone, tmp_path: Path) -> None:
    root = installed("clone")
    (tmp_path / "no-device").touch()
    result = sh(f"mount --bind {tmp_path}/no-device /dev/net/tun; {root}/scripts/install")
    assert result.returncode == 3
    assert result.stderr.startswith("error: scripts/install: no usable /dev/net/tun,")
    assert "modprobe tun" in result.stderr


def test_an_image_is_made_without_tun(sh: Shell, installed: MakeClone, tmp_path: Path) -> None:
    root = installed("clone")
    (tmp_path / "no-device").touch()
    result = sh(f"mount --bind {tmp_path}/no-device /dev/net/tun; {root}/scripts/install --image")
    assert (result.returncode, result.stdout) == (0, "install: everything is there\n")


def test_it_needs_root(sh: Shell, installed: MakeClone) -> None:
    root = installed("clone")
    result = sh(f"{NOBODY} {root}/scripts/install")
    assert (result.returncode, result.stderr) == (
        3,
        "error: scripts/install: must run as root (got uid 65534; want sudo scripts/install)\n",
    )


def test_an_unknown_argument_is_named(sh: Shell, installed: MakeClone) -> None:
    result = sh(f"{installed('clone')}/scripts/install --test")
    assert (result.returncode, result.stderr) == (
        2,
        "error: scripts/install: unknown argument (got --test; want --tests, --ovs, --image, --quiet or --check)\n",
    )


def read_only(root: Path) -> str:
    return f"mount --bind {root} {root}; mount -o remount,bind,ro {root}"
