"""What the kernel says of one port is what its table of all sockets says."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from testbed.pods.listening import ListeningSockets, can_ask, open_ports
from testbed.processes.namespaces import in_network_of
from tests.netns.conftest import Namespace, NamespaceMaker

pytestmark = pytest.mark.root

OWN = "10.0.46.2"


@pytest.fixture
def pod(namespaces: NamespaceMaker) -> Namespace:
    made = namespaces("pod")
    made.run(["ip", "link", "set", "lo", "up"])
    made.run(["ip", "address", "add", f"{OWN}/24", "dev", "lo"])
    return made


@pytest.fixture
def listening(pod: Namespace) -> Iterator[ListeningSockets]:
    with contextlib.closing(ListeningSockets(pod.pid)) as made:
        yield made


def test_this_kernel_can_be_asked() -> None:
    assert can_ask()


@pytest.mark.parametrize(
    ("address", "family", "reached"),
    [
        ("0.0.0.0", socket.AF_INET, True),
        (OWN, socket.AF_INET, True),
        ("127.0.0.1", socket.AF_INET, False),
        ("::", socket.AF_INET6, True),
        ("::1", socket.AF_INET6, False),
    ],
)
def test_a_listener_is_seen_where_others_reach_it(
    pod: Namespace, listening: ListeningSockets, address: str, family: socket.AddressFamily, reached: bool
) -> None:
    assert not listening.on(OWN, 8080)
    server = in_network_of(
        pod.pid, lambda: socket.create_server((address, 8080), family=family, dualstack_ipv6=address == "::")
    )
    with server:
        assert listening.on(OWN, 8080) is reached
        assert (8080 in open_ports(pod.pid)) is reached
        assert not listening.on(OWN, 8081)
    assert not listening.on(OWN, 8080)


def test_a_connection_is_no_listener(pod: Namespace, listening: ListeningSockets) -> None:
    server = in_network_of(pod.pid, lambda: socket.create_server((OWN, 8080)))
    client = in_network_of(pod.pid, lambda: socket.create_connection((OWN, 8080)))
    with client, server.accept()[0]:
        server.close()
        assert not listening.on(OWN, 8080)
