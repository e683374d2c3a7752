"""A backend that can no longer carry packets says so at once; nobody has to look."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.backends.base import Underlay
from agent.backends.subnet_routes import unreachable_route
from agent.backends.udp import UdpBackend
from agent.errors import EnvironmentMissing
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.lease import Lease, LeaseAttrs, Subnet

pytestmark = pytest.mark.root

NETWORK = IPv4Network("10.0.0.0/16")
HOME = IPv4Address("127.0.0.1")
LEASE = Lease(Subnet(IPv4Network("10.0.46.0/24")), LeaseAttrs(HOME), 1, 1)


@contextmanager
def running(kernel: Kernel, datapath: str) -> Iterator[tuple[UdpBackend, threading.Event]]:
    """Yield a started backend without peers, and what is set when it asks for a check."""
    asked = threading.Event()
    kernel.set_up("lo", "the underlay of this test")
    backend = UdpBackend(NETWORK, 8285, Underlay("lo", HOME, 1500, HOME), kernel, datapath)
    backend.on_trouble = asked.set
    try:
        backend.start(LEASE)
        yield backend, asked
    finally:
        backend.stop()
        kernel.delete_route(unreachable_route(NETWORK), "the next test finds nothing of this one")


@pytest.mark.row("F10")
@pytest.mark.parametrize("datapath", ["native", "python"])
def test_a_pump_whose_device_disappears_asks_for_a_check(datapath: str) -> None:
    with Kernel(SilentJournal()) as kernel, running(kernel, datapath) as (backend, asked):
        backend.set_peers([])
        assert not asked.is_set()
        kernel.delete_link(backend.device, "it is removed by hand")
        assert asked.wait(10)
        backend.converge()
        assert kernel.link(backend.device) is not None


@pytest.mark.parametrize(
    ("datapath", "refused"), [("native", "pump-mover"), ("native", "pump-helper"), ("python", "pump")]
)
def test_a_pump_that_could_not_start_its_threads_is_made_again_on_the_same_device(
    datapath: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_or_refuse(thread: threading.Thread) -> None:
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    with Kernel(SilentJournal()) as kernel, running(kernel, datapath) as (backend, asked):
        before = kernel.link(backend.device)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_or_refuse)
            backend.set_peers([])
            assert asked.is_set()
            with pytest.raises(EnvironmentMissing, match="data path: can't start new thread"):
                backend.converge()
            assert pump_threads() == []
        backend.converge()
        assert refused in pump_threads()
        after = kernel.link(backend.device)
        assert before is not None
        assert after is not None
        assert before.index == after.index


def pump_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pump")]
