"""A thread that lives in one network namespace, so that sockets and /proc/sys/net are that namespace's.

`setns(2)` moves one thread, never the whole process; a thread of its own therefore needs no helper process, and
ending it lets the namespace go. Python 3.11 has no `os.setns`, hence ctypes.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CLONE_NEWNET = 0x40000000  # linux/sched.h

Result = TypeVar("Result")


def _in_own_network_namespace(pid: int) -> bool:
    """Whether process `pid` shares the calling thread's network namespace. Raises OSError."""
    return os.path.samefile(f"/proc/{pid}/ns/net", "/proc/thread-self/ns/net")


def enter_network_namespace(pid: int) -> None:
    """Move the calling thread into the network namespace of process `pid`, which must be another than its own.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if _in_own_network_namespace(pid):
        # A process that is still on its way into its namespace: what is meant for it would be done to ours.
        raise OSError(errno.EINVAL, "it is still in our own network namespace")
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


class NamespaceThread:
    """Runs functions one after the other in the caller's network namespace, or in that of another process."""

    def __init__(self, netns_pid: int | None) -> None:
        """Start the thread. Raises OSError when `netns_pid` is gone or may not be entered."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        try:
            # The executor starts its thread here: a new thread inherits its creator's namespace.
            self.run(lambda: None if netns_pid is None else enter_network_namespace(netns_pid))
        except OSError:
            self.close()
            raise

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns, or raise what it raises. Raises RuntimeError after `close`."""
        return self._executor.submit(function).result()

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._executor.shutdown(wait=True)
