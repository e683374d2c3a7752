"""The heartbeat's sockets: as many as a large lab has pods."""

import fcntl
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from testbed.faults.heartbeat import PORT, HeartbeatPods, receive, send

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
