"""iperf3 between two places of the lab, each in its own network namespace."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from testbed.control.answers.lab import IperfAnswer
from testbed.errors import MeasurementFailed
from testbed.processes.namespaces import in_network_of

Report = dict[str, Any]
"""The output of iperf3 with --json."""
PORT = 5201
LISTEN = "0A"
"""State TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""
START_LIMIT_S = 5.0
END_LIMIT_S = 10.0


def measure(
    source_pid: int,
    destination_pid: int,
    address: IPv4Address | IPv6Address,
    seconds: int,
    udp: bool,
    client_left: Callable[[float], bool],
    bitrate: str = "0",
) -> IperfAnswer:
    """Run a server at the destination and a client at the source; `bitrate`, like `10M`, is for UDP, 0: unlimited.

    Returns bits per second, and loss in percent for UDP. Raises MeasurementFailed with iperf3's own message.
    """
    kind = ["--udp", "--bitrate", bitrate] if udp else []
    report = run_iperf(source_pid, destination_pid, address, seconds, kind, client_left)
    return _summary(report, udp)


def run_iperf(
    source_pid: int,
    destination_pid: int,
    address: IPv4Address | IPv6Address,
    seconds: int,
    flags: Sequence[str],
    client_left: Callable[[float], bool],
) -> Report:
    """Return the report of iperf3's client with these flags (its --json).

    Raises MeasurementFailed with iperf3's own message.
    """
    # Without per-second reports: the pipe is read only at the end, and it holds 64 KiB.
    always = ["--json", "--interval", "0", "--port", str(PORT), "--time", str(seconds)]
    server = _start(destination_pid, ["--server", "--one-off", "--port", str(PORT)])
    try:
        _await_listening(destination_pid, server, client_left)
        client = _start(source_pid, ["--client", str(address), *always, *flags])
        deadline = time.monotonic() + seconds + END_LIMIT_S
        try:
            while client.poll() is None:
                if client_left(0.1):
                    raise MeasurementFailed("interrupted")
                if time.monotonic() > deadline:
                    raise MeasurementFailed(f"no result {END_LIMIT_S:g} s after its end (is the path broken?)")
            output, complaint = client.communicate()
        finally:
            client.kill()
            client.wait()
    finally:
        server.kill()
        server.wait()
    return _report(output, complaint)


def _start(pid: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    command = ["nsenter", "--target", str(pid), "--net", "--", "iperf3", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _await_listening(pid: int, server: subprocess.Popen[bytes], client_left: Callable[[float], bool]) -> None:
    waited = 0.0
    while not in_network_of(pid, _listening):
        if server.poll() is not None or waited > START_LIMIT_S:
            raise MeasurementFailed(f"port {PORT} at the destination could not be opened (is another iperf3 running?)")
        if client_left(0.05):
            raise MeasurementFailed("interrupted")
        waited += 0.05


def _listening() -> bool:
    with open("/proc/thread-self/net/tcp6") as six, open("/proc/thread-self/net/tcp") as four:
        rows = [line.split() for line in [*four.readlines()[1:], *six.readlines()[1:]]]
    return any(row[1].endswith(f":{PORT:04X}") and row[3] == LISTEN for row in rows)


def _report(output: bytes, complaint: bytes) -> Report:
    try:
        report: Report = json.loads(output)
    except ValueError as failure:
        said = complaint.strip() or output.strip() or b"no output"
        raise MeasurementFailed(said.decode(errors="replace").splitlines()[-1]) from failure
    if "error" in report:
        raise MeasurementFailed(report["error"])
    return report


def _summary(report: Report, udp: bool) -> IperfAnswer:
    total = report["end"]["sum" if udp else "sum_received"]
    if not udp:
        return {
            "protocol": "tcp",
            "seconds": round(total["seconds"], 2),
            "bits_per_second": total["bits_per_second"],
            "retransmits": report["end"]["sum_sent"]["retransmits"],
        }
    return {
        "protocol": "udp",
        "seconds": round(total["seconds"], 2),
        "bits_per_second": total["bits_per_second"] * (1 - total["lost_percent"] / 100),
        "packets": total["packets"],
        "lost_percent": round(total["lost_percent"], 2),
    }
