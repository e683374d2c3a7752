"""A backend that can no longer carry packets says so at once; nobody has to look."""

import threading
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.backends.base import Underlay
from agent.backends.subnet_routes import unreachable_route
from agent.backends.udp import UdpBackend
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.lease import Lease, LeaseAttrs, Subnet

pytestmark = pytest.mark.root

NETWORK = IPv4Network("10.0.0.0/16")
HOME = IPv4Address("127.0.0.1")
LEASE = Lease(Subnet(IPv4Network("10.0.46.0/24")), LeaseAttrs(HOME), 1, 1)


@pytest.mark.row("F10")
@pytest.mark.parametrize("datapath", ["native", "python"])
def test_a_pump_whose_device_disappears_asks_for_a_check(datapath: str) -> None:
    asked = threading.Event()
    with Kernel(SilentJournal()) as kernel:
        kernel.set_up("lo", "the underlay of this test")
        backend = UdpBackend(NETWORK, 8285, Underlay("lo", HOME, 1500, HOME), kernel, datapath)
        backend.on_trouble = asked.set
        try:
            backend.start(LEASE)
            backend.set_peers([])
            assert not asked.is_set()
            kernel.delete_link(backend.device, "somebody removes it")
            assert asked.wait(10)
            backend.converge()
            assert kernel.link(backend.device) is not None
        finally:
            backend.stop()
            kernel.delete_route(unreachable_route(NETWORK), "the next test finds nothing of this one")
