"""Heartbeats between all pods of a lab during an experiment: `with Heartbeats(lab) as heartbeats: …`."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Self

from testbed.control.client import LabConnection
from testbed.control.questions import HEARTBEAT
from testbed.errors import TestbedError
from testbed.faults.heartbeat_record import HeartbeatRecord
from testbed.testing.lab_handle import LabHandle
from testbed.testing.waiting import wait_until

PERIOD_S = 0.1
STEADY_S = 1.0
"""Time without a loss after which everything works again."""
LOOK_EVERY_S = 1.0
"""Minimum interval between queries of the lab's pods."""
TERMINATING = "Terminating"


class Heartbeats:
    """Sends ten numbered datagrams a second from every pod to every other; `record` has their fate."""

    def __init__(self, lab: LabHandle) -> None:
        pods = {pod.name: pod.address for pod in lab.pods.values() if pod.address and pod.state != TERMINATING}
        self._lab = lab
        self._looked_at = time.monotonic()
        self.record = HeartbeatRecord(tuple(pods), PERIOD_S)
        self._lock = threading.Lock()
        self._connection = LabConnection(lab.record)
        reading, writing = os.pipe()
        nothing, self._complaints = os.open(os.devnull, os.O_RDONLY), os.memfd_create("heartbeats")
        self._threads = (
            threading.Thread(target=self._ask, args=(pods, (nothing, writing, self._complaints)), daemon=True),
            threading.Thread(target=self._read, args=(reading,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.shutdown()
        for thread in self._threads:
            thread.join(5)
        self._connection.close()
        os.close(self._complaints)

    def wait_steady(self, timeout_s: float) -> float:
        """Wait for a second without a loss; return its start, by CLOCK_MONOTONIC. Raises NotInTime."""
        begun = time.monotonic()

        def steady() -> float:
            self._forget_deleted()
            with self._lock:
                until = self.record.newest
                lost = self.record.lost(until - STEADY_S, until)
                assert until > begun, f"no heartbeats yet: {self._said()}"
                assert not lost, ", ".join(f"{len(times)} from {a} to {b}" for (a, b), times in lost.items())
            return until - STEADY_S

        return wait_until(steady, timeout_s, "a second without a lost heartbeat between pods")

    def _forget_deleted(self) -> None:
        """Forget pods that were deleted meanwhile: those are not losses."""
        if time.monotonic() < self._looked_at + LOOK_EVERY_S:
            return
        there = self._lab.pods
        with self._lock:
            self.record.forget({name for name in self.record.pods if name not in there})
        self._looked_at = time.monotonic()

    def locked(self) -> threading.Lock:
        """Return the lock to hold while reading `record`."""
        return self._lock

    def write(self, file: Path) -> None:
        """Write the whole record as JSON lines: number, time of sending, and arrival time by pair."""
        with self._lock, file.open("w", encoding="utf-8") as opened:
            for number, at in self.record.sent_at.items():
                came = {f"{a} {b}": arrived.get(number) for (a, b), arrived in self.record.arrivals.items()}
                opened.write(json.dumps({"number": number, "at": at, "came": came}) + "\n")

    def _ask(self, pods: dict[str, str], streams: tuple[int, int, int]) -> None:
        try:
            with contextlib.suppress(TestbedError, OSError, ValueError):
                for _ in self._connection.ask(HEARTBEAT, streams, pods=pods, period_s=PERIOD_S):
                    pass
        finally:
            for stream in streams[:2]:
                os.close(stream)

    def _read(self, stream: int) -> None:
        with os.fdopen(stream) as lines:
            for line in lines:
                if line.endswith("\n"):
                    with self._lock:
                        self.record.add(json.loads(line))

    def _said(self) -> str:
        return os.pread(self._complaints, 2000, 0).decode(errors="replace") or "the sender printed nothing"
