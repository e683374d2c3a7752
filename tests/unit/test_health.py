"""/healthz, /readyz, /metrics and /state: what they say, and that they say it over HTTP."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from agent.backends.base import ForwardingEntry
from agent.datapath.counters import Counters
from agent.errors import EnvironmentMissing
from agent.node.health import HealthServer, LeaseReport, Report, process_started_at_s, render_metrics, render_state
from tests.waiting import wait_until

READY = Report(
    node="node1",
    why_not_ready=(),
    lease=LeaseReport("10.0.46.0/24", "192.168.8.227", 30, False, 21.25),
    device="flannel0",
    overlay_mtu=1472,
    datapath="native",
    forwarding=(ForwardingEntry(IPv4Network("10.0.90.0/24"), "192.168.8.228:8285"),),
    counters=Counters(3, 300, 2, 200, {"no-route": 7, "ttl": 0}),
    revision=12,
    fenced=False,
    watch_restarts=1,
    started_at_s=1700000000.5,
    refused={"10.0.5.0/24": "public address 127.0.0.1 is a loopback address"},
    warnings=("certificate x expires",),
)
SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"\})? -?[0-9.]+')


class Source:
    """An agent whose report a test sets."""

    def __init__(self) -> None:
        self.current = READY

    def report(self) -> Report:
        return self.current


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(source: Source) -> Iterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0, source.report)
    yield server
    server.close()


def get(server: HealthServer, path: str) -> tuple[int, str, str]:
    """Return status, content type and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers["Content-Type"], refusal.read().decode()


def test_state_contains_everything_that_the_lab_reads() -> None:
    assert json.loads(render_state(READY)) == {
        "node": "node1",
        "ready": True,
        "why_not_ready": [],
        "lease": {
            "subnet": "10.0.46.0/24",
            "public_ip": "192.168.8.227",
            "ttl_s": 30,
            "reservation": False,
            "seconds_left": 21.2,
        },
        "device": "flannel0",
        "overlay_mtu": 1472,
        "datapath": "native",
        "forwarding": [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:8285"}],
        "counters": {
            "tx_packets": 3,
            "tx_bytes": 300,
            "rx_packets": 2,
            "rx_bytes": 200,
            "drops": {"no-route": 7, "ttl": 0},
        },
        "revision": 12,
        "fenced": False,
        "watch_restarts": 1,
        "refused": {"10.0.5.0/24": "public address 127.0.0.1 is a loopback address"},
        "warnings": ["certificate x expires"],
    }


def test_state_before_a_lease_has_no_lease() -> None:
    state = json.loads(render_state(replace(READY, lease=None, device=None, why_not_ready=("no lease yet",))))
    assert (state["lease"], state["device"], state["ready"]) == (None, None, False)
    assert state["why_not_ready"] == ["no lease yet"]


def test_every_metric_has_help_and_type_before_its_samples() -> None:
    described: set[str] = set()
    typed: set[str] = set()
    for line in render_metrics(READY).splitlines():
        if line.startswith("# HELP "):
            described.add(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[3] in ("counter", "gauge")
            typed.add(line.split()[2])
        else:
            assert SAMPLE.fullmatch(line), line
            assert re.split("[ {]", line)[0] in described & typed
    assert described == typed


@pytest.mark.parametrize(
    "line",
    [
        'overlay_packets_total{direction="tx"} 3',
        'overlay_packets_total{direction="rx"} 2',
        'overlay_bytes_total{direction="tx"} 300',
        'overlay_drops_total{reason="no-route"} 7',
        'overlay_drops_total{reason="ttl"} 0',
        "overlay_peers 1",
        pytest.param("overlay_refused_leases 1", marks=pytest.mark.row("B42")),
        "overlay_lease_seconds_left 21.25",
        "overlay_watch_restarts_total 1",
        "overlay_ready 1",
        "overlay_fenced 0",
        "process_start_time_seconds 1700000000.5",
    ],
)
def test_metrics_carry_the_numbers(line: str) -> None:
    assert line in render_metrics(READY).splitlines()


def test_a_reservation_has_no_seconds_left() -> None:
    assert READY.lease is not None
    reserved = replace(READY, lease=replace(READY.lease, reservation=True, seconds_left=None))
    assert "\noverlay_lease_seconds_left" not in render_metrics(reserved)
    assert json.loads(render_state(reserved))["lease"]["seconds_left"] is None


def test_readyz_follows_readiness_and_healthz_does_not(server: HealthServer, source: Source) -> None:
    assert get(server, "/readyz")[0] == 200
    source.current = replace(READY, why_not_ready=("fenced: 10.0.46.0/24 is held by 192.168.8.9", "no snapshot yet"))
    status, _, body = get(server, "/readyz")
    assert status == 503
    assert body.splitlines() == ["fenced: 10.0.46.0/24 is held by 192.168.8.9", "no snapshot yet"]
    assert get(server, "/healthz")[::2] == (200, "agent is running\n")


def test_content_types_are_what_scrapers_expect(server: HealthServer) -> None:
    assert get(server, "/metrics")[1].startswith("text/plain; version=0.0.4")
    assert get(server, "/state?x=1")[1] == "application/json"


def test_an_unknown_path_names_the_known_ones(server: HealthServer) -> None:
    status, _, body = get(server, "/")
    assert status == 404
    assert "/readyz" in body


def test_a_request_leaves_nothing_on_standard_error(server: HealthServer, capsys: pytest.CaptureFixture[str]) -> None:
    get(server, "/healthz")
    get(server, "/nothing")
    assert capsys.readouterr().err == ""


def test_a_port_in_use_is_one_clear_error(source: Source) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(EnvironmentMissing, match=rf"--healthz-port: .*127\.0\.0\.1:{port}, Address already in use"):
            HealthServer("127.0.0.1", port, source.report)


def test_the_start_of_the_process_is_in_the_past() -> None:
    with open("/proc/stat", encoding="ascii") as stat:
        booted_at_s = next(int(line.split()[1]) for line in stat if line.startswith("btime"))
    started_at_s = process_started_at_s()
    assert booted_at_s - 1 <= started_at_s

    def is_the_same_later() -> bool:
        first = process_started_at_s()
        time.sleep(0.3)
        return abs(process_started_at_s() - first) < 0.1

    wait_until(is_the_same_later, timeout_s=10, what="the same each time")
