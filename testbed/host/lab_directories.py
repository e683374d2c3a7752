"""The directories of labs on the host: created, locked while a lab starts or is removed, deleted.

A lab of root is in /run/testbed/LAB. Both directories belong to root, and only root can write there; the lab's user
owns only the control socket in it. Without root they are in the user's own runtime directory.
"""

import contextlib
import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from testbed.cluster.problems import shorten
from testbed.control.client import CLUSTER_FILE, LAB_FILE, RUN_ROOT, check_root, doubt, doubtful_lab
from testbed.control.options import OPTIONS_FILE, LabOptions
from testbed.errors import TestbedError, WrongEnvironment
from testbed.host.lab_process import inits_of
from testbed.plain_files import plain, replace_plain

SEARCHABLE = 0o711
"""Mode of a lab's directory: files can be opened by a known name, like lab.json and the control socket,
but not listed.
"""
READABLE = 0o644
LOCK_PATIENCE_S = 0.5
"""Longer than removing a directory takes."""
LOCK_POLL_S = 0.02
REMOVE_LIMIT_S = 60.0
HIGHEST_UID = 2**32 - 2


class Busy(TestbedError):
    """Another process is starting or removing the lab."""


@contextlib.contextmanager
def starting(root: Path, name: str) -> Iterator[None]:
    """Hold the right to start the lab `name` in `root`. Raises Busy, and TestbedError (environment)."""
    try:
        _make_root(root)
    except OSError as failure:
        raise WrongEnvironment(
            f"{root}: cannot be made (got {failure.strerror}; want a directory for labs)"
        ) from failure
    with locked(root, name):
        yield


@contextlib.contextmanager
def locked(root: Path, name: str, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """Hold the lock of the lab `name`; a process that ends releases it. Raises Busy if another holds it that long."""
    path = root / f".{name}.lock"
    try:
        lock = _lock(path, time.monotonic() + patience_s)
    except OSError as failure:
        want = "want a directory that can be written"
        raise WrongEnvironment(f"lab {name}: its lock: {path} (got {failure.strerror}; {want})") from failure
    if lock is None:
        raise Busy(f"lab {name}: another `up` is starting it (want: wait for that one)")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def prepare(root: Path, options: LabOptions, cluster_text: str, hosts: str) -> Path:
    """Create the lab's run directory with everything that its init reads. Remove a dead lab's leftovers first.

    Raises TestbedError, with nothing removed when a lab still runs there.
    """
    rundir = root / options.name
    if os.path.lexists(rundir):
        if inits_of(rundir):
            why = doubt(rundir) or f"has no {LAB_FILE} with its process"
            raise TestbedError(doubtful_lab(options.name, why))
        remove_directory(rundir)
    # In the user namespace of a rootless lab the user is its root.
    owner = sudo_user() if os.geteuid() == 0 else 0
    try:
        rundir.mkdir(mode=0o700)
        (rundir / "logs").mkdir(mode=0o700)
        replace_plain(rundir / CLUSTER_FILE, cluster_text.encode())
        replace(options, owner_uid=owner).write(rundir)
        # /etc/hosts of every node, where any user reads it.
        replace_plain(rundir / "hosts", hosts.encode(), READABLE)
        if root == RUN_ROOT:
            rundir.chmod(SEARCHABLE)
    except OSError as failure:
        raise WrongEnvironment(
            f"{rundir}: cannot be made (got {failure.strerror}; want room and rights there)"
        ) from failure
    return rundir


def sudo_user() -> int:
    """Return the user id of the caller of sudo, 0 without it. Raises TestbedError (environment) if it is invalid."""
    return _id_of("SUDO_UID", "user")


def sudo_group() -> int:
    """Return the group id of the caller of sudo, as `sudo_user` does."""
    return _id_of("SUDO_GID", "group")


def give_to_sudo_user(*paths: Path) -> None:
    """Give files that root created to the caller of sudo, if any. Raises TestbedError as `sudo_user` does."""
    owner, group = sudo_user(), sudo_group()
    if owner == 0 or os.geteuid() != 0:
        return
    for path in paths:
        with contextlib.suppress(OSError):
            os.chown(path, owner, group, follow_symlinks=False)


def _id_of(variable: str, kind: str) -> int:
    given = os.environ.get(variable) or "0"
    digits = given if given.isascii() and given.isdecimal() and len(given) <= len(str(HIGHEST_UID)) else ""
    if not digits or int(digits) > HIGHEST_UID:
        raise WrongEnvironment(f"{variable}: not a {kind} id (got {shorten(given)}; want a number, as sudo sets it)")
    return int(digits)


def is_a_labs(rundir: Path) -> bool:
    """Report whether `prepare` created a directory, now or in an older testbed."""
    return any(os.path.lexists(rundir / name) for name in (OPTIONS_FILE, LAB_FILE))


def remove_directory(directory: Path) -> None:
    """Remove a directory with everything in it, whatever its owner.

    Raises TestbedError if something stays. Nothing outside is touched: links are removed, not followed, and mounted
    file systems stay.
    """
    try:
        _take_from_its_user(directory)
        # rm descends by descriptors, without following links or blocking, at any depth.
        command = ["rm", "-rf", "--one-file-system", "--", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=REMOVE_LIMIT_S, check=False)
    except FileNotFoundError:
        return
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise TestbedError(f"{directory}: cannot be removed ({failure})") from failure
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise TestbedError(f"{directory}: cannot be removed completely ({said})")


def _take_from_its_user(directory: Path) -> None:
    """Make it ours alone before it is emptied, so that nothing new appears meanwhile."""
    if directory.is_symlink() or not directory.is_dir():
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            os.fchown(descriptor, os.geteuid(), -1)
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def close_empty_root(root: Path) -> None:
    """Let only root write into an empty directory of root's, such as a new tmpfs.

    It has no files that another user could have put there. Anything that is not an empty directory stays for
    `check_root` to refuse. Raises FileNotFoundError.
    """
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EACCES):
            return
        raise
    try:
        status = os.fstat(descriptor)
        if os.geteuid() == 0 == status.st_uid and status.st_mode & 0o022 and not os.listdir(descriptor):
            os.fchmod(descriptor, 0o755)
            if os.listdir(descriptor):
                # Filled between the two checks: as doubtful as before.
                os.fchmod(descriptor, status.st_mode & 0o7777)
    finally:
        os.close(descriptor)


def _make_root(root: Path) -> None:
    try:
        close_empty_root(root)
        check_root(root)
    except FileNotFoundError:
        root.mkdir(parents=True, exist_ok=True, mode=0o755)
        check_root(root)
    # A strict umask would hide labs from their users.
    if root == RUN_ROOT and root.stat().st_mode & 0o055 != 0o055:
        root.chmod(0o755)


def _lock(path: Path, deadline: float) -> int | None:
    """Return a descriptor that holds the lock; None if another holds it until the deadline."""
    while True:
        descriptor = plain(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it since we opened it.
            if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            return None
        time.sleep(LOCK_POLL_S)
