"""The registry behind a real `etcd grpc-proxy`, which merges streams and drops the codes of etcd's errors."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.errors import Compacted, LeaseLost, RegistryDenied, RegistryUnavailable
from agent.etcd.connection import Credentials
from agent.etcd.registry import DEFAULT_PREFIX, EtcdRegistry, Watch
from agent.lease import Delta, Lease, LeaseAdded
from tests.netns.etcd_server import EtcdProxy, EtcdServer, access_control, answers, jwt_option
from tests.netns.managed_node import ManagedNode
from tests.unit.fake_registry import NODE1, NODE2, OTHER_SUBNET, SUBNET, check_registry
from tests.waiting import constantly, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

TTL_S = 3


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def proxy(tmp_path: Path, etcd: EtcdServer) -> Iterator[EtcdProxy]:
    proxy = EtcdProxy(tmp_path, etcd.endpoint)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def registry(proxy: EtcdProxy, undo: ExitStack) -> EtcdRegistry:
    return registry_of(proxy.endpoint, undo)


def registry_of(endpoint: str, undo: ExitStack, credentials: Credentials | None = None) -> EtcdRegistry:
    registry = EtcdRegistry([endpoint], credentials=credentials)
    undo.callback(registry.close)
    wait_until(lambda: answers(registry), timeout_s=15, what="etcd answers")
    return registry


def node_behind(proxy: EtcdProxy, undo: ExitStack, public_ip: str = "192.168.8.227") -> tuple[ManagedNode, Lease]:
    """Return a node that has its lease and follows the others'."""
    node = ManagedNode(proxy.endpoint, public_ip, ttl_s=TTL_S)
    undo.callback(node.stop)
    lease = node.acquire()
    assert lease is not None
    node.start()
    wait_until(lambda: node.manager.revision > 0, timeout_s=30, what="the first list")
    return node, lease


def left_s(node: ManagedNode) -> float:
    left = node.manager.seconds_left()
    assert left is not None
    return left


def test_a_registry_behind_a_proxy_keeps_what_every_registry_keeps(registry: EtcdRegistry) -> None:
    check_registry(registry)


@pytest.mark.row("F49")
def test_a_short_lease_is_kept_for_longer_than_its_life_and_is_the_same(
    etcd: EtcdServer, proxy: EtcdProxy, undo: ExitStack
) -> None:
    node, lease = node_behind(proxy, undo)
    constantly(lambda: left_s(node) > 0, for_s=3 * TTL_S, what="the lease has time left")
    assert etcd.leases() == [f"{lease.etcd_lease_id:016x}"]
    assert node.manager.lease == lease, "never lost and taken again"


@pytest.mark.row("F49")
def test_the_proxy_does_not_renew_for_a_node_that_has_ended(
    etcd: EtcdServer, proxy: EtcdProxy, undo: ExitStack
) -> None:
    node, _ = node_behind(proxy, undo)
    wait_until(lambda: left_s(node) < TTL_S * 0.9, timeout_s=TTL_S, what="time passes")
    wait_until(lambda: left_s(node) > TTL_S * 0.9, timeout_s=TTL_S, what="a renewal")
    node.stop()
    wait_until(lambda: etcd.leases() == [], timeout_s=TTL_S + 3, what="the lease ends")


@pytest.mark.row("F49")
@pytest.mark.parametrize("who", ["proxy", "etcd"])
def test_lease_and_peers_outlive_a_restart_of(who: str, etcd: EtcdServer, proxy: EtcdProxy, undo: ExitStack) -> None:
    node, lease = node_behind(proxy, undo)
    other = registry_of(etcd.endpoint, undo)
    server = proxy if who == "proxy" else etcd
    server.stop()
    server.start()
    wait_until(lambda: answers(other), timeout_s=30, what="etcd answers")
    other.create(OTHER_SUBNET, NODE2, ttl_s=600)
    wait_until(lambda: node.peers == [str(OTHER_SUBNET)], timeout_s=10, what="the new peer")
    constantly(lambda: left_s(node) > 0, for_s=2 * TTL_S, what="the lease has time left")
    assert node.manager.lease is not None
    assert node.manager.lease.subnet == lease.subnet
    assert node.fenced == []


def test_a_watch_from_before_a_compaction_reports_it(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    first = registry.create(SUBNET, NODE1, ttl_s=60)
    registry.create(OTHER_SUBNET, NODE2, ttl_s=60)
    etcd.etcdctl("compact", str(etcd.revision()))
    watch = registry.watch(first.mod_revision)
    with pytest.raises(Compacted):
        wait_until(lambda: watch.poll(0.1) and None, timeout_s=5, what="a compaction error")
    watch.cancel()


def test_a_second_watcher_misses_nothing(etcd: EtcdServer, registry: EtcdRegistry, undo: ExitStack) -> None:
    """The proxy joins watches of the same keys to one of its own."""
    other = registry_of(etcd.endpoint, undo)
    before = registry.list_leases().revision
    first = registry.watch(before + 1)
    created = [other.create(SUBNET, NODE1, ttl_s=60), other.create(OTHER_SUBNET, NODE2, ttl_s=60)]
    wait_until(lambda: events(first), timeout_s=5, what="an event")
    second = registry.watch(before + 1)
    found: list[object] = []
    while len(found) < len(created):
        found += wait_until(lambda: events(second), timeout_s=5, what="events from the start")
    assert found == [LeaseAdded(lease) for lease in created]
    for watch in (first, second):
        watch.cancel()


def events(watch: Watch) -> tuple[object, ...]:
    """Return what comes next. Raises RegistryUnavailable when the watch has ended."""
    seen = watch.poll(0.1)
    return seen.events if isinstance(seen, Delta) else ()


def test_an_answer_of_etcds_that_is_an_error_costs_no_watch(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    created = registry.create(SUBNET, NODE1, ttl_s=60)
    watch = registry.watch(created.mod_revision + 1)
    etcd.etcdctl("lease", "revoke", f"{created.etcd_lease_id:x}")
    etcd.etcdctl("put", f"{DEFAULT_PREFIX}/subnets/{SUBNET.key}", NODE1.to_json())
    found = registry.get(SUBNET)
    assert isinstance(found, Lease)
    with pytest.raises(LeaseLost, match="requested lease not found"):
        registry.update(Lease(SUBNET, NODE1, created.etcd_lease_id, found.mod_revision), NODE1)
    created = registry.create(OTHER_SUBNET, NODE2, ttl_s=60)
    wait_until(lambda: LeaseAdded(created) in events(watch), timeout_s=5, what="the next event")
    watch.cancel()


@pytest.mark.parametrize("behind", ["etcd itself", "a proxy"])
@pytest.mark.parametrize("tokens", ["simple", "jwt"])
def test_a_token_that_is_stale_is_replaced(behind: str, tokens: str, tmp_path: Path, undo: ExitStack) -> None:
    """A simple one is forgotten when etcd restarts, a JWT is void when any user or role changes."""
    server = EtcdServer(tmp_path)
    server.flags = ["--auth-token=simple" if tokens == "simple" else jwt_option(tmp_path, "10m")]
    undo.callback(server.stop)
    server.start()
    access_control(server.etcdctl)
    server.etcdctl_flags = ["--user=root:secret"]
    proxy = EtcdProxy(tmp_path, server.endpoint)
    undo.callback(proxy.stop)
    proxy.start()
    endpoint = server.endpoint if behind == "etcd itself" else proxy.endpoint
    registry = registry_of(endpoint, undo, Credentials(user="node", password="pass"))
    created = registry.create(SUBNET, NODE1, ttl_s=60)
    for number, call in enumerate(calls(registry, created)):
        if tokens == "simple":
            server.stop()
            server.start()
        else:
            server.etcdctl("user", "add", f"guest{number}:pass")
        wait_until(lambda call=call: worked(call), timeout_s=20, what=f"call {number}")  # type: ignore[misc]


def calls(registry: EtcdRegistry, created: Lease) -> list[Callable[[], object]]:
    """Return one of each kind that asks for a token: a read, a renewal with a read, a write, a watch."""
    return [
        lambda: registry.get(SUBNET) == created,
        lambda: registry.keep_alive_and_get(created.etcd_lease_id, SUBNET) == (60, created),
        lambda: registry.update(created, NODE1),
        lambda: registry.watch(created.mod_revision).poll(2),
    ]


def worked(call: Callable[[], object]) -> bool:
    """Return whether it did; a refusal is never passed over, since who starts an agent ends with it."""
    try:
        return bool(call())
    except RegistryUnavailable:
        return False


def test_a_refusal_is_not_taken_for_an_etcd_that_is_away(etcd: EtcdServer, proxy: EtcdProxy, undo: ExitStack) -> None:
    access_control(etcd.etcdctl)
    for user, password, prefix, complaint in (
        ("node", "wrong", DEFAULT_PREFIX, "authentication failed"),
        (None, None, DEFAULT_PREFIX, "user name is empty"),
        ("node", "pass", "/elsewhere", "permission denied"),
    ):
        refused = EtcdRegistry([proxy.endpoint], prefix, Credentials(user=user, password=password))
        undo.callback(refused.close)
        with pytest.raises(RegistryDenied, match=complaint):
            refused.list_leases()
