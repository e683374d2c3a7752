import re
import ssl
import subprocess
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed.lab.certificates import Authority


@pytest.fixture
def authority() -> Authority:
    return Authority("test")


def openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], capture_output=True, text=True, check=True).stdout


def test_a_server_s_certificate_names_its_addresses_and_is_the_authority_s(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue(tmp_path / "tls", "/run/tls", "etcd1", [IPv4Address("192.168.8.11"), IPv4Address("127.0.0.1")])
    certificate = str(tmp_path / "tls" / "etcd1.pem")
    assert "OK" in openssl("verify", "-CAfile", str(tmp_path / "tls" / "ca.pem"), certificate)
    text = openssl("x509", "-in", certificate, "-noout", "-text")
    for word in ("IP Address:192.168.8.11", "IP Address:127.0.0.1", "TLS Web Server", "TLS Web Client", "prime256v1"):
        assert word in text
    assert re.search(r"Subject: CN ?= ?etcd1\n", text)  # without blanks since OpenSSL 3.2


@pytest.mark.parametrize(("addresses", "purpose"), [([IPv4Address("127.0.0.1")], "sslserver"), ([], "sslclient")])
def test_certificates_are_accepted_by_strict_verifiers(
    addresses: list[IPv4Address], purpose: str, authority: Authority, tmp_path: Path
) -> None:
    """RFC 5280, to the letter; Python does so since 3.13."""
    authority.issue(tmp_path, "/run/tls", "a", addresses)
    strict = ("verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(tmp_path / "ca.pem"))
    assert "OK" in openssl(*strict, str(tmp_path / "a.pem"))


def test_a_client_s_certificate_cannot_serve(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue(tmp_path / "tls", "/run/tls", "agent-node1")
    assert files.certificate == "/run/tls/agent-node1.pem"
    text = openssl("x509", "-in", str(tmp_path / "tls" / "agent-node1.pem"), "-noout", "-text")
    assert "TLS Web Server" not in text


def test_key_and_certificate_belong_together_and_nobody_else_may_read_them(
    authority: Authority, tmp_path: Path
) -> None:
    directory = tmp_path / "tls"
    authority.issue(directory, "/run/tls", "a")
    ssl.create_default_context().load_cert_chain(directory / "a.pem", directory / "a.key")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_an_expired_certificate_can_be_asked_for(authority: Authority, tmp_path: Path) -> None:
    authority.issue(tmp_path, "/run/tls", "a", life=timedelta(minutes=-1))
    done = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "a.pem"), "-noout", "-checkend", "0"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1


def test_another_lab_s_authority_is_a_stranger(tmp_path: Path) -> None:
    Authority("one").issue(tmp_path / "one", "/run/tls", "a")
    Authority("one").issue(tmp_path / "two", "/run/tls", "a")
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(tmp_path / "one" / "ca.pem"), str(tmp_path / "two" / "a.pem")],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
