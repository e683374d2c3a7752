"""The heartbeat's sockets: as many as a large lab has pods."""

import fcntl
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.faults import heartbeat
from testbed.faults.heartbeat import PORT, HeartbeatPods, receive, send
from testbed.processes import namespaces

HIGH = 2000
"""No descriptor of select(2)."""


@pytest.fixture
def pods() -> Iterator[HeartbeatPods]:
    """Yield two pods on the loopback, whose sockets have high descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * HIGH)), hard))
    made = HeartbeatPods({"a": "127.0.0.2", "b": "127.0.0.3"})
    for place, address in enumerate(made.addresses):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as low:
            low.setblocking(False)
            low.bind((address, PORT))
            made.sockets[place] = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH))
    yield made
    for one in made.sockets:
        assert one is not None
        one.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_datagrams_are_received_however_many_descriptors_there_are(pods: HeartbeatPods) -> None:
    assert all(one is not None and one.fileno() >= HIGH for one in pods.sockets)
    send(pods, 7)
    got = receive(pods, time.monotonic() + 0.5)
    assert sorted((source, destination, number, whole) for source, destination, number, _, whole in got) == [
        ("a", "b", 7, True),
        ("b", "a", 7, True),
    ]


def test_a_pod_of_another_namespace_is_found_by_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop_web").touch()
    monkeypatch.setattr(heartbeat, "NETNS", str(tmp_path))
    monkeypatch.setattr(namespaces, "setns", lambda *_: None)
    pods = HeartbeatPods({"shop/web": "127.0.0.4"})
    pods.renew()
    (opened,) = pods.sockets
    assert opened is not None
    opened.close()
