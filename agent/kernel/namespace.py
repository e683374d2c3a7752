"""Functions that run in one network namespace, so that sockets and /proc/sys/net belong to it.

`setns(2)` moves one thread, not the whole process; so a dedicated thread replaces a helper process, and its end
releases the namespace. Python 3.11 has no `os.setns`, hence ctypes.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CLONE_NEWNET = 0x40000000  # linux/sched.h
OWN_NAMESPACE = "/proc/thread-self/ns/net"
STILL_OURS = "it is still in our own network namespace"

Result = TypeVar("Result")


def _in_own_network_namespace(pid: int) -> bool:
    """Report whether process `pid` shares the calling thread's network namespace. Raises OSError."""
    return os.path.samefile(f"/proc/{pid}/ns/net", OWN_NAMESPACE)


def set_namespace(descriptor: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace of `descriptor`, of any kind unless `kind` names one.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class HeldNamespace:
    """A network namespace that is held open, in which functions can run."""

    def __init__(self, netns_pid: int | None) -> None:
        """Open the caller's own, or that of process `netns_pid`, which must differ. Raises OSError."""
        if netns_pid is not None and _in_own_network_namespace(netns_pid):
            raise OSError(errno.EINVAL, STILL_OURS)
        path = OWN_NAMESPACE if netns_pid is None else f"/proc/{netns_pid}/ns/net"
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._is = os.fstat(self._descriptor)
        self._closed = False

    def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` and return its result or raise its exception; in this thread if it is there, else in a new
        one. Raises BlockingIOError, like a fork, if a limit of processes is reached.
        """
        if self._is_here():
            return function()

        def visit() -> Result:
            set_namespace(self._descriptor, CLONE_NEWNET)
            return function()

        with ThreadPoolExecutor(1, "namespace") as visitor:
            try:
                future = visitor.submit(visit)
            except RuntimeError as error:
                raise BlockingIOError(errno.EAGAIN, str(error)) from error
            return future.result()

    def _is_here(self) -> bool:
        return os.path.samestat(os.stat(OWN_NAMESPACE), self._is)

    def close(self) -> None:
        """Release it; safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)
