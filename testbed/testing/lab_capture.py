"""Captures at nodes' uplinks and overlay devices, by tcpdump inside the lab, into files outside. tcpdump writes to our
descriptor, so nothing is written inside the lab; it ends when our end of its standard input closes, even if we die.

A missing device, or one that is recreated like flannel0 with its agent, is waited for; each of its lives has its own
file.
"""

import os
import threading
import time
from pathlib import Path

from testbed.control.questions import EXEC
from testbed.errors import TestbedError
from testbed.testing.lab_handle import LabHandle

START_LIMIT_S = 5.0
STOP_LIMIT_S = 5.0
RETRY_S = 0.2
PATIENCE_S = 24 * 3600.0
"""How long a capture may take to report anything; it ends with its test."""
# The watcher ends tcpdump on end of file; `exec` keeps its process id. A command in the background has no standard
# input of its own, hence 3.
TCPDUMP = (
    "exec 3<&0; (read -r _ <&3; kill -TERM $$) & "
    'exec tcpdump --immediate-mode -U -n -s 0 -Z root -i "$0" -w - "$@" </dev/null 3<&-'
)


class Captures:
    """tcpdump on every node's uplink and overlay device, from `start` to `stop`."""

    def __init__(self, lab: LabHandle, directory: Path) -> None:
        self.directory = directory
        self._captures = [
            _Capture(lab, name, device, directory)
            for name, node in lab.nodes.items()
            for device in (f"{name}-eth0", node.device)
            if device is not None
        ]

    def start(self) -> None:
        """Start capturing; return once every existing device is captured."""
        for capture in self._captures:
            capture.start()
        deadline = time.monotonic() + START_LIMIT_S
        for capture in self._captures:
            capture.settled.wait(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Stop every capture and wait until its file is complete."""
        for capture in self._captures:
            capture.end()
        deadline = time.monotonic() + STOP_LIMIT_S
        for capture in self._captures:
            capture.join(max(0.0, deadline - time.monotonic()))


class _Capture(threading.Thread):
    """One device's capture."""

    def __init__(self, lab: LabHandle, node: str, device: str, directory: Path) -> None:
        super().__init__(name=f"capture {node} {device}", daemon=True)
        self._lab, self._node, self._device = lab, node, device
        self._stem = directory / f"{node}-{device.removeprefix(f'{node}-')}"
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._lifeline: int | None = None
        self.settled = threading.Event()
        """Set once the device is being captured, or known to be missing."""

    def run(self) -> None:
        number = 1
        while not self._ending.is_set():
            suffix = "" if number == 1 else f"-{number}"
            if self._listen(Path(f"{self._stem}{suffix}.pcap")):
                number += 1
            self.settled.set()
            self._ending.wait(RETRY_S)

    def end(self) -> None:
        """Request the end of the capture."""
        with self._lock:
            self._ending.set()
            self._cut()

    def _cut(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    def _listen(self, file: Path) -> bool:
        """Capture until the end is requested or the device is deleted; return True if the file holds a capture."""
        stdin, lifeline = os.pipe()
        errors = os.memfd_create("tcpdump")
        packets = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with self._lock:
            self._lifeline = lifeline
            if self._ending.is_set():
                self._cut()
        watcher = threading.Thread(target=self._await_listening, args=(errors,), daemon=True)
        watcher.start()
        try:
            arguments = {"name": self._node, "container": None, "argv": ["sh", "-c", TCPDUMP, self._device]}
            self._lab.ask(EXEC, arguments, (stdin, packets, errors), PATIENCE_S)
        except TestbedError:
            # The lab is gone or cannot do it: the test will report that.
            pass
        finally:
            with self._lock:
                self._cut()
            self.settled.set()
            watcher.join()
            for descriptor in (stdin, packets, errors):
                os.close(descriptor)
        if file.stat().st_size == 0:
            file.unlink()
            return False
        return True

    def _await_listening(self, errors: int) -> None:
        while not self.settled.wait(0.01):
            if b"listening on" in os.pread(errors, os.fstat(errors).st_size, 0):
                self.settled.set()
