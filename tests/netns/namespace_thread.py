"""A thread in another network namespace, for tests of functions that work in their caller's."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.kernel.namespace import CLONE_NEWNET, set_namespace

Result = TypeVar("Result")


class NamespaceThread:
    """Runs functions one after the other in the network namespace of another process."""

    def __init__(self, netns_pid: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace")
        self.run(lambda: _enter(netns_pid))

    def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` and return its result or raise its exception."""
        return self._executor.submit(function).result()

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._executor.shutdown(wait=True)


def _enter(pid: int) -> None:
    namespace = f"/proc/{pid}/ns/net"
    assert not os.path.samefile(namespace, "/proc/thread-self/ns/net"), "the test would change its own namespace"
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        set_namespace(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)
