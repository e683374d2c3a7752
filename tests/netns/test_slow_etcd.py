"""An etcd that answers late: what is slow is not taken for dead, and a lease outlives it."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.errors import RegistryUnavailable
from agent.etcd.registry import EtcdRegistry
from agent.leases.manager import SubnetManager
from agent.netconfig.config import parse_network_config
from tests.netns.etcd_server import EtcdServer, answers
from tests.netns.slow_relay import SlowRelay
from tests.unit.fake_registry import NODE1
from tests.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.row("F18")]

DEADLINE_S = 2.0
IN_TIME_S, LATE_S = 0.8, 1.2
"""In each direction: two of the first are within the deadline, two of the second are not, nor three of the first."""


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def registry_behind(relays: list[SlowRelay], undo: ExitStack) -> EtcdRegistry:
    registry = EtcdRegistry([relay.endpoint for relay in relays], deadline_s=DEADLINE_S)
    undo.callback(registry.close)
    return registry


def test_a_late_answer_costs_no_connection_and_no_watch_where_there_is_one_endpoint(
    etcd: EtcdServer, undo: ExitStack
) -> None:
    relay = undo.enter_context(SlowRelay(etcd.endpoint))
    registry = registry_behind([relay], undo)
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers")
    before = relay.accepted
    watch = registry.watch(1)
    relay.delay_s = LATE_S
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match="no answer in time"):
            registry.list_leases()
    relay.delay_s = IN_TIME_S
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers again")
    assert watch.poll(0.1) is None
    assert relay.accepted == before
    watch.cancel()


def test_where_one_of_several_is_late_the_next_is_asked(etcd: EtcdServer, undo: ExitStack) -> None:
    slow, fast = (undo.enter_context(SlowRelay(etcd.endpoint)) for _ in range(2))
    slow.delay_s = LATE_S
    registry = registry_behind([slow, fast], undo)
    assert not answers(registry)
    assert answers(registry)
    assert (slow.accepted, fast.accepted) == (1, 1)


def test_where_all_are_late_one_of_them_is_waited_for(etcd: EtcdServer, undo: ExitStack) -> None:
    """A connection to be made takes a round trip more than an answer on one that is there."""
    relays = [undo.enter_context(SlowRelay(etcd.endpoint)) for _ in range(3)]
    for relay in relays:
        relay.delay_s = IN_TIME_S
    registry = registry_behind(relays, undo)
    wait_until(lambda: answers(registry), timeout_s=25, what="an answer from one of them")
    for _ in range(3):
        assert answers(registry)


def test_a_short_lease_is_kept_while_each_answer_takes_most_of_its_life(etcd: EtcdServer, undo: ExitStack) -> None:
    relay = undo.enter_context(SlowRelay(etcd.endpoint))
    registry = EtcdRegistry([relay.endpoint])
    undo.callback(registry.close)
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers")
    config = parse_network_config(b'{"Network":"10.0.0.0/16"}')
    manager = SubnetManager(registry, config, NODE1, lease_ttl_s=5)
    stop = threading.Event()
    lease = manager.acquire(stop)
    assert lease is not None
    thread = threading.Thread(target=manager.run_renewal, args=(stop, pytest.fail))
    thread.start()
    try:
        relay.delay_s = 1.3
        until = time.monotonic() + 13
        wait_until(lambda: time.monotonic() > until, timeout_s=14, what="more than two lives are over")
        assert relay.accepted == 1
    finally:
        stop.set()
        thread.join(10)
    assert etcd.leases() == [f"{lease.etcd_lease_id:016x}"]
    assert manager.lease == lease, "never lost and taken again"
