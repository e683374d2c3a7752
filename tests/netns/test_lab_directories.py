"""The directories of labs, as root meets them: whoever owns them, and whatever a user has put into one."""

import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.command import lab_commands
from testbed.command.command_line import verbs
from testbed.control import client
from testbed.control.client import read_record, start_ticks
from testbed.control.options import LabOptions
from testbed.errors import TestbedError
from testbed.host import lab_directories, lab_process, removal
from testbed.host.lab_directories import Busy, locked, prepare, remove_directory, starting
from testbed.places import PAUSE
from tests.waiting import wait_until

pytestmark = pytest.mark.root

USER = 64321
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
DEEP = 1500
"""More directories in each other than a process may have files open."""
LAB = "rundir"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of labs in place of /run/testbed, which ordinary users reach."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    root = tmp_path / "testbed"
    for module in (client, lab_directories):
        monkeypatch.setattr(module, "RUN_ROOT", root)
    monkeypatch.setattr(removal, "put_the_host_back", lambda: None)
    assert lab_commands.down.name in verbs.commands
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    for name in ("SUDO_UID", "TESTBED_LAB"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory of root's with a file, which must stay as it is."""
    victim = tmp_path / "elsewhere"
    victim.mkdir()
    (victim / "file").write_text("root's\n")
    before = (victim / "file").stat()
    yield victim
    after = (victim / "file").stat()
    assert (victim / "file").read_text() == "root's\n"
    assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, before.st_uid, before.st_nlink)
    assert os.listdir(victim) == ["file"]


def made(root: Path, name: str = LAB) -> Path:
    """Return a lab's directory as `up` makes it."""
    with starting(root, name):
        return prepare(root, LabOptions(name=name, cluster_file="test"), "kind: Cluster\n", "127.0.0.1 localhost\n")


def given_to_the_user(rundir: Path) -> None:
    """Give it to the user, as older versions left it."""
    os.chown(rundir, USER, USER)
    rundir.chmod(0o700)


def as_user(script: str, *words: str, cwd: Path) -> None:
    subprocess.run([*AS_USER, sys.executable, "-c", script, *words], cwd=cwd, check=True, timeout=100)


class Init:
    """A first process of a PID namespace of its own, with the command line of a lab's."""

    def __init__(self, rundir: Path, before: str = ":") -> None:
        """`before`: a script that runs first, in a mount namespace of its own."""
        self._lifeline, self._other = os.pipe()
        words = ["--", "sh", "-c", "exec sleep 300", "-m", lab_process.SUPERVISOR, str(rundir), "8"]
        first = ["sh", "-ec", f'{before}; exec "$@"', "sh", str(PAUSE), "--init", str(self._lifeline), *words]
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", *first], pass_fds=[self._lifeline]
        )
        self.pid = wait_until(self._child, timeout_s=30, what="PID 1 of the namespace")
        wait_until(lambda: lab_process.is_init_of(self.pid, rundir), timeout_s=30, what="it is a lab's")

    def _child(self) -> int:
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(listed[0]) if listed else 0

    def alive(self) -> bool:
        """Return whether it runs."""
        return start_ticks(self.pid) is not None

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self._lifeline)
        os.close(self._other)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def init_of(rundir: Path, undo: ExitStack, before: str = ":") -> Init:
    init = Init(rundir, before)
    undo.callback(init.close)
    return init


def recorded(rundir: Path, pid: int, ticks: int | None = None) -> None:
    ticks = start_ticks(pid) if ticks is None else ticks
    (rundir / "lab.json").write_text(json.dumps({"pid": pid, "start_ticks": ticks, "owner": 0}))


def test_a_labs_directory_is_roots_and_only_lab_json_and_hosts_are_for_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", str(USER))
    before = os.umask(0o077)
    try:
        rundir = made(root)
    finally:
        os.umask(before)
    found = {path.name: (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in (root, rundir)}
    assert found == {"testbed": (0, 0o755), LAB: (0, 0o711)}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in rundir.iterdir()}
    assert modes == {"cluster.yaml": 0o600, "options.json": 0o600, "hosts": 0o644, "logs": 0o700}
    assert json.loads((rundir / "options.json").read_text())["owner_uid"] == USER


@pytest.mark.parametrize("uid", ["me", "-1", "1 ", "0x10", "4294967295", "²", "9" * 5000])
def test_a_user_id_that_is_none_is_refused_before_anything_is_made(
    uid: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", uid)
    with pytest.raises(TestbedError, match=f"SUDO_UID: not a user id .got {uid[:50]}") as raised:
        made(root)
    assert raised.value.exit_code == 3
    assert os.listdir(root) == []


@pytest.mark.parametrize("kind", ["symbolic link", "user's", "writable", "file", "dangling"])
def test_a_directory_of_labs_that_others_could_have_filled_is_refused_in_a_line(kind: str, root: Path) -> None:
    said = {
        "symbolic link": "is a symbolic link",
        "dangling": "is a symbolic link",
        "user's": f"belongs to uid {USER}",
        "writable": "can be written by others .mode 1777.",
        "file": "is not a directory",
    }[kind]
    if kind in ("symbolic link", "dangling"):
        root.symlink_to("elsewhere")
    if kind == "symbolic link":
        root.with_name("elsewhere").mkdir()
    if kind == "file":
        root.touch()
    if kind in ("user's", "writable"):
        root.mkdir()
        os.chown(root, USER if kind == "user's" else 0, -1)
        root.chmod(0o755 if kind == "user's" else 0o1777)
        (root / "planted").touch()
    for attempt in (lambda: made(root), client.running_labs, removal.labs_to_end, removal.remove_leftovers):
        with pytest.raises(TestbedError, match=f"^{root}: {said} ") as raised:
            attempt()
        assert raised.value.exit_code == 3
    assert not root.with_name("elsewhere").exists() or os.listdir(root.with_name("elsewhere")) == []


def test_an_empty_directory_that_others_could_fill_is_closed_before_it_is_used(root: Path) -> None:
    """A tmpfs that somebody mounts on it has mode 1777."""
    root.mkdir()
    root.chmod(0o1777)
    rundir = made(root)
    assert (stat.S_IMODE(root.stat().st_mode), root.stat().st_uid) == (0o755, 0)
    assert rundir.is_dir()


def test_a_record_is_believed_only_where_nobody_else_can_write_one(root: Path) -> None:
    rundir = made(root)
    recorded(rundir, os.getpid())
    assert read_record(rundir) is not None
    for mode in (0o733, 0o1777, 0o770):
        rundir.chmod(mode)
        assert read_record(rundir) is None
    rundir.chmod(0o711)
    os.chown(rundir / "lab.json", USER, -1)
    assert read_record(rundir) is None
    os.chown(rundir / "lab.json", 0, -1)
    assert read_record(rundir) is not None
    os.chown(rundir, USER, -1)
    assert read_record(rundir) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "7",
        "{}",
        '{"pid": 1, "start_ticks": 2',
        '{"pid": "1", "start_ticks": 2, "owner": 0}',
        '{"pid": "self/../1", "start_ticks": 2, "owner": 0}',
        '{"pid": true, "start_ticks": 2, "owner": 0}',
        '{"pid": 1.5, "start_ticks": 2, "owner": 0}',
        '{"pid": 1, "start_ticks": 2, "owner": null}',
        "[" * 4000,
        "\xff\xfe",
        " " * 5000,
    ],
)
def test_an_invalid_record_causes_no_traceback(text: str, root: Path) -> None:
    rundir = made(root)
    (rundir / "lab.json").write_bytes(text.encode("latin-1"))
    assert read_record(rundir) is None
    assert client.running_labs() == []


PLANT_IN = """
import os, sys
victim, deep = sys.argv[1], int(sys.argv[2])
os.symlink(victim, "link")
os.symlink(victim + "/file", "linked-file")
os.mkfifo("fifo")
os.mkdir("closed", 0)
os.symlink("/", "root")
os.mkdir("logs-too")
with open("huge", "w") as file:
    os.truncate("huge", 1 << 40)
os.mkdir("deep")
os.chdir("deep")
for _ in range(deep):
    os.mkdir("d")
    os.chdir("d")
os.symlink(victim, "link")
os.mkfifo("fifo")
"""


def test_whatever_a_user_put_into_a_dead_labs_directory_goes_and_nothing_else(root: Path, victim: Path) -> None:
    rundir = made(root, "dead")
    given_to_the_user(rundir)
    as_user(PLANT_IN, str(victim), str(DEEP), cwd=rundir)
    (rundir / "hard").hardlink_to(victim / "file")
    recorded(rundir, 1 << 22, 1)
    assert removal.remove_leftovers() == {"dead": ""}
    assert os.listdir(root) == []


def test_a_user_who_goes_on_planting_files_cannot_keep_root_busy(root: Path, victim: Path, undo: ExitStack) -> None:
    rundir = made(root, "dead")
    given_to_the_user(rundir)
    plant = """
import contextlib, itertools, os, sys
os.mkdir("inside")
print("ready", flush=True)
for number in itertools.count():
    for make in (os.mkdir, os.mkfifo, lambda name: os.symlink(sys.argv[1], name)):
        for place in ("", "inside/"):
            with contextlib.suppress(OSError):
                make(f"{place}{number}-{make.__name__}")
"""
    planting = subprocess.Popen(
        [*AS_USER, sys.executable, "-c", plant, str(victim)], cwd=rundir, stdout=subprocess.PIPE
    )
    undo.enter_context(planting)
    undo.callback(planting.kill)
    assert planting.stdout is not None
    assert planting.stdout.readline() == b"ready\n"
    # It may win the race for a directory of its own; a line says so, and then there is nothing more to win.
    with contextlib.suppress(TestbedError):
        remove_directory(rundir)
    assert rundir.parent.stat().st_uid == 0
    assert not rundir.exists() or (rundir.stat().st_uid, rundir.stat().st_mode & 0o777) == (0, 0o700)
    planting.kill()
    planting.wait()
    remove_directory(rundir)
    assert not rundir.exists()


REMOVE_WITH_A_MOUNT = """
import subprocess, sys
from pathlib import Path
from testbed.errors import TestbedError
from testbed.host.lab_directories import remove_directory
directory = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "none", directory / "mounted"], check=True)
(directory / "mounted" / "file").touch()
try:
    remove_directory(directory)
except TestbedError as failure:
    print(failure)
print((directory / "mounted" / "file").exists())
"""


def test_a_file_system_mounted_below_is_not_emptied_but_reported(tmp_path: Path) -> None:
    directory = tmp_path / "dead"
    (directory / "mounted").mkdir(parents=True)
    (directory / "file").touch()
    words = ["unshare", "--mount", sys.executable, "-c", REMOVE_WITH_A_MOUNT, str(directory)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    said, stays = done.stdout.splitlines()
    assert said.startswith(f"{directory}: cannot be removed completely (")
    assert stays == "True"
    assert os.listdir(directory) == ["mounted"]


def test_down_of_all_goes_on_when_one_stays_and_says_which(root: Path, undo: ExitStack) -> None:
    first, second = made(root, "first"), made(root, "second")
    inits = [init_of(first, undo), init_of(second, undo)]
    for rundir, init in zip((first, second), inits, strict=True):
        recorded(rundir, init.pid)
    with locked(root, "first"):
        # Another process has the directory of the first: its lab goes down, the directory stays for that process.
        done = CliRunner().invoke(verbs, ["down", "--all"], standalone_mode=False)
    assert done.output == "lab first is down\nlab second is down\n"
    assert not any(init.alive() for init in inits)
    assert os.listdir(root) == ["first"]


def test_a_link_or_a_file_in_place_of_a_labs_directory_is_replaced(root: Path, victim: Path) -> None:
    root.mkdir()
    (root / LAB).symlink_to(victim)
    assert made(root).is_dir()
    assert not (root / LAB).is_symlink()
    remove_directory(root / LAB)
    (root / LAB).write_text("a file")
    assert made(root).is_dir()


def test_a_running_lab_keeps_its_directory_whatever_its_record_contains(root: Path, undo: ExitStack) -> None:
    rundir = made(root)
    init = init_of(rundir, undo)
    for text in ("", json.dumps({"pid": 1 << 22, "start_ticks": 1, "owner": 0})):
        (rundir / "lab.json").write_text(text)
        assert removal.remove_leftovers() == {}
        with pytest.raises(TestbedError, match=f"lab {LAB}: .*take the lab down"):
            made(root)
    assert init.alive()
    assert (rundir / "cluster.yaml").exists()


@pytest.mark.parametrize("forged", ["another process", "another lab", "no record", "a link"])
def test_down_ends_the_lab_and_no_other_process_whatever_a_user_wrote(
    forged: str, root: Path, undo: ExitStack, tmp_path: Path
) -> None:
    rundir, other = made(root), made(root, "other")
    init, others = init_of(rundir, undo), init_of(other, undo)
    recorded(other, others.pid)
    roots_own = subprocess.Popen(["sleep", "300"])
    undo.callback(roots_own.wait)
    undo.callback(roots_own.kill)
    given_to_the_user(rundir)
    if forged == "a link":
        recorded(tmp_path, roots_own.pid)
        (rundir / "lab.json").symlink_to(tmp_path / "lab.json")
    elif forged != "no record":
        recorded(rundir, roots_own.pid if forged == "another process" else others.pid)
    assert client.running_labs() == [read_record(other)], "what it says is not even looked at"
    (mine,) = [lab for lab in removal.labs_to_end() if lab.name == LAB]
    assert mine.pids == (init.pid,)
    removal.take_down(mine)
    assert not init.alive()
    assert not rundir.exists()
    assert roots_own.poll() is None
    assert others.alive()
    assert other.exists()


@pytest.mark.parametrize("before", ["mount -t tmpfs none {root} && mkdir {rundir}", "mount -t tmpfs none {root}"])
def test_a_lab_of_another_mount_namespace_with_the_same_path_is_not_ours(
    before: str, root: Path, undo: ExitStack
) -> None:
    """As in a container that shares the machine's process ids."""
    rundir = made(root)
    others = init_of(rundir, undo, before.format(root=root, rundir=rundir))
    assert removal.labs_to_end() == []
    assert lab_process.any_lab_runs(), "but it is one"
    assert removal.remove_leftovers() == {LAB: ""}
    assert others.alive()


def test_a_record_with_another_labs_process_ends_nothing(root: Path, undo: ExitStack) -> None:
    """Root's own record, wrong all the same, as after a restored backup."""
    rundir, other = made(root), made(root, "other")
    others = init_of(other, undo)
    recorded(rundir, others.pid)
    record = read_record(rundir)
    assert record is not None
    assert record.alive
    with pytest.raises(TestbedError, match="is not its first process, so it was not killed"):
        removal.remove(record)
    assert others.alive()
    assert rundir.exists()


def test_two_that_start_the_same_lab_do_not_meet(root: Path) -> None:
    with starting(root, LAB), pytest.raises(Busy, match=f"lab {LAB}: another `up` is starting it"), starting(root, LAB):
        pass
    with starting(root, LAB), starting(root, "other"):
        pass
    assert os.listdir(root) == []


def test_cleanup_does_not_remove_a_lab_that_another_process_starts(root: Path) -> None:
    rundir = made(root)
    with starting(root, LAB):
        assert removal.remove_leftovers() == {}
        assert rundir.exists()
    assert removal.remove_leftovers() == {LAB: ""}


def test_a_lock_that_a_killed_up_left_blocks_nothing_and_goes(root: Path) -> None:
    root.mkdir()
    (root / f".{LAB}.lock").touch(0o600)
    (root / ".long-gone.lock").touch(0o600)
    rundir = made(root)
    assert rundir.exists()
    removal.remove_leftovers()
    assert os.listdir(root) == []


@pytest.mark.parametrize("plant", ["symbolic link", "FIFO", "directory", "hard link"])
def test_a_lock_that_is_no_plain_file_is_refused_in_a_line(plant: str, root: Path, victim: Path) -> None:
    root.mkdir()
    lock = root / f".{LAB}.lock"
    if plant == "symbolic link":
        lock.symlink_to(victim / "new")
    elif plant == "FIFO":
        os.mkfifo(lock)
    elif plant == "directory":
        lock.mkdir()
    else:
        lock.hardlink_to(victim / "file")
    with pytest.raises(TestbedError, match=f"lab {LAB}: its lock: "):
        made(root)
    removal.remove_leftovers()
    lock.rmdir() if plant == "directory" else lock.unlink()


def test_an_unrelated_directory_among_the_labs_is_kept(root: Path) -> None:
    root.mkdir()
    (root / "notes").mkdir()
    (root / "notes" / "file").touch()
    assert removal.remove_leftovers() == {}
    assert (root / "notes" / "file").exists()


def test_a_lock_has_one_holder_however_many_try(root: Path) -> None:
    root.mkdir()
    counter = root / "counter"
    counter.write_text("0")
    add = """
import sys
from pathlib import Path
from testbed.host.lab_directories import locked
counter = Path(sys.argv[1])
for _ in range(50):
    with locked(counter.parent, "rundir", 30.0):
        number = int(counter.read_text())
        counter.write_text(str(number + 1))
"""
    racing = [subprocess.Popen([sys.executable, "-c", add, str(counter)]) for _ in range(4)]
    assert [process.wait(100) for process in racing] == [0, 0, 0, 0]
    assert counter.read_text() == "200"
    with locked(root, LAB):
        pass
    assert os.listdir(root) == ["counter"]


def test_a_lab_that_one_down_ends_is_no_lab_that_had_died_to_another(
    root: Path, undo: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    rundir = made(root)
    init = init_of(rundir, undo)
    reported = []

    def killed_while_another_looks(pid: int, rundir: Path, limit_s: float) -> bool:
        ended = lab_process.end(pid, rundir, limit_s)
        reported.append(removal.remove_leftovers())
        return ended

    monkeypatch.setattr(removal, "end", killed_while_another_looks)
    removal.take_down(removal.RunningLab(rundir, (init.pid,)))
    assert reported == [{}]
    assert not rundir.exists()
