"""iperf3 and sockperf between two network namespaces of the lab, and the processor time of processes meanwhile."""

import contextlib
import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.bench.plan import Measurement
from testbed.control.answers.bench import MeasurementAnswer
from testbed.errors import MeasurementFailed
from testbed.lab.iperf import run_iperf

PORT = 11111
"""sockperf's own."""
START_LIMIT_S = 5.0
POLL_S = 0.05
END_LIMIT_S = 10.0
PERCENTILE = re.compile(r"percentile (50|99)\.000 = +([0-9.]+)")
UNLIMITED = ("--bitrate", "0")

_libc = ctypes.CDLL(None, use_errno=True)
Left = Callable[[float], bool]
"""Waits up to this many seconds for the client to leave; returns whether it did."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a path: a process in each network namespace, and the address that reaches the second one."""

    source_pid: int
    destination_pid: int
    destination: IPv4Address


def measure(measurement: Measurement, ends: Ends, seconds: int, client_left: Left) -> MeasurementAnswer:
    """Measure; return the results. Raises MeasurementFailed with the tool's own message.

    tcp: `bytes` received, `seconds`. udp: datagrams `sent` and `received`, `seconds`. latency: `p50_us` and `p99_us`,
    half of a round trip each.
    """
    if measurement.kind == "latency":
        return _latency(ends, seconds, client_left)
    udp = measurement.kind == "udp"
    flags = ["--udp", *UNLIMITED, "--length", str(measurement.payload)] if udp else []
    flags += ["--parallel", str(measurement.streams)] if measurement.streams > 1 else []
    flags += ["--reverse"] if measurement.reverse else []
    report = run_iperf(ends.source_pid, ends.destination_pid, ends.destination, seconds, flags, client_left)["end"]
    received = report["sum_received"]
    if not udp:
        return {"bytes": received["bytes"], "seconds": received["seconds"]}
    # Not its `lost_packets`, which does not count losses at the very end.
    return {
        "sent": report["sum_sent"]["packets"],
        "received": received["bytes"] // measurement.payload,
        "seconds": received["seconds"],
    }


def _latency(ends: Ends, seconds: int, client_left: Left) -> MeasurementAnswer:
    where = ["--tcp", "--ip", str(ends.destination), "--port", str(PORT)]
    with _sockperf(ends.destination_pid, ["server", *where]) as server:
        deadline = time.monotonic() + START_LIMIT_S
        said = b""
        while True:
            # It reports that it listens, but only once its buffer is full; so retry until it answers.
            with _sockperf(ends.source_pid, ["ping-pong", *where, "--time", str(seconds)]) as client:
                said = _output(client, seconds + END_LIMIT_S, client_left)
            found = dict(PERCENTILE.findall(said.decode(errors="replace")))
            if found.keys() == {"50", "99"}:
                return {"p50_us": float(found["50"]), "p99_us": float(found["99"])}
            if server.poll() is not None or time.monotonic() > deadline or client.returncode == 0:
                break
            if client_left(POLL_S):
                raise MeasurementFailed("interrupted")
    raise MeasurementFailed(f"sockperf: {_complaint(said)}")


@contextlib.contextmanager
def _sockperf(pid: int, arguments: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    command = ["nsenter", "--target", str(pid), "--net", "--", "sockperf", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        try:
            yield process
        finally:
            process.kill()


def _output(process: "subprocess.Popen[bytes]", limit_s: float, client_left: Left) -> bytes:
    """Return its output until it ends; it is less than a pipe holds."""
    deadline = time.monotonic() + limit_s
    while process.poll() is None:
        if client_left(POLL_S):
            raise MeasurementFailed("interrupted")
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"{process.args!r}: no end after {limit_s:g} s")
    return process.stdout.read() if process.stdout else b""


def _complaint(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if "ERROR" in line]
    return (wrong or lines or ["no output"])[-1]


def processor_seconds(pids: Iterable[int]) -> float:
    """Return user and system time of these processes, including ended threads. Raises ProcessLookupError."""
    return sum(time.clock_gettime(_clock_of(pid)) for pid in pids)


def _clock_of(pid: int) -> int:
    clock = ctypes.c_int()
    number = _libc.clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock))
    if number:
        raise ProcessLookupError(number, f"{os.strerror(number)}: process {pid}")
    return clock.value
