"""Warnings while everything works: another network config in etcd, certificates that expire soon."""

import json
import logging
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from agent.errors import RegistryUnavailable
from agent.netconfig.config import parse_network_config
from agent.node.warnings import OperatorWarnings, read_validity
from testbed.lab.certificates import Authority
from tests.unit.fake_registry import FakeRegistry

STARTED_WITH = b'{"Network":"10.0.0.0/16","Backend":{"Type":"udp"}}'


def operator_warnings(
    registry: FakeRegistry, *certificates: Path, today: datetime | None = None, started_with: bytes = STARTED_WITH
) -> OperatorWarnings:
    now = today or datetime.now(UTC)
    config = parse_network_config(started_with)
    return OperatorWarnings(registry, config, certificates, clock=registry.clock, today=lambda: now)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.row("F26")
def test_another_config_is_reported_once_while_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    registry = FakeRegistry()
    registry.config_text = STARTED_WITH
    watching, stop = operator_warnings(registry), threading.Event()
    changed = b'{"Network":"10.0.0.0/16","SubnetLen":25,"Backend":{"Type":"udp","Port":8290}}'
    registry.clock.at(15, lambda: setattr(registry, "config_text", changed))
    registry.clock.at(60, stop.set)
    watching.run(stop)
    (warning,) = watching.current
    assert told(caplog) == [warning]
    assert "subnet_len 24 → 25" in warning
    assert "restart it to use the new one" in warning
    registry.config_text = STARTED_WITH
    watching.check()
    assert watching.current == ()


def test_a_changed_key_is_warned_of_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    keys = ["YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=", "MTIzNDU2YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo="]
    texts = [
        json.dumps({"Network": "10.0.0.0/16", "Backend": {"Type": "wireguard", "ListenPort": port, "PSK": key}})
        for port, key in zip((51820, 51821), keys, strict=True)
    ]
    registry = FakeRegistry()
    registry.config_text = texts[1].encode()
    watching = operator_warnings(registry, started_with=texts[0].encode())
    watching.check()
    (warning,) = watching.current
    assert "listen_port 51820 → 51821, psk changed" in warning
    assert not any(key in caplog.text + warning + repr(parse_network_config(texts[0].encode())) for key in keys)


@pytest.mark.parametrize(("text", "word"), [(None, "gone from etcd"), (b"{", "no other agent can start")])
def test_a_config_that_went_or_became_junk_is_reported(text: bytes | None, word: str) -> None:
    registry = FakeRegistry()
    registry.config_text = text
    watching = operator_warnings(registry)
    watching.check()
    assert word in watching.current[0]


def test_an_etcd_that_is_away_changes_no_warning() -> None:
    registry = FakeRegistry()
    registry.config_text = None
    watching = operator_warnings(registry)
    watching.check()
    before = watching.current
    registry.config_text, registry.failure = STARTED_WITH, RegistryUnavailable("away")
    watching.check()
    assert watching.current == before != ()
    registry.failure = None
    watching.check()
    assert watching.current == ()


@pytest.mark.row("F40")
def test_a_certificate_is_warned_of_before_it_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = FakeRegistry()
    registry.config_text = STARTED_WITH
    authority = Authority("test")
    files = authority.issue(tmp_path, str(tmp_path), "node1", (IPv4Address("192.168.8.1"),))
    certificate, ca = Path(files.certificate), Path(files.ca)
    ends = read_validity(certificate).ends
    for before, said in ((timedelta(days=8), None), (timedelta(days=6), "expires"), (timedelta(0), "has expired")):
        watching = operator_warnings(registry, certificate, ca, today=ends - before)
        watching.check()
        found = [warning for warning in watching.current if str(certificate) in warning]
        assert [f" {said} at {ends:%Y-%m-%dT%H:%M:%SZ}" in warning for warning in found] == ([True] if said else [])
    assert len(told(caplog)) >= 2


def test_a_short_life_is_warned_of_in_its_last_third(tmp_path: Path) -> None:
    files = Authority("test").issue(tmp_path, str(tmp_path), "node1", life=timedelta(hours=3))
    validity = read_validity(Path(files.certificate))
    whole = validity.ends - validity.begins
    assert not validity.ends_soon(validity.ends - whole / 2)
    assert validity.ends_soon(validity.ends - whole / 4)


def test_the_first_certificate_of_a_file_counts_whatever_stands_before_it(tmp_path: Path) -> None:
    texts = {}
    for days in (3, 9):
        files = Authority("test").issue(tmp_path, str(tmp_path), f"node{days}", life=timedelta(days=days))
        texts[days] = Path(files.certificate).read_text(), Path(files.key).read_text()
    both = tmp_path / "both.pem"
    both.write_text(f"a remark\n{texts[9][1]}\n{texts[3][0]}{texts[9][0]}")
    validity = read_validity(both)
    assert timedelta(days=3) < validity.ends - validity.begins < timedelta(days=4)


def test_a_certificate_of_an_unknown_version_is_an_error_and_ends_nothing(tmp_path: Path) -> None:
    """An exception of another kind would end the thread, and with it the agent."""
    files = Authority("test").issue(tmp_path, str(tmp_path), "node1")
    der = ssl.PEM_cert_to_DER_cert(Path(files.certificate).read_text())
    version_3, version_6 = bytes.fromhex("a003020102"), bytes.fromhex("a003020105")
    assert der.count(version_3) == 1
    Path(files.certificate).write_text(ssl.DER_cert_to_PEM_cert(der.replace(version_3, version_6)))
    with pytest.raises(ValueError, match="node1"):
        read_validity(Path(files.certificate))


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_certificate_is_an_error_that_names_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text(text)
    with pytest.raises(ValueError, match=r"x\.pem: "):
        read_validity(tmp_path / "x.pem")
