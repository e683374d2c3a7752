"""The agent's state over HTTP: /healthz, /readyz, /metrics (Prometheus text) and /state (JSON).

`Readiness` collects the state of every part of the agent. `Report` is a consistent snapshot of the agent, and rendering
it is pure. The server requests a report per request, so it has no state and never waits for etcd.
"""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv6Address, ip_address
from typing import Any

from agent.backends.base import ForwardingEntry
from agent.datapath.counters import Counters
from agent.errors import EnvironmentMissing

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SHORTAGE_PAUSE_S = 0.1
REQUEST_TIMEOUT_S = 5.0
"""A client that sends nothing for this time is disconnected."""


class Readiness:
    """The agent's readiness: named parts, each ready or with a reason why not; any thread may use it."""

    def __init__(self, parts: Sequence[str]) -> None:
        """Begin with every part unready."""
        self._lock = threading.Lock()
        self._reasons: dict[str, str | None] = {part: "not yet" for part in parts}

    def mark_ready(self, part: str) -> bool:
        """Mark `part` as ready; return whether that is news."""
        return self._set(part, None)

    def mark_unready(self, part: str, why: str) -> bool:
        """Record why `part` is not ready; return whether that is news."""
        return self._set(part, why)

    def reasons(self) -> tuple[str, ...]:
        """Return `part: why not` for every part that is not ready; empty means ready."""
        with self._lock:
            return tuple(f"{part}: {why}" for part, why in self._reasons.items() if why is not None)

    def _set(self, part: str, why: str | None) -> bool:
        with self._lock:
            if part not in self._reasons:
                raise KeyError(part)
            news = self._reasons[part] != why
            self._reasons[part] = why
            return news


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """Our lease, for people to read."""

    subnet: str
    public_ip: str
    ttl_s: int
    reservation: bool
    """True when the key has no etcd lease and so never expires."""
    seconds_left: float | None
    """Time until etcd deletes the key if we stop renewing now; None for a reservation."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole state of an agent at one moment."""

    node: str
    why_not_ready: tuple[str, ...]
    """One reason per entry; empty means ready."""
    lease: LeaseReport | None
    device: str | None
    overlay_mtu: int | None
    datapath: str | None
    """What moves the packets."""
    forwarding: tuple[ForwardingEntry, ...]
    counters: Counters | None
    """None if the data path has no counters."""
    revision: int
    """The etcd revision of the forwarding table; 0 before the first snapshot."""
    fenced: bool
    watch_restarts: int
    started_at_s: float
    """Seconds since the epoch."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Subnets of leases that did not become peers, with the reason."""
    warnings: tuple[str, ...] = ()
    """What works now and will fail later."""

    @property
    def ready(self) -> bool:
        """Return whether rules, subnet.env and the forwarding table of a snapshot are in place, and we
        are not fenced.
        """
        return not self.why_not_ready


def render_state(report: Report) -> str:
    """Return the JSON of /state; a field once published keeps its meaning."""
    lease, counters = report.lease, report.counters
    state = {
        "node": report.node,
        "ready": report.ready,
        "why_not_ready": list(report.why_not_ready),
        "lease": None
        if lease is None
        else {
            "subnet": lease.subnet,
            "public_ip": lease.public_ip,
            "ttl_s": lease.ttl_s,
            "reservation": lease.reservation,
            "seconds_left": None if lease.seconds_left is None else round(lease.seconds_left, 1),
        },
        "device": report.device,
        "overlay_mtu": report.overlay_mtu,
        "datapath": report.datapath,
        "forwarding": [{"subnet": str(entry.subnet), "via": entry.via} for entry in report.forwarding],
        "counters": None
        if counters is None
        else {
            "tx_packets": counters.tx_packets,
            "tx_bytes": counters.tx_bytes,
            "rx_packets": counters.rx_packets,
            "rx_bytes": counters.rx_bytes,
            "drops": dict(sorted(counters.drops.items())),
        },
        "revision": report.revision,
        "fenced": report.fenced,
        "watch_restarts": report.watch_restarts,
        "refused": dict(sorted(report.refused.items())),
        "warnings": list(report.warnings),
    }
    return json.dumps(state, indent=1) + "\n"


METRICS: Mapping[str, tuple[str, str]] = {
    "overlay_packets_total": (
        "counter",
        "Inner packets carried; tx left in datagrams, rx were handed to the kernel.",
    ),
    "overlay_bytes_total": ("counter", "Bytes of inner packets carried, headers of the overlay not counted."),
    "overlay_drops_total": ("counter", "Packets not forwarded, by reason."),
    "overlay_peers": ("gauge", "Nodes in the forwarding table."),
    "overlay_refused_leases": (
        "gauge",
        "Leases that are not peers because they conflict or are invalid; /state has the reasons.",
    ),
    "overlay_lease_seconds_left": (
        "gauge",
        "Seconds until etcd deletes our lease if it is not renewed; absent for a reservation.",
    ),
    "overlay_watch_restarts_total": ("counter", "Restarts of the watch for peers."),
    "overlay_store_revision": ("gauge", "etcd revision of the forwarding table."),
    "overlay_ready": ("gauge", "1 when ready, as /readyz."),
    "overlay_fenced": ("gauge", "1 when another node owns our subnet."),
    "process_start_time_seconds": ("gauge", "Start of the process in seconds since the epoch."),
}
"""Metric → its type and its meaning."""


def render_metrics(report: Report) -> str:
    """Return Prometheus' text format, version 0.0.4, without missing values."""
    lease = report.lease
    packets, sizes, drops = _samples(report.counters)
    samples: dict[str, dict[str, float]] = {
        "overlay_packets_total": packets,
        "overlay_bytes_total": sizes,
        "overlay_drops_total": drops,
        "overlay_peers": {"": len(report.forwarding)},
        "overlay_refused_leases": {"": len(report.refused)},
        "overlay_lease_seconds_left": {"": lease.seconds_left} if lease and lease.seconds_left is not None else {},
        "overlay_watch_restarts_total": {"": report.watch_restarts},
        "overlay_store_revision": {"": report.revision},
        "overlay_ready": {"": int(report.ready)},
        "overlay_fenced": {"": int(report.fenced)},
        "process_start_time_seconds": {"": report.started_at_s},
    }
    lines = []
    for name, (kind, meaning) in METRICS.items():
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
        lines += [
            f"{name}{{{label}}} {value}" if label else f"{name} {value}" for label, value in samples[name].items()
        ]
    return "\n".join(lines) + "\n"


def _samples(counters: Counters | None) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return packets and bytes by direction, and drops by reason; nothing without counters."""
    if counters is None:
        return {}, {}, {}
    return (
        {'direction="rx"': counters.rx_packets, 'direction="tx"': counters.tx_packets},
        {'direction="rx"': counters.rx_bytes, 'direction="tx"': counters.tx_bytes},
        {f'reason="{_escaped(reason)}"': count for reason, count in sorted(counters.drops.items())},
    )


def _escaped(label_value: str) -> str:
    return label_value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class HealthServer:
    """Answers on `address`:`port` (0 picks a free port, see `port`) from its own thread until `close`.

    Raises EnvironmentMissing if it cannot listen on the address.
    """

    def __init__(self, address: str, port: int, report: Callable[[], Report]) -> None:
        try:
            self._server = _Server(address, port, report)
        except OSError as error:
            reason = error.strerror or str(error)
            raise EnvironmentMissing(
                f"--healthz-port: cannot listen (got {address}:{port}, {reason}; want a free address and port)"
            ) from error
        self.port: int = self._server.server_address[1]
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, without waiting for requests in progress."""
        self._closing = True
        # Wakes the thread, which therefore needs no timer.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=REQUEST_TIMEOUT_S)
        self._server.server_close()

    def _serve(self) -> None:
        while not self._closing:
            self._server.handle_request()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, port: int, report: Callable[[], Report]) -> None:
        self.report = report
        self.address_family = socket.AF_INET6 if isinstance(ip_address(address), IPv6Address) else socket.AF_INET
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        # The standard one asks DNS for our own name, which can hang without a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Return the next connection. Raises OSError."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SHORTAGE:
                # The client stays in the queue: retrying at once would use a whole processor.
                time.sleep(SHORTAGE_PAUSE_S)
            raise

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT_S
    server_version = "overlay-agent"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            # Only liveness: a supervisor must not restart an agent because etcd is down.
            self._answer(200, "agent is running\n")
        elif path == "/readyz":
            report = self.server.report()
            self._answer(200 if report.ready else 503, "\n".join(report.why_not_ready or ("agent is ready",)) + "\n")
        elif path == "/metrics":
            self._answer(200, render_metrics(self.server.report()), PROMETHEUS_TEXT)
        elif path == "/state":
            self._answer(200, render_state(self.server.report()), "application/json")
        else:
            self._answer(404, "not found; try /healthz, /readyz, /metrics or /state\n")

    do_HEAD = do_GET

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log no requests: a probe each second would bury every event."""


def process_started_at_s() -> float:
    """Return this process's start time in seconds since the epoch; now, if /proc does not have it."""
    try:
        with open("/proc/self/stat", encoding="ascii") as stat, open("/proc/uptime", encoding="ascii") as uptime:
            # Field 22 (man 5 proc), counted after the name, which may contain spaces.
            ticks = int(stat.read().rpartition(")")[2].split()[19])
            alive_s = float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - alive_s
