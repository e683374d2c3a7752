"""Our own plain files, opened so that nothing planted in their place can redirect, block or flood the reader.

A lab's run directory belongs to root, so an ordinary user can plant nothing there. This is a second barrier, for
directories that older versions gave to the user and for anything else that goes wrong: symbolic links are not followed,
FIFOs and devices do not block, a file of another user or with a second name is not written, and reads are limited.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

MAX_BYTES = 1_000_000
"""Of a file of manifests; a cluster of 1,000 pods written by hand is a quarter of this."""
SECRET = 0o600
"""Mode of private files."""
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotPlain(OSError):
    """The path is not a plain file of ours."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        super().__init__(errno.ELOOP, what, os.fspath(path))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror} (want a plain file of our own; remove it)"


def plain(path: str | os.PathLike[str], flags: int) -> int:
    """Open a plain file; an `opener` for the built-in `open`. Raises NotPlain, and OSError as usual.

    A new file has mode 0600. An existing one is truncated only after passing every check.
    """
    wanted = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, wanted, SECRET)
    except OSError as failure:
        # ELOOP: a link; ENXIO: a FIFO without a reader, or a socket; EISDIR: opened for writing.
        if failure.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            with contextlib.suppress(FileNotFoundError):
                raise NotPlain(path, f"is {_kind(os.lstat(path).st_mode)}") from None
        raise
    try:
        if why := _why_not(os.fstat(descriptor), writing=bool(flags & (os.O_WRONLY | os.O_RDWR))):
            raise NotPlain(path, why)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        if not flags & os.O_NONBLOCK:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_plain(path: Path, limit: int) -> bytes:
    """Read a whole plain file of at most `limit` bytes. Raises NotPlain, and OSError as usual."""
    with open(path, "rb", opener=plain) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NotPlain(path, f"is larger than {limit} bytes")
    return data


def read_end(path: Path, limit: int) -> bytes:
    """Read the last `limit` bytes of a plain file, or all of it. Raises NotPlain, and OSError as usual."""
    with open(path, "rb", opener=plain) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
        return file.read(limit)


def replace_plain(path: Path, data: bytes, mode: int = SECRET) -> None:
    """Replace a file in one step, so that readers never see half of it; an existing link is replaced, not followed.

    Raises OSError, also if the path is a directory.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(draft, flags, SECRET), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    draft.replace(path)


def _why_not(status: os.stat_result, *, writing: bool) -> str:
    if not stat.S_ISREG(status.st_mode):
        return f"is {_kind(status.st_mode)}"
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {status.st_uid}"
    # Only for writing: a log being rotated has two names for a moment.
    return "has another name too (a hard link)" if writing and status.st_nlink > 1 else ""


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "not a plain file")
