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
OWN_NAMESPACE = "/proc/thread-self/ns/net"
STILL_OURS = "it is still in our own network namespace"

Result = TypeVar("Result")


def _in_own_network_namespace(pid: int) -> bool:
    """Whether process `pid` shares the calling thread's network namespace. Raises OSError."""
    return os.path.samefile(f"/proc/{pid}/ns/net", OWN_NAMESPACE)


def set_namespace(descriptor: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace behind `descriptor`, of any kind unless `kind` names one.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_network_namespace(pid: int) -> None:
    """Move the calling thread into the network namespace of process `pid`, which must be another than its own.

    Raises OSError.
    """
    if _in_own_network_namespace(pid):
        # A process that is still on its way into its namespace: what is meant for it would be done to ours.
        raise OSError(errno.EINVAL, STILL_OURS)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)


class Namespace:
    """A network namespace that is held as long as this is open, and that functions can be run in."""

    def __init__(self, netns_pid: int | None) -> None:
        """The caller's own, or that of process `netns_pid`, which must be another. Raises OSError."""
        if netns_pid is not None and _in_own_network_namespace(netns_pid):
            raise OSError(errno.EINVAL, STILL_OURS)
        path = OWN_NAMESPACE if netns_pid is None else f"/proc/{netns_pid}/ns/net"
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._is = os.fstat(self._descriptor)
        self._closed = False

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns, or raise what it raises; in this thread if it is there, else in a new one."""
        if self._is_here():
            return function()

        def visit() -> Result:
            set_namespace(self._descriptor, CLONE_NEWNET)
            return function()

        with ThreadPoolExecutor(1, "namespace") as visitor:
            return visitor.submit(visit).result()

    def thread(self) -> "NamespaceThread":
        """A thread that lives there. Raises OSError."""
        # To enter even one's own takes CAP_SYS_ADMIN, which an agent that runs as a service has not.
        return NamespaceThread(None, None if self._is_here() else self._descriptor)

    def _is_here(self) -> bool:
        return os.path.samestat(os.stat(OWN_NAMESPACE), self._is)

    def close(self) -> None:
        """Let it go; safe to call twice."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


class NamespaceThread:
    """Runs functions one after the other in the caller's network namespace, or in that of another process."""

    def __init__(self, netns_pid: int | None, descriptor: int | None = None) -> None:
        """Start the thread; with `descriptor` in the namespace behind it.

        Raises OSError when `netns_pid` is gone or may not be entered.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        try:
            # The executor starts its thread here: a new thread inherits its creator's namespace.
            if netns_pid is not None:
                self.run(lambda: enter_network_namespace(netns_pid))
            elif descriptor is not None:
                self.run(lambda: set_namespace(descriptor, CLONE_NEWNET))
            else:
                self.run(lambda: None)
        except OSError:
            self.close()
            raise

    def run(self, function: Callable[[], Result]) -> Result:
        """Return what `function` returns, or raise what it raises. Raises RuntimeError after `close`."""
        return self._executor.submit(function).result()

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._executor.shutdown(wait=True)
