"""`etcd: {endpoints}` of a cluster file: what fits together, whose keys are whose, and the gate on the host."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.cluster.agent_words import agent_words
from testbed.cluster.difference import difference
from testbed.cluster.etcd_claim import Claimant, Marker, PrefixClaim
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.cluster.written_out import written_out
from testbed.control.existing_etcd import ExistingEtcd
from testbed.host import etcd_gate
from testbed.host.etcd_gate import CONNECT_LIMIT_S, NUMBER, REQUEST
from testbed.host.gate import open_gate

NODES = "nodes: [node1]\n"
HTTPS = "endpoints: [https://127.0.0.1:2379, https://etcd.example:2379]"
TLS = "ca: /c/ca.pem, cert: /c/me.pem, key: /c/me.key"
CONFIG = '{"Network":"10.0.0.0/16"}'
NODE1, OTHER = IPv4Address("192.168.8.101"), IPv4Address("192.168.8.102")
US = Claimant(lab="mine", host="here", machine="1f", rundir="/run/testbed/mine")
CLAIM = PrefixClaim(US, "/testbed/mine/network", is_named=False)


def read(etcd: str) -> Cluster:
    return read_cluster(f"{NODES}etcd: {{{etcd}}}\n".encode(), "c.yaml")


def problems(etcd: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(etcd)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "etcd",
    [
        "endpoints: [http://127.0.0.1:2379]",
        f"{HTTPS}, {TLS}",
        f"{HTTPS}, {TLS}, user: me, passwordFile: /c/password, prefix: /coreos.com/network",
        f"{HTTPS}, tls: false",
    ],
)
def test_an_existing_cluster_is_a_cluster(etcd: str) -> None:
    cluster = read(etcd)
    assert list(cluster.addresses.etcd) == ["etcd1"]
    assert read_cluster(written_out(cluster).encode(), "c.yaml").etcd == cluster.etcd
    assert not difference(cluster, read_cluster(written_out(cluster).encode(), "c.yaml")).refused


@pytest.mark.parametrize(
    ("etcd", "said"),
    [
        (f"{HTTPS}, members: 3", ["etcd.members: an existing cluster has its own servers (got members;"]),
        (
            f"{HTTPS}, members: 1, program: /opt/etcd",
            ["etcd.members: an existing cluster", "etcd.program: an existing cluster has its own servers"],
        ),
        ("prefix: /x, ca: /ca.pem", ["etcd.prefix: belongs to an existing", "etcd.ca: belongs to an existing"]),
        (
            f"endpoints: [http://a:1, https://b:1], {TLS}",
            ["etcd.endpoints: with and without TLS (got http://a:1, https://b:1; want one scheme)"],
        ),
        ("endpoints: [http://a:1], ca: /ca.pem", ["etcd.ca: a file for TLS (got ca and http://; want https://"]),
        (f"{HTTPS}, cert: /me.pem", ["etcd.cert: cert and key belong together (got cert alone; want key beside it)"]),
        (
            f"{HTTPS}, user: me, key: /k",
            [
                "etcd.user: user and passwordFile belong together (got user alone;",
                "etcd.key: key and cert belong together",
            ],
        ),
        (
            "endpoints: [127.0.0.1:2379]",
            ["etcd.endpoints[0]: endpoint without http:// or https:// (got 127.0.0.1:2379"],
        ),
        ("endpoints: [http://u:p@a:1]", ["endpoint with more than host and port"]),
        (f"{HTTPS}, prefix: x/", ["etcd.prefix: not a key prefix (got x/; want a key such as /coreos.com/network"]),
        (f"{HTTPS}, ca: ca.pem", ["etcd.ca: not an absolute path (got ca.pem;"]),
    ],
)
def test_what_does_not_fit_is_named_at_once(etcd: str, said: list[str]) -> None:
    found = problems(etcd)
    assert len(found) == len(said), found
    for words in said:
        assert [line for line in found if words in line], found


def test_another_cluster_is_refused_in_a_running_lab() -> None:
    running = read(HTTPS)
    assert difference(running, read("endpoints: [https://127.0.0.1:2380]")).refused == (
        "etcd: read once, when the lab starts",
    )


def test_agents_get_a_prefix_that_is_not_flannels_own() -> None:
    values = dict.fromkeys(("etcd", "etcd_ca", "iface", "subnet_file"), "")
    assert "--etcd-prefix=/x" in agent_words(["agent"], {**values, "etcd_prefix": "/x"})
    assert not [
        word for word in agent_words(["agent"], {**values, "etcd_prefix": "/coreos.com/network"}) if "prefix" in word
    ]


def lease(address: IPv4Address) -> bytes:
    return json.dumps({"PublicIP": str(address), "PublicIPv6": None}).encode()


def below(claim: PrefixClaim, **values: bytes) -> dict[str, bytes]:
    """Return keys below a claim's prefix; a double underscore is a slash, a single one a dot."""
    return {f"{claim.prefix}/{name.replace('__', '/').replace('_', '.')}": value for name, value in values.items()}


def refusals(claim: PrefixClaim, found: dict[str, bytes]) -> list[str]:
    return list(claim.refusals(found, CONFIG, {"node1": NODE1}))


def marked(claim: PrefixClaim, *, wrote_config: bool = True) -> dict[str, bytes]:
    return {claim.marker_key: Marker(claim.claimant, wrote_config).to_json().encode()}


NAMED = replace(CLAIM, prefix="/coreos.com/network", is_named=True)


def test_a_free_prefix_is_taken() -> None:
    assert refusals(CLAIM, {}) == refusals(NAMED, {}) == []


def test_what_an_earlier_run_of_the_same_lab_has_left_is_its_own() -> None:
    left = {**below(CLAIM, config=b"{}", subnets__10_0_1_0=lease(NODE1)), **marked(CLAIM)}
    assert refusals(CLAIM, left) == []
    assert refusals(NAMED, {**below(NAMED, config=b"{}"), **marked(NAMED)}) == []


@pytest.mark.parametrize("field", ["host", "machine", "rundir"])
@pytest.mark.parametrize("is_named", [False, True])
def test_a_lab_of_the_same_name_elsewhere_keeps_its_prefix(field: str, is_named: bool) -> None:
    claim = replace(CLAIM, is_named=is_named)
    other = replace(claim, claimant=replace(US, **{field: "elsewhere"}))
    (line,) = refusals(claim, marked(other))
    assert "/testbed/mine/network is in use (got /testbed/mine/network/labs/mine of lab mine of" in line
    # A prefix that a file names may have others' keys.
    assert ("del --prefix /testbed/mine/network/" in line) != is_named
    assert claim.own_keys({**below(claim, config=b"{}"), **marked(other)}, [NODE1]) == []


def test_keys_of_others_below_the_default_prefix_are_refused() -> None:
    (line,) = refusals(CLAIM, below(CLAIM, a=b"", b=b"", c=b"", d=b""))
    assert "has keys of another program (got /testbed/mine/network/a, " in line
    assert ", …; want etcd: {prefix: KEY}" in line


def test_a_named_prefix_may_be_in_use_with_the_same_config() -> None:
    there = below(NAMED, config=b'{ "Network": "10.0.0.0/16" }', subnets__10_0_1_0=lease(OTHER))
    assert refusals(NAMED, there) == []


def test_another_config_and_our_addresses_are_refused_at_once() -> None:
    there = below(NAMED, config=b'{"Network":"10.1.0.0/16"}', subnets__10_0_1_0=lease(NODE1))
    config, address = refusals(NAMED, there)
    assert config.startswith('/coreos.com/network/config is another network\'s (got {"Network":"10.1.0.0/16"}; want ')
    assert "10.0.1.0 is leased to 192.168.8.101, which node1 of this lab has too" in address


def test_below_the_default_prefix_all_is_the_labs() -> None:
    left = {**below(CLAIM, config=b"{}", subnets__10_0_1_0=lease(OTHER), subnets__junk=b"junk"), **marked(CLAIM)}
    assert CLAIM.own_keys(left, [NODE1]) == list(left)


def test_only_what_the_lab_has_made_is_removed_below_a_named_prefix() -> None:
    own = below(NAMED, subnets__10_0_1_0=lease(NODE1))
    others = below(NAMED, subnets__10_0_2_0=lease(OTHER), subnets__junk=b"junk", mine=b"")
    config = below(NAMED, config=CONFIG.encode())
    for wrote_config in (False, True):
        marker = marked(NAMED, wrote_config=wrote_config)
        assert NAMED.own_keys({**own, **others, **config, **marker}, [NODE1]) == [*own, *marker]
        assert NAMED.own_keys({**own, **config, **marker}, [NODE1]) == [
            *own,
            *(config if wrote_config else ()),
            *marker,
        ]
    assert NAMED.own_keys({**own, **others, **config}, [NODE1]) == []


@pytest.mark.parametrize("value", [b"", b"junk", b"[]", b"3", b"{}", b'{"config": true}', b'{"config":1,"x":2}'])
def test_a_value_that_is_no_marker_is_nobodys(value: bytes) -> None:
    assert Marker.from_json(value) is None
    assert "of another program" in refusals(CLAIM, {CLAIM.marker_key: value})[0]


def test_secrets_do_not_show() -> None:
    existing = ExistingEtcd(endpoints=("https://a:1",), claim=CLAIM, key="KEY", password="secret", certificate="CERT")
    assert not [word for word in ("KEY", "secret", "CERT") if word in repr(existing)]
    assert ExistingEtcd.from_json(existing.to_json()) == existing


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def gate_to(*endpoints: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    gate = open_gate(ExistingEtcd(endpoints=endpoints, claim=CLAIM))
    gate.lab_end.settimeout(60)
    assert ExistingEtcd.from_json(gate.lab_end.recv(100_000)).endpoints == endpoints
    return gate.process, gate.lab_end


def ask(lab: socket.socket, number: int, index: int) -> tuple[int, str, list[int]]:
    lab.send(REQUEST.pack(number, index))
    data, descriptors, _, _ = socket.recv_fds(lab, 1000, 2)
    return NUMBER.unpack_from(data)[0], data[NUMBER.size :].decode(), descriptors


def test_the_gate_hands_over_connections_to_its_endpoints_only(listener: socket.socket) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in (listener, closed)]
        process, lab = gate_to(*(f"http://127.0.0.1:{port}" for port in ports))
        with lab:
            number, why, (descriptor,) = ask(lab, 7, 0)
            assert (number, why) == (7, "")
            with socket.socket(fileno=descriptor) as connected:
                accepted, _ = listener.accept()
                with accepted:
                    connected.sendall(b"bytes")
                    assert accepted.recv(10) == b"bytes"
            assert ask(lab, 8, 1) == (8, "Connection refused", [])
            assert ask(lab, 9, 2) == (9, "no such endpoint", [])
        assert process.wait(60) == 0


def test_the_gate_keeps_no_descriptor_that_the_lab_sends(listener: socket.socket) -> None:
    process, lab = gate_to(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{process.pid}/fd"))

    with lab:
        ask(lab, 1, 1)
        before = descriptors()
        for number in range(20):
            socket.send_fds(lab, [REQUEST.pack(number, 1)], [listener.fileno()])
            lab.recv(100)
        assert descriptors() == before
    assert process.wait(60) == 0


def test_the_gate_ends_with_the_lab_even_while_it_connects() -> None:
    # TEST-NET-1 (RFC 5737): an address of no machine.
    process, lab = gate_to("http://192.0.2.1:9")
    with lab:
        for number in range(40):
            lab.send(REQUEST.pack(number, 0))
        data = lab.recv(100)
        assert data[NUMBER.size :].decode()
    assert process.wait(CONNECT_LIMIT_S - 1) == 0


def test_the_gate_goes_on_where_it_can_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        lab, gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with lab, gate:
            for number in range(etcd_gate.MOST + 1):
                lab.send(REQUEST.pack(number, 0))
            lab.shutdown(socket.SHUT_WR)
            etcd_gate.serve(gate, [("127.0.0.1", 1)])
            answers = {lab.recv(100)[NUMBER.size :] for _ in range(etcd_gate.MOST + 1)}
    assert answers == {b"can't start new thread"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_the_gate_has_no_rights(listener: socket.socket) -> None:
    process, lab = gate_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with lab:
        ask(lab, 1, 1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["65534"] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
        assert fields["Groups"].strip() == ""
    assert process.wait(60) == 0
