"""/run/testbed/LAB is root's: the user who called sudo can plant nothing there, and what lies there all the same leads
root nowhere: no file elsewhere is written, no process but the lab's is killed, no verb waits."""

import json
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.control.client import start_ticks
from tests.e2e import host
from tests.e2e.command import TESTBED, Answer, environment_with, run_verb
from tests.e2e.lab import Lab, fresh_name
from tests.waiting import wait_until

USER, STRANGER = 65534, 65533
ROOT = Path("/run/testbed")
VERB_LIMIT_S = 30.0
HUGE = 1 << 40  # bytes; sparse
PLANTS = ("symbolic link", "dangling link", "FIFO", "directory", "hard link", "huge file")
FILES = (
    "lab.json",
    "cluster.yaml",
    "options.json",
    "hosts",
    "lab.log",
    "events.jsonl",
    "journal.jsonl",
    "faults.jsonl",
    "exercise.json",
    "soak-7.jsonl",
    "control.sock",
    "notify",
)
"""What root opens or makes in a lab's directory, by name."""
DRAFTS = (*(f".{name}.new" for name in FILES), "cluster.new")
VERBS = ("status", "get pods", "get nodes", "describe node node1", "events", "logs lab --tail 1", "commands node1")
EXTRA = """---
apiVersion: v1
kind: Pod
metadata: {name: extra}
spec: {containers: [{name: a, image: shell}]}
"""


def as_user(uid: int, *words: str) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *words)


def one_line(answer: Answer) -> bool:
    """Return whether a verb worked, or said in a line why not."""
    lines = answer.err.splitlines()
    return answer.code in (0, 1, 2, 3) and len(lines) <= 1 and all(line.startswith("error: ") for line in lines)


@pytest.fixture
def own() -> Iterator[Lab]:
    """Yield a lab as USER's `sudo testbed up` makes it."""
    lab = Lab(fresh_name("own"))
    try:
        answer = up_by_user(lab, "two_nodes")
        assert answer.code == 0, answer
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def owned() -> Iterator[Lab]:
    """Yield the same for tests that leave it as it is."""
    lab = Lab(fresh_name("owned"))
    try:
        answer = up_by_user(lab, "two_nodes")
        assert answer.code == 0, answer
        yield lab
    finally:
        lab.down()


@pytest.fixture
def bystander() -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a process of root's, which must not be harmed."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        alive = process.poll() is None
        process.kill()
        assert alive, "root's own process was killed"


@pytest.fixture
def victim() -> Iterator[Path]:
    """Yield a file of root's on the same file system, which must stay as it is."""
    directory = Path("/run") / fresh_name("elsewhere")
    directory.mkdir()
    victim = directory / "file"
    victim.write_text("root's own\n")
    before = victim.stat()
    try:
        yield victim
        assert victim.read_text() == "root's own\n"
        after = victim.stat()
        assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, before.st_uid, before.st_nlink)
        assert os.listdir(directory) == ["file"], "something was made through a link"
    finally:
        victim.unlink()
        directory.rmdir()


def up_by_user(lab: Lab, cluster: str | Path) -> Answer:
    return run_verb("up", str(cluster), "--lab", lab.name, extra={"SUDO_UID": str(USER)}, limit_s=110)


def rundir_of(lab: Lab) -> Path:
    return ROOT / lab.name


def pid_of(lab: Lab) -> int:
    return int(lab.json("status")["pid"])


def plant(kind: str, path: Path, victim: Path) -> None:
    """Put something in place of a file."""
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    if kind == "symbolic link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim.with_name("made-through-a-link"))
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "hard link":
        path.hardlink_to(victim)
    else:
        path.touch()
        os.truncate(path, HUGE)


PLANT_EVERYTHING = """
import contextlib, os, sys
rundir, victim, names = sys.argv[1], sys.argv[2], sys.argv[3:]
os.chdir(rundir)
own = "/tmp/" + os.path.basename(rundir) + "-own"
with contextlib.suppress(FileExistsError):
    os.mkdir(own)
open(own + "/file", "w").close()
done = []
def attempt(what, work):
    try:
        work()
    except OSError:
        return
    done.append(what)
for name in names:
    attempt("link " + name, lambda: os.symlink(victim, name))
    attempt("fifo " + name, lambda: os.mkfifo(name))
    attempt("mkdir " + name, lambda: os.mkdir(name))
    attempt("hard link " + name, lambda: os.link(own + "/file", name))
    attempt("create " + name, lambda: os.close(os.open(name, os.O_WRONLY | os.O_CREAT)))
    attempt("move over " + name, lambda: os.rename(own + "/file", name))
    attempt("move away " + name, lambda: os.rename(name, own + "/taken"))
    if name != "control.sock":
        attempt("chmod " + name, lambda: os.chmod(name, 0o777))
        attempt("write " + name, lambda: open(name, "r+").close())
    if name not in ("lab.json", "hosts"):
        attempt("read " + name, lambda: open(name).close())
    attempt("remove " + name, lambda: os.remove(name))
attempt("list", lambda: os.listdir("."))
attempt("chmod", lambda: os.chmod(rundir, 0o777))
attempt("rename the directory", lambda: os.rename(rundir, rundir + "-moved"))
attempt("beside", lambda: os.mkdir(rundir + "-beside"))
attempt("lock", lambda: os.mkfifo(os.path.dirname(rundir) + "/." + os.path.basename(rundir) + ".lock"))
os.remove(own + "/file")
os.rmdir(own)
print("\\n".join(done))
"""


@pytest.mark.parametrize("uid", [USER, STRANGER])
def test_users_can_plant_read_and_take_nothing_in_a_labs_directory(uid: int, owned: Lab, victim: Path) -> None:
    rundir = rundir_of(owned)
    before = {path.name: (path.lstat().st_ino, path.lstat().st_mode) for path in rundir.iterdir()}
    names = sorted({*FILES, *DRAFTS, *before})
    done = subprocess.run(
        as_user(uid, sys.executable, "-c", PLANT_EVERYTHING, str(rundir), str(victim), *names),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split("\n") == ["", ""]
    assert {path.name: (path.lstat().st_ino, path.lstat().st_mode) for path in rundir.iterdir()} == before


def test_the_directory_is_roots_and_the_control_socket_is_the_users(owned: Lab) -> None:
    def of(path: Path) -> tuple[int, int]:
        return path.lstat().st_uid, stat.S_IMODE(path.lstat().st_mode)

    rundir = rundir_of(owned)
    assert of(ROOT) == (0, 0o755)
    assert of(rundir) == (0, 0o711)
    assert of(rundir / "control.sock") == (USER, 0o600)
    owners = {path for path in rundir.rglob("*") if path.lstat().st_uid == USER}
    assert owners == {rundir / "control.sock"}
    for_others = {path.name for path in rundir.iterdir() if of(path)[1] & 0o077}
    assert for_others == {"lab.json", "hosts"}
    assert set(json.loads((rundir / "lab.json").read_text())) == {"pid", "start_ticks", "owner", "protocol"}


@pytest.mark.parametrize(
    "verb", [*VERBS, "ping shell1 shell2", "graph -o json", "get leases", "fault list", "check", "status -o json"]
)
def test_the_user_may_look_without_sudo_although_the_files_are_roots(verb: str, owned: Lab) -> None:
    answer = owned.testbed(*verb.split(), prefix=as_user(USER))
    by_root = owned.testbed(*verb.split())
    assert (answer.code, answer.err) == (by_root.code, by_root.err), answer
    assert answer.out


def test_another_user_is_refused_in_a_line_and_does_not_find_the_lab_by_chance(owned: Lab) -> None:
    for words in (("status",), ("down",), ("logs", "lab")):
        answer = owned.testbed(*words, prefix=as_user(STRANGER))
        assert answer.code == 3, answer
        assert one_line(answer)
    answer = run_verb("status", prefix=as_user(STRANGER))
    assert answer.code == 3
    assert owned.name in answer.err


@pytest.mark.timeout(400)  # thirty verbs, one after the other, beside a lab
@pytest.mark.parametrize("kind", PLANTS)
def test_a_planted_file_of_any_kind_neither_misleads_root_nor_blocks_a_verb(
    kind: str, own: Lab, victim: Path, bystander: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    """As if the first fence were down: root itself puts it there."""
    rundir, pid = rundir_of(own), pid_of(own)
    keep = {"lab.json", "control.sock"}
    for name in (*(set(FILES) - keep), *DRAFTS, *(f"logs/{log}" for log in os.listdir(rundir / "logs"))):
        plant(kind, rundir / name, victim)
    changed = tmp_path / "changed.yaml"
    changed.write_text((Path(__file__).parents[2] / "topologies" / "two_nodes.yaml").read_text() + EXTRA)
    verbs = [
        *(verb.split() for verb in VERBS),
        ["up", str(changed), "--lab", own.name],
        ["apply", "-f", "-"],
        ["fault", "agent", "stop", "node1"],
        # The agent cannot write its log, so nothing gets ready: what is asked is that the verb ends.
        ["fault", "heal", "--timeout", "3"],
        ["exec", "shell1", "--", "true"],
        ["soak", "--minutes", "0.1", "--seed", "7"],
        ["logs", "node1", "--tail", "1"],
        ["etcdctl", "--", "version"],
        ["check"],
    ]
    for words in verbs:
        answer = run_verb(*words, stdin=EXTRA, extra=own.environment, limit_s=VERB_LIMIT_S)
        assert one_line(answer), answer
    for name in keep:
        plant(kind, rundir / name, victim)
    for words in (*(verb.split() for verb in VERBS), ["up", "two_nodes", "--lab", own.name]):
        answer = run_verb(*words, extra=own.environment, limit_s=VERB_LIMIT_S)
        assert answer.code != 0, answer
        assert one_line(answer), answer
    assert start_ticks(pid) is not None
    answer = own.down()
    assert answer.code == 0, answer
    assert answer.out == f"lab {own.name} is down\n"
    assert start_ticks(pid) is None
    assert not rundir.exists()


def forged(record: Path, pid: int) -> None:
    """Name another process, as the user could who owns the directory."""
    facts = json.loads(record.read_text())
    record.unlink()
    record.write_text(json.dumps({**facts, "pid": pid, "start_ticks": start_ticks(pid)}))
    os.chown(record, USER, USER)


def given_to_the_user(rundir: Path) -> None:
    """Give it to the user, as older versions made it."""
    os.chown(rundir, USER, USER)
    rundir.chmod(0o700)


@pytest.mark.parametrize("of", ["root's own process", "another lab"])
def test_a_labs_directory_that_is_a_users_is_believed_in_nothing_and_down_takes_the_lab_down(
    of: str, own: Lab, two_nodes: Lab, victim: Path, bystander: "subprocess.Popen[bytes]"
) -> None:
    rundir, pid, others = rundir_of(own), pid_of(own), pid_of(two_nodes)
    given_to_the_user(rundir)
    forged(rundir / "lab.json", bystander.pid if of == "root's own process" else others)
    plant("symbolic link", rundir / "cluster.new", victim)
    plant("FIFO", rundir / "options.json", victim)
    for words in (["status"], ["exec", "node1", "--", "true"], ["up", "two_nodes", "--lab", own.name], ["logs", "lab"]):
        answer = run_verb(*words, extra=own.environment, limit_s=VERB_LIMIT_S)
        assert answer.code == 1, answer
        assert one_line(answer)
        assert f"belongs to uid {USER}" in answer.err
        assert f"sudo testbed down --lab {own.name}" in answer.err
    assert own.down().out == f"lab {own.name} is down\n"
    assert start_ticks(pid) is None
    assert not rundir.exists()
    assert start_ticks(others) is not None
    assert own.up("two_nodes").code == 0


def test_remains_of_a_users_dead_lab_are_removed_by_the_next_up(own: Lab, no_lab: Lab, victim: Path) -> None:
    rundir, pid = rundir_of(own), pid_of(own)
    given_to_the_user(rundir)
    os.kill(pid, 9)
    wait_until(lambda: start_ticks(pid) is None, timeout_s=30, what="the lab has ended")
    for number, kind in enumerate(PLANTS):
        plant(kind, rundir / f"plant-{number}", victim)
    answer = no_lab.up("two_nodes")
    assert answer.code == 0, answer
    assert not rundir.exists()


def test_a_lab_whose_directory_was_removed_by_hand_still_goes_down(own: Lab) -> None:
    pid = pid_of(own)
    subprocess.run(["rm", "-rf", str(rundir_of(own))], check=True)
    assert start_ticks(pid) is not None
    answer = own.down()
    assert answer.out == f"lab {own.name} is down\n", answer
    assert start_ticks(pid) is None


def test_down_from_inside_the_lab_is_refused_and_keeps_it_whole(own: Lab) -> None:
    answer = own.testbed("shell", stdin=f"{' '.join(TESTBED)} down --lab {own.name}; echo code $?\n")
    assert "cannot be taken down from inside" in answer.err, answer
    assert answer.out == "code 1\n"
    assert rundir_of(own).exists()
    assert own.json("status")["state"] == "ready"


@pytest.mark.parametrize("name", ["../elsewhere", "..", ".", "", "/etc", "a/b", "x" * 300, "-x", ".lock", "a\nb"])
def test_a_lab_name_that_is_a_path_reaches_nothing(name: str, victim: Path) -> None:
    before = sorted(os.listdir(victim.parent.parent))
    for words in (("up", "two_nodes"), ("status",), ("down",), ("logs", "lab")):
        if name == "":
            continue
        for extra in ({"TESTBED_LAB": name}, {}):
            given = () if extra else (f"--lab={name}",)
            answer = run_verb(*words, *given, extra=extra, limit_s=VERB_LIMIT_S, prefix=ON_A_HOST_OF_ITS_OWN)
            assert answer.code in ((0,) if words == ("down",) else (1, 2)), answer
            assert "Traceback" not in answer.err
    assert sorted(os.listdir(victim.parent.parent)) == before


ON_A_HOST_OF_ITS_OWN = ("unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")
ODD_ROOTS: Mapping[str, str] = {
    "link": "mkdir /run/elsewhere && ln -s elsewhere /run/testbed",
    "dangling link": "ln -s elsewhere /run/testbed",
    "user's": f"mkdir /run/testbed && chown {USER} /run/testbed",
    "open": "mkdir -m 1777 /run/testbed && touch /run/testbed/planted",
    "a file": "touch /run/testbed",
    "FIFO": "mkfifo /run/testbed",
}


@pytest.mark.parametrize("kind", ODD_ROOTS)
def test_a_directory_of_labs_that_others_could_have_filled_is_refused_in_a_line(kind: str) -> None:
    script = (
        f'mount -t tmpfs none /run && {ODD_ROOTS[kind]} && "$@"; code=$?; ls -A /run/elsewhere 2>/dev/null; exit $code'
    )
    for words in (["up", "two_nodes"], ["status"], ["down", "--all"], ["get", "pods"]):
        answer = run_verb(*words, prefix=("unshare", "--mount", "--", "sh", "-c", script, "sh"), limit_s=VERB_LIMIT_S)
        assert answer.code == 3, answer
        assert one_line(answer), answer
        assert answer.err.startswith("error: /run/testbed: ")
        assert answer.out == "", "something was made through the link"


def test_of_two_simultaneous_up_one_brings_the_lab_up_and_the_other_reports_that(no_lab: Lab) -> None:
    command = [*TESTBED, "up", "two_nodes", "--lab", no_lab.name]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment_with({}))
        for _ in range(3)
    ]
    said = [process.communicate(timeout=110) for process in started]
    codes = sorted(process.returncode for process in started)
    # One that begins only when the lab is ready shows it.
    assert codes in ([0, 1, 1], [0, 0, 1], [0, 0, 0]), said
    assert sum("is ready after" in shown for shown, _ in said) == 1, said
    for (_, complaint), process in zip(said, started, strict=True):
        if process.returncode:
            assert complaint.startswith(f"error: lab {no_lab.name}: another `up` is starting it"), complaint
            assert len(complaint.splitlines()) == 1
    assert no_lab.json("status")["state"] == "ready"
    assert sorted(path.name for path in ROOT.iterdir() if no_lab.name in path.name) == [no_lab.name]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_up_and_down_at_once_leave_a_complete_lab_or_nothing(seed: int, no_lab: Lab) -> None:
    chance = random.Random(seed)
    command = [*TESTBED, "up", "two_nodes", "--lab", no_lab.name]
    said = []
    for _ in range(4):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment_with({})
        ) as starting:
            time.sleep(chance.uniform(0.1, 2.5))  # the moment is what is tried
            down = no_lab.down()
            said += [starting.communicate(timeout=110)[1], down.err]
            assert down.code == 0, down
            assert starting.returncode in (0, 1), said
    assert "Traceback" not in "".join(said)
    answer = no_lab.up("two_nodes")
    assert answer.code == 0, answer
    assert ", 0 lost" in no_lab.must("ping")
    seen = host.footprint(pid_of(no_lab))
    assert no_lab.down().code == 0
    # Its processes only: on a busy machine a lab that starts beside it may have got a number of its namespaces.
    assert [what for what in seen.remains() if " has " not in what] == []
    wait_until(
        lambda: not [path for path in ROOT.iterdir() if no_lab.name in path.name],
        timeout_s=5,
        what="no directory and no lock of the lab is left",
    )
