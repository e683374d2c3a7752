"""Faults of etcd, leases and certificates that cannot be injected leave everything as it was."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.lease import Lease, LeaseAttrs, Subnet
from testbed.errors import EtcdFailed, TestbedError
from testbed.faults import certificate_faults, etcd_faults
from testbed.faults.catalogue import parse
from testbed.faults.certificate_faults import EXPIRED, CertificateFaults
from testbed.faults.etcd_faults import EtcdFaults
from testbed.faults.lease_faults import LeaseFaults
from testbed.faults.ledger import FaultImpossible
from testbed.lab.certificates import LIFE
from testbed.lab.nodes import Nodes

ADDRESS = IPv4Address("192.168.8.227")


class Etcd:
    """An etcd of one member that answers no client."""

    is_the_labs = True

    def __init__(self) -> None:
        self.starts: list[tuple[str, ...]] = []
        self.asked: list[str] = []
        self.member: Any = SimpleNamespace(
            name="etcd1", extra_flags=(), healthy=lambda: True, answers=lambda: True, why_not_healthy=lambda: None
        )
        self.member.process = SimpleNamespace(pid=7, state="running", restart=self.restart)
        self.members = (self.member,)

    def restart(self) -> None:
        self.starts.append(self.member.extra_flags)

    def etcdctl(self, arguments: Sequence[str], **_: object) -> bytes:
        self.asked.append(" ".join(arguments))
        raise EtcdFailed("etcdctl: context deadline exceeded")


def test_a_quota_that_raises_no_alarm_is_taken_back() -> None:
    etcd = Etcd()
    registry: Any = SimpleNamespace(etcd=etcd)
    with pytest.raises(EtcdFailed, match="deadline exceeded"):
        EtcdFaults(registry, lambda: registry.cluster).quota(parse(["etcd", "quota", "etcd1"]))
    assert etcd.starts == [("--quota-backend-bytes=1",), ()]


@pytest.mark.parametrize("what", ["wipe", "restore"])
def test_a_member_that_does_not_start_with_other_data_gets_its_own_back(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def resume() -> None:
        said.append("resumed")
        data.mkdir(exist_ok=True)

    etcd, said, data = Etcd(), ["running"], tmp_path / "etcd"
    (data / "member").mkdir(parents=True)
    (tmp_path / "etcd-snapshot.db").touch()
    etcd.member.data, etcd.member.healthy = data, lambda: False
    etcd.member.why_not_healthy, etcd.member.peer_url = lambda: "etcd1 exited with 1", "https://etcd1:2380"
    etcd.member.process.hold, etcd.member.process.resume = lambda **_: said.append("held"), resume
    registry: Any = SimpleNamespace(etcd=etcd)
    request = parse(["etcd", what, "etcd1"])
    monkeypatch.setattr(etcd_faults, "ANSWER_LIMIT_S", 0.0)
    with pytest.raises(TestbedError, match=r"exited with 1|deadline exceeded"):
        EtcdFaults(registry, lambda: registry.cluster).injectors()[request.kind.name](request)
    assert (data / "member").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etcd", "etcd-snapshot.db"]
    assert said[-2:] == ["held", "resumed"]


@pytest.mark.parametrize("what", ["revoke", "delete", "steal"])
def test_a_reservation_is_not_taken_from_its_node(what: str) -> None:
    etcd = Etcd()
    reserved = Lease(Subnet(IPv4Network("10.0.46.0/24")), LeaseAttrs(ADDRESS), etcd_lease_id=0, mod_revision=1)
    registry: Any = SimpleNamespace(etcd=etcd, leases=lambda: [reserved], key_of=str)
    nodes = Nodes()
    node: Any = SimpleNamespace(name="node1", address=ADDRESS, expected=True)
    nodes.add([node])
    request = parse(["lease", what, "node1"])
    with pytest.raises(FaultImpossible, match=f"lease {what} node1: node1's key is a reservation, without a lease"):
        LeaseFaults(nodes, registry).injectors()[request.kind.name](request)
    assert etcd.asked == []


def test_a_certificate_whose_old_connections_stay_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise OSError("ss: not found")

    issued: list[timedelta] = []
    monkeypatch.setattr(certificate_faults, "run", refuse)
    authority: Any = SimpleNamespace(issue=lambda *_, life: issued.append(life))
    node: Any = SimpleNamespace(name="node1", pid=1, expected=True, run=Path("/run"))
    nodes = Nodes()
    nodes.add([node])
    with pytest.raises(OSError, match="not found"):
        CertificateFaults(nodes, authority).expire(parse(["certificate", "expire", "node1"]))
    assert issued == [EXPIRED, LIFE]
