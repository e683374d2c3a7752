"""Waiting for the kernel's time stamps in namespaces whose loopback carries packets, and in those where it does not."""

from collections.abc import Sequence

import pytest

from testbed.capture.packet_socket import await_stamps
from testbed.processes.namespaces import in_network_of
from tests.netns.conftest import NamespaceMaker

pytestmark = pytest.mark.root
DOWN = ("ip", "link", "set", "lo", "down")
NO_ADDRESS = ("ip", "address", "flush", "dev", "lo")
NO_OUTPUT = ("nft", "add table ip t; add chain ip t c { type filter hook output priority 0; policy drop; }")


@pytest.mark.parametrize(
    ("commands", "are_stamped"),
    [([], True), ([DOWN], False), ([NO_ADDRESS], False), ([NO_OUTPUT], False)],
    ids=["up", "down", "without an address", "filtered"],
)
def test_waiting_for_stamps_ends_with_and_without_a_loopback(
    commands: Sequence[Sequence[str]], are_stamped: bool, namespaces: NamespaceMaker
) -> None:
    pod = namespaces("pod")
    for command in commands:
        pod.run(list(command))
    # Long enough for a busy machine; where there are none, it ends at once.
    assert in_network_of(pod.pid, lambda: await_stamps(10.0)) is are_stamped
