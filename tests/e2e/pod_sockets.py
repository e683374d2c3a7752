"""Sockets of the test's own process in the network namespaces of a lab's pods."""

import os
from collections.abc import Callable
from typing import TypeVar

from testbed.processes.namespaces import CLONE_NEWNET, in_new_thread, setns

T = TypeVar("T")


def made_in(pid: int, pod: str, make: Callable[[], T]) -> T:
    """Return what `make` returns in a pod's network namespace; `pid` is the lab's first process."""
    descriptor = os.open(f"/proc/{pid}/root/run/netns/{pod.replace('/', '_')}", os.O_RDONLY)

    def made() -> T:
        setns(descriptor, CLONE_NEWNET)
        return make()

    try:
        return in_new_thread(made)
    finally:
        os.close(descriptor)
