"""The registry on a real etcd: what it keeps, and what it says when etcd is away, sick or refuses."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.daemon.pacing import SystemClock
from agent.errors import AgentError, Compacted, RegistryDenied, RegistryUnavailable, SubnetTaken
from agent.etcd.connection import Credentials
from agent.etcd.registry import DEFAULT_PREFIX, EtcdRegistry
from agent.lease import BadEntry, Delta, Lease
from tests.netns.etcd_server import EtcdServer, access_control, answers, free_port
from tests.netns.managed_node import ManagedNode
from tests.unit.fake_registry import NODE1, NODE2, OTHER_SUBNET, SUBNET, attrs, check_registry
from tests.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

SUBNETS = f"{DEFAULT_PREFIX}/subnets"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def registry(etcd: EtcdServer) -> Iterator[EtcdRegistry]:
    with ExitStack() as undo:
        registry = EtcdRegistry([etcd.endpoint], deadline_s=1)
        undo.callback(registry.close)
        wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers")
        yield registry


def test_etcd_keeps_what_every_registry_keeps(registry: EtcdRegistry) -> None:
    check_registry(registry)


def test_keys_and_values_are_flannels_and_have_a_lease_of_the_right_ttl(
    etcd: EtcdServer, registry: EtcdRegistry
) -> None:
    registry.create(SUBNET, NODE1, ttl_s=86400)
    shown = etcd.etcdctl("get", "--prefix", "/", "-w", "fields")
    assert '"Key" : "/coreos.com/network/subnets/10.0.46.0-24"' in shown
    assert r'"Value" : "{\"PublicIP\":\"192.168.8.227\",\"PublicIPv6\":null}"' in shown
    [lease] = etcd.leases()
    assert "granted with TTL(86400s)" in etcd.etcdctl("lease", "timetolive", lease)


def test_a_lost_race_leaves_no_lease_behind(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    registry.create(SUBNET, NODE1, ttl_s=60)
    with pytest.raises(SubnetTaken):
        registry.create(SUBNET, NODE2, ttl_s=60)
    assert len(etcd.leases()) == 1


@pytest.mark.row("B40", "B41")
def test_reservations_and_junk_are_distinguished(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    etcd.etcdctl("put", f"{SUBNETS}/10.0.46.0-24", NODE1.to_json())
    for key in ("10.0.5.0", "10.0.5.300-24", "x10.0.5.0-24", "10.0.5.0-024", "10.0.5.1-24"):
        etcd.etcdctl("put", f"{SUBNETS}/{key}", NODE2.to_json())
    etcd.etcdctl("put", f"{SUBNETS}-old/10.0.7.0-24", NODE2.to_json())
    etcd.etcdctl("put", f"{SUBNETS}/10.0.6.0-24", '{"PublicIP":5}')
    snapshot = registry.list_leases()
    reservation = snapshot.leases[SUBNET]
    assert reservation.is_reservation
    assert list(snapshot.leases) == [SUBNET]
    assert len(snapshot.bad) == 7
    assert registry.update(reservation, NODE1).is_reservation
    renewed = registry.renew(reservation, NODE1, 60) if registry.get(SUBNET) == reservation else None
    assert renewed is None, "the update must have changed the revision"


def test_a_revoked_lease_is_seen_as_a_removal_and_answers_no_keep_alive(
    etcd: EtcdServer, registry: EtcdRegistry
) -> None:
    created = registry.create(SUBNET, NODE1, ttl_s=60)
    watch = registry.watch(created.mod_revision + 1)
    etcd.etcdctl("lease", "revoke", f"{created.etcd_lease_id:x}")
    delta = wait_until(lambda: watch.poll(0.1), timeout_s=5, what="a removal")
    assert isinstance(delta, Delta)
    assert [type(event).__name__ for event in delta.events] == ["LeaseRemoved"]
    assert registry.keep_alive(created.etcd_lease_id) <= 0
    with pytest.raises(AgentError, match="is gone"):
        registry.update(created, NODE1)
    watch.cancel()


@pytest.mark.row("B41")
def test_a_value_that_becomes_junk_is_a_removal_and_a_bad_entry(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    created = registry.create(SUBNET, NODE1, ttl_s=60)
    watch = registry.watch(created.mod_revision + 1)
    etcd.etcdctl("put", f"{SUBNETS}/10.0.46.0-24", "junk")
    delta = wait_until(lambda: watch.poll(0.1), timeout_s=5, what="a delta")
    assert isinstance(delta, Delta)
    assert delta.bad == (registry.get(SUBNET),)
    assert isinstance(delta.bad[0], BadEntry)
    assert [type(event).__name__ for event in delta.events] == ["LeaseRemoved"]
    watch.cancel()


def test_a_watch_from_before_a_compaction_reports_it(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    first = registry.create(SUBNET, NODE1, ttl_s=60)
    registry.create(OTHER_SUBNET, NODE2, ttl_s=60)
    etcd.etcdctl("compact", str(etcd.revision()))
    watch = registry.watch(first.mod_revision)
    with pytest.raises(Compacted):
        wait_until(lambda: watch.poll(0.1) and None, timeout_s=5, what="a compaction error")
    watch.cancel()


def test_a_stopped_etcd_is_unavailable_and_is_used_again_when_it_is_back(
    etcd: EtcdServer, registry: EtcdRegistry
) -> None:
    created = registry.create(SUBNET, NODE1, ttl_s=60)
    watch = registry.watch(created.mod_revision + 1)
    etcd.stop()
    with pytest.raises(RegistryUnavailable, match=etcd.endpoint):
        registry.list_leases()
    with pytest.raises(RegistryUnavailable):
        wait_until(lambda: watch.poll(0.1) and None, timeout_s=5, what="the watch ends")
    etcd.start()
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers again")
    assert registry.get(SUBNET) == created


def test_a_silent_etcd_costs_one_deadline_per_call(etcd: EtcdServer, registry: EtcdRegistry) -> None:
    registry.list_leases()
    etcd.pause()
    started = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="no answer in time"):
        registry.list_leases()
    with pytest.raises(RegistryUnavailable):
        registry.watch(1)
    assert 2 <= time.monotonic() - started < 4
    etcd.resume()
    assert answers(registry)


def test_the_next_endpoint_is_used_when_one_is_away(etcd: EtcdServer) -> None:
    away = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    registry = EtcdRegistry([*away, etcd.endpoint], deadline_s=1)
    assert registry.list_leases().leases == {}
    etcd.stop()
    with pytest.raises(RegistryUnavailable):
        registry.list_leases()
    etcd.start()
    wait_until(lambda: answers(registry), timeout_s=30, what="etcd answers again")
    registry.close()
    with pytest.raises(RegistryUnavailable, match="closed"):
        registry.list_leases()


def test_cancelling_and_closing_end_a_poll_that_waits_and_leave_no_thread(etcd: EtcdServer) -> None:
    before = set(threading.enumerate())
    for end in ("cancel", "close"):
        registry = EtcdRegistry([etcd.endpoint])
        watch = registry.watch(1)
        timer = threading.Timer(0.2, watch.cancel if end == "cancel" else registry.close)
        timer.start()
        started = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            watch.poll(10)
        assert time.monotonic() - started < 3
        watch.cancel()
        registry.close()
        timer.join()
    wait_until(lambda: set(threading.enumerate()) <= before, timeout_s=5, what="threads end")


def test_connections_that_come_and_go_leave_no_thread_and_no_descriptor(etcd: EtcdServer) -> None:
    """etcd3 leaks a channel and a thread for each client that is forgotten instead of closed."""

    def held() -> int:
        return threading.active_count() + len(list(Path("/proc/self/fd").iterdir()))

    registry = EtcdRegistry([etcd.endpoint], deadline_s=2)
    counts = []
    for number in range(60):
        registry.list_leases()
        watch = registry.watch(1)
        registry.reconnect()
        with pytest.raises(RegistryUnavailable):
            wait_until(lambda watch=watch: watch.poll(0.1) and None, timeout_s=5, what="its watch ends")  # type: ignore[misc]
        watch.cancel()
        if number >= 10:
            counts.append(held())
    registry.close()
    assert max(counts[-10:]) <= max(counts[:10]) + 3, counts


def test_a_full_etcd_still_renews_and_its_complaint_is_kept(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path, ["--quota-backend-bytes=1000000"])
    server.endpoint = server.endpoint.replace("https", "http")
    try:
        server.start()
        registry = EtcdRegistry([server.endpoint])
        created = registry.create(SUBNET, NODE1, ttl_s=60)
        with pytest.raises(AssertionError, match="database space exceeded"):
            fill(server)
        assert registry.keep_alive(created.etcd_lease_id) == 60
        with pytest.raises(RegistryUnavailable, match="database space exceeded"):
            registry.create(OTHER_SUBNET, NODE2, ttl_s=60)
        registry.close()
    finally:
        server.stop()


def fill(server: EtcdServer) -> None:
    for number in range(50):
        server.etcdctl("put", f"/junk/{number}", "x" * 100_000)


@pytest.mark.slow
@pytest.mark.row("B7")
def test_users_and_roles_are_respected(etcd: EtcdServer) -> None:
    access_control(etcd.etcdctl)

    def registry(user: str | None, password: str | None, prefix: str = DEFAULT_PREFIX) -> EtcdRegistry:
        return EtcdRegistry([etcd.endpoint], prefix, Credentials(user=user, password=password))

    allowed = registry("node", "pass")
    created = allowed.create(SUBNET, NODE1, ttl_s=60)
    watch = allowed.watch(created.mod_revision)
    assert isinstance(watch.poll(2), Delta)
    watch.cancel()
    # A restarted etcd has forgotten all tokens.
    etcd.stop()
    etcd.start()
    wait_until(lambda: answers(allowed), timeout_s=30, what="etcd answers again")
    assert allowed.get(SUBNET) == created
    allowed.close()
    for user, password, prefix, complaint in (
        ("node", "wrong", DEFAULT_PREFIX, "authentication failed"),
        (None, None, DEFAULT_PREFIX, "user name is empty"),
        ("node", "pass", "/elsewhere", "permission denied"),
    ):
        refused = registry(user, password, prefix)
        with pytest.raises(RegistryDenied, match=complaint):
            refused.list_leases()
        with pytest.raises(RegistryDenied) as caught:
            refused.watch(1).poll(2)
        assert "wrong" not in str(caught.value)
        refused.close()


def test_a_password_that_is_not_asked_for_does_no_harm(etcd: EtcdServer) -> None:
    registry = EtcdRegistry([etcd.endpoint], credentials=Credentials(user="node", password="pass"))
    assert registry.list_leases().leases == {}
    registry.close()


@pytest.mark.row("F40")
@pytest.mark.row("B7")
def test_tls_with_client_certificates_works_and_its_failures_are_distinguished(tmp_path: Path) -> None:
    ca, server_pair = authority(tmp_path, "ca"), pair(tmp_path, "ca", "server")
    client = pair(tmp_path, "ca", "client")
    other_ca = authority(tmp_path, "other")
    server = EtcdServer(
        tmp_path,
        [
            f"--cert-file={server_pair[0]}",
            f"--key-file={server_pair[1]}",
            f"--trusted-ca-file={ca}",
            "--client-cert-auth",
        ],
    )
    try:
        server.start()
        good = Credentials(ca, *client)
        works = EtcdRegistry([server.endpoint], credentials=good)
        wait_until(lambda: answers(works), timeout_s=30, what="etcd answers")
        works.close()
        http = server.endpoint.replace("https", "http")
        absent, swapped = tmp_path / "absent.pem", (client[1], client[0])
        cases: list[tuple[str, Credentials, type[AgentError], str]] = [
            (server.endpoint, Credentials(other_ca, *client), RegistryDenied, "not signed by the authority"),
            (server.endpoint, Credentials(absent, *client), RegistryDenied, str(absent)),
            (server.endpoint, Credentials(ca, *swapped), RegistryDenied, "does not match the key"),
            (server.endpoint, Credentials(ca), RegistryDenied, "may require another client certificate"),
            (server.endpoint.replace("127.0.0.1", "localhost"), good, RegistryDenied, "another name or address"),
            (http, Credentials(), RegistryUnavailable, "Socket closed"),
        ]
        for endpoint, credentials, expected, complaint in cases:
            refused = EtcdRegistry([endpoint], credentials=credentials, deadline_s=2)
            with pytest.raises(expected, match=complaint):
                refused.list_leases()
            refused.close()
    finally:
        server.stop()


@pytest.mark.row("B7")
def test_an_expired_certificate_is_reported(tmp_path: Path) -> None:
    ca, expired = authority(tmp_path, "ca"), pair(tmp_path, "ca", "server", days=-1)
    server = EtcdServer(tmp_path, [f"--cert-file={expired[0]}", f"--key-file={expired[1]}"])
    registry = EtcdRegistry([server.endpoint], credentials=Credentials(ca), deadline_s=2)
    try:
        server.start()
        denied = wait_until(lambda: refusal(registry), timeout_s=10, what="etcd listens and is refused")
        assert "etcd's certificate has expired" in denied
    finally:
        registry.close()
        server.stop()


def refusal(registry: EtcdRegistry) -> str:
    """Return why etcd, once it listens, cannot be used."""
    try:
        registry.list_leases()
    except RegistryDenied as error:
        return str(error)
    except RegistryUnavailable:
        pass
    return ""


def authority(directory: Path, name: str) -> Path:
    """Make a certificate authority; returns its certificate."""
    certificate = directory / f"{name}.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", str(directory / f"{name}.key"), "-out", str(certificate))  # fmt: skip
    return certificate


def pair(directory: Path, ca: str, name: str, days: int = 2) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 signed by `ca`, and its key; with negative `days` one that has expired."""
    certificate, key, request = (directory / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
    extensions = directory / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", str(key), "-out", str(request))  # fmt: skip
    openssl("x509", "-req", "-in", str(request), "-CA", str(directory / f"{ca}.pem"), "-CAkey",
            str(directory / f"{ca}.key"), "-CAcreateserial", "-days", str(days), "-extfile", str(extensions),
            "-out", str(certificate))  # fmt: skip
    return certificate, key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=20)


# --- the policy on top, against a real etcd


@pytest.mark.row("F25")
def test_twenty_nodes_that_race_for_twenty_subnets_get_one_each(etcd: EtcdServer) -> None:
    network = '{"Network":"10.0.0.0/16","SubnetMin":"10.0.1.0","SubnetMax":"10.0.20.0"}'
    nodes = [ManagedNode(etcd.endpoint, f"192.168.8.{number}", network) for number in range(1, 22)]
    last = nodes.pop()
    try:
        threads = [threading.Thread(target=node.acquire) for node in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        leases = [node.manager.lease for node in nodes]
        assert len({lease.subnet for lease in leases if lease is not None}) == 20
        assert len(etcd.leases()) == 20
        stop = threading.Event()
        threading.Timer(1, stop.set).start()
        assert last.manager.acquire(stop) is None
    finally:
        for node in [*nodes, last]:
            node.stop()


@pytest.mark.row("C16")
def test_a_revoked_lease_is_taken_again_at_once(etcd: EtcdServer) -> None:
    node = ManagedNode(etcd.endpoint, "192.168.8.227")
    try:
        lease = node.acquire()
        assert lease is not None
        node.start()
        wait_until(lambda: node.manager.revision > 0, timeout_s=30, what="the first list")
        etcd.etcdctl("lease", "revoke", f"{lease.etcd_lease_id:x}")
        wait_until(lambda: node.manager.lease != lease, timeout_s=3, what="a new lease")
        again = node.manager.lease
        assert again is not None
        assert again.subnet == lease.subnet
        assert node.fenced == []
    finally:
        node.stop()


@pytest.mark.row("F5")
@pytest.mark.row("C14")
def test_a_stolen_subnet_fences_and_the_thief_keeps_it(etcd: EtcdServer) -> None:
    node = ManagedNode(etcd.endpoint, "192.168.8.227")
    try:
        lease = node.acquire()
        assert lease is not None
        node.start()
        wait_until(lambda: node.manager.revision > 0, timeout_s=30, what="the first list")
        etcd.etcdctl("put", f"{SUBNETS}/{lease.subnet.key}", NODE2.to_json())
        wait_until(lambda: node.fenced, timeout_s=3, what="the fence")
        stolen = node.registry.get(lease.subnet)
        assert isinstance(stolen, Lease)
        assert stolen.attrs == NODE2
    finally:
        node.stop()


@pytest.mark.row("F21")
@pytest.mark.slow
@pytest.mark.row("C13")
def test_peers_equal_etcd_after_an_outage_with_compaction(etcd: EtcdServer) -> None:
    node = ManagedNode(etcd.endpoint, "192.168.8.227")
    other = EtcdRegistry([etcd.endpoint], deadline_s=1)
    try:
        node.acquire()
        gone = other.create(SUBNET, NODE2, ttl_s=600)
        node.start()
        wait_until(lambda: node.peers == ["10.0.46.0/24"], timeout_s=5, what="the first peer")
        etcd.stop()
        wait_until(lambda: node.manager.watch_restarts >= 2, timeout_s=10, what="the outage is noticed")
        assert node.peers == ["10.0.46.0/24"]
        # Changed and compacted before the node's watch, which is backing off, is back.
        etcd.start()
        wait_until(lambda: answers(other), timeout_s=30, what="etcd answers")
        other.delete(gone)
        other.create(OTHER_SUBNET, NODE2, ttl_s=600)
        etcd.etcdctl("compact", str(etcd.revision()))
        wait_until(lambda: node.peers == ["10.0.90.0/24"], timeout_s=8, what="the new peer")
        other.create(SUBNET, attrs("192.168.8.229"), ttl_s=600)
        wait_until(lambda: len(node.peers) == 2, timeout_s=2, what="a live event")
        assert node.fenced == []
    finally:
        node.stop()
        other.close()


@pytest.mark.slow
@pytest.mark.row("C25")
def test_a_lease_of_two_seconds_is_kept_for_longer_than_its_life(etcd: EtcdServer) -> None:
    node = ManagedNode(etcd.endpoint, "192.168.8.227", ttl_s=2)
    try:
        lease = node.acquire()
        node.start()
        clock = SystemClock()
        end = clock.now() + 4
        while clock.now() < end:
            assert node.manager.lease == lease
            left_s = node.manager.seconds_left()
            assert left_s is not None
            assert left_s > 0.5
            clock.wait(threading.Event(), 0.05)
    finally:
        node.stop()
