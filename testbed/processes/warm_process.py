"""A process that has imported others' modules, and forks one of them for each request: the part that all kinds share.

A new interpreter that imports an agent costs half a second of processor time and 30 MB; a fork of a warm one costs some
milliseconds, and shares all unchanged pages with the others. A message on the socket is

    → {"words": [command line], "environment": {…}}   beside it descriptors: a socket, the log, then others
    ← {"pid": number}   or   {"errno": number, "error": text}

The fork begins when it reads a byte from its socket, and ends if that closes: our parent did not learn of it.

The new process is not our child but our parent's (CLONE_PARENT): our parent waits for it and gets its exit code, and
may lose us at any time without losing one of them. Its command line is written over our own, so that ps shows it;
therefore ours ends with an argument of blanks. No thread may exist here, since a fork would copy only part of it.
Little is imported here: containers' first processes are made this way too.
"""

import ctypes
import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from testbed.processes.readable import readable

CLONE_PARENT = 0x00008000  # linux/sched.h, as the next two
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
PR_GET_TID_ADDRESS = 40  # linux/prctl.h
SYS_CLONE3 = 435  # the same on every architecture
ARGUMENTS_START, ARGUMENTS_END = 48, 49
"""Fields of /proc/PID/stat (man 5 proc)."""
MESSAGE_BYTES = 1 << 20
DESCRIPTORS = 5

Fingerprints = Mapping[str, tuple[int, int, int] | None]


class ForkRequest(NamedTuple):
    """The properties of one fork."""

    words: list[str]
    """Its command line, as it would be started without us."""
    descriptors: list[int]
    """Descriptors that arrived after the log."""


class _CloneArguments(ctypes.Structure):
    """struct clone_args, include/uapi/linux/sched.h."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    )


def serve(channel: socket.socket, files: Callable[[], Iterable[str]]) -> ForkRequest:
    """Fork for each request until the other end closes, which ends this process; return in each fork.

    A fork has its own session, its log as standard output and error, and its own environment. If one of `files` has
    changed, this process re-executes itself before it reads the next request. Raises RuntimeError if there is a second
    thread.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("an import has started a thread: a fork would not have it")
    known = fingerprints(files())
    # Existing objects are permanent: the collector need not touch, and so copy, their pages in every fork.
    gc.collect()
    gc.freeze()
    while True:
        readable([channel.fileno()])
        if fingerprints(files()) != known:
            # The message stays in the socket, for the process with the new code.
            os.set_inheritable(channel.fileno(), True)
            os.execv(sys.executable, sys.orig_argv)
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, DESCRIPTORS)
        if not message:
            sys.exit(0)
        try:
            pid = fork_for_parent()
        except OSError as error:
            answer: dict[str, object] = {"errno": error.errno, "error": error.strerror}
        else:
            if pid == 0:
                return _become(channel, json.loads(message), descriptors)
            answer = {"pid": pid}
        for descriptor in descriptors:
            os.close(descriptor)
        channel.sendall(json.dumps(answer).encode())


def fingerprints(files: Iterable[str]) -> Fingerprints:
    """Return what distinguishes files from later ones of the same name: time, size and inode; None for one that is
    gone.
    """
    found: dict[str, tuple[int, int, int] | None] = {}
    for file in files:
        try:
            stat = os.stat(file)
            found[file] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            found[file] = None
    return found


def loaded_files(directory: str) -> list[str]:
    """Return the files below `directory` from which modules were loaded."""
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return [file for file in files if file.startswith(directory + os.sep)]


def fork_for_parent() -> int:
    """Fork like `os.fork`, but as a child of our parent.

    Raises OSError. Apart from the system call, glibc's fork only serves processes with several threads and stores the
    thread's id, which the kernel is asked to write where glibc keeps it.
    """
    library = ctypes.PyDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    place = ctypes.c_void_p()
    if library.prctl(ctypes.c_int(PR_GET_TID_ADDRESS), ctypes.byref(place), *[ctypes.c_ulong(0)] * 3) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    flags = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    wanted = _CloneArguments(flags=flags, child_tid=place.value or 0)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = library.syscall(ctypes.c_long(SYS_CLONE3), ctypes.byref(wanted), size)
    number = ctypes.get_errno()
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number))
    return pid


def _become(channel: socket.socket, wanted: Mapping[str, object], descriptors: Sequence[int]) -> ForkRequest:
    channel.close()
    begin, log, *others = descriptors
    if not os.read(begin, 1):
        os._exit(0)
    os.close(begin)
    # Only now: by our process group, our parent finds those of us that it does not know.
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    words, environment = wanted["words"], wanted["environment"]
    assert isinstance(words, list)
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    show_command_line(words)
    return ForkRequest(words, others)


def show_command_line(words: Sequence[str]) -> None:
    """Make ps and /proc/PID/cmdline show these words instead of ours, as many as fit."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        # Counted after the name, which may contain spaces.
        fields = file.read().rpartition(")")[2].split()
    start, end = (int(fields[number - 3]) for number in (ARGUMENTS_START, ARGUMENTS_END))
    if 0 < start < end:
        room = end - start
        text = b"".join(os.fsencode(word) + b"\0" for word in words)[: room - 1]
        ctypes.memset(start, 0, room)
        ctypes.memmove(start, text, len(text))
