"""Network namespaces of our own for tests: made with a prefix nobody else has, removed whatever happens."""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from agent.kernel.namespace import CLONE_NEWNET
from tests.waiting import wait_until

Stream = int | IO[str] | None
_numbers = itertools.count()


class Namespace:
    """A network namespace with loopback up; `pid` is a process that sleeps in it."""

    def __init__(self, name: str, undo: ExitStack) -> None:
        self.name = name
        self.path = Path("/run/netns") / name
        self._undo = undo.enter_context(ExitStack())
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._undo.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
        self.run(["ip", "link", "set", "lo", "up"])
        self.pid = self.popen(["sleep", "infinity"]).pid

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; output is captured as text. With `check` a failure shows what it printed."""
        result = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and result.returncode != 0:
            pytest.fail(
                f"{self.name}: {' '.join(command)}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
            )
        return result

    def popen(
        self, command: Sequence[str], *, stdin: Stream = None, stdout: Stream = None, stderr: Stream = None
    ) -> "subprocess.Popen[str]":
        """Start a command that is killed when the test ends. `ip netns exec` becomes it, so the pid is its own."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], stdin=stdin, stdout=stdout, stderr=stderr, text=True
        )
        self._undo.callback(_end, process)
        # The process starts in our namespace and moves; whoever uses its pid before that would hit ours.
        wait_until(lambda: self._holds(process), timeout_s=30, what=f"{command[0]} is in {self.name}")
        return process

    def _holds(self, process: "subprocess.Popen[str]") -> bool:
        try:
            return process.poll() is not None or os.path.samefile(f"/proc/{process.pid}/ns/net", self.path)
        except FileNotFoundError:
            return True

    def end(self) -> None:
        """Kill what was started here and delete the namespace's name, before the test ends."""
        self._undo.close()

    def connect(
        self, other: "Namespace", near: tuple[str, str | None], far: tuple[str, str | None], mtu: int = 1500
    ) -> None:
        """Join two namespaces by a veth; each end is (device name, address with prefix length or None)."""
        peer = ["peer", "name", far[0], "mtu", str(mtu), "netns", other.name]
        self.run(["ip", "link", "add", near[0], "mtu", str(mtu), "type", "veth", *peer])
        for namespace, (device, address) in ((self, near), (other, far)):
            if address is not None:
                namespace.run(["ip", "address", "add", address, "dev", device])
            namespace.run(["ip", "link", "set", device, "up"])


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


NamespaceMaker = Callable[[str], Namespace]


@pytest.fixture(scope="package", autouse=True)
def _scratch_namespace() -> Iterator[None]:
    """Run all tests of this package in a namespace of nobody's, so that no mistake can reach the host's network."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        assert libc.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


@pytest.fixture
def namespaces() -> Iterator[NamespaceMaker]:
    """Yield a maker of namespaces: `node1 = namespaces("node1")`."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes network namespaces")
    with ExitStack() as undo:
        yield lambda name: Namespace(f"ot-{os.getpid()}-{next(_numbers)}-{name}", undo)
