"""The lab's own certificate authority for etcd and its clients.

Keys are EC P-256, which take well under a millisecond to create. The authority's key stays in this process; the others
are in a directory of mode 0700, in files of mode 0600.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.plain_files import replace_plain

LIFE = timedelta(days=365)
SKEW = timedelta(minutes=5)
"""Before now, for clocks that are behind."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of a machine's own certificate and the authority's, as the machine sees them."""

    ca: str
    certificate: str
    key: str


class Authority:
    """Issues certificates until the lab ends."""

    def __init__(self, lab: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"testbed {lab}")
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
        self._certificate = (
            builder.not_valid_before(now - SKEW)
            .not_valid_after(now + LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue(
        self,
        directory: Path,
        seen_as: str,
        name: str,
        addresses: Collection[IPv4Address] = (),
        life: timedelta = LIFE,
    ) -> TlsFiles:
        """Write a new key and a certificate for `name` into `directory`, which the machine sees as `seen_as`.

        With `addresses` it is a server's; without, a client's only. Raises OSError.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
        builder = (
            x509.CertificateBuilder(self._name, _name(name), key.public_key(), x509.random_serial_number())
            .not_valid_before(min(now, now + life) - SKEW)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if addresses:
            names = [x509.IPAddress(address) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        replace_plain(directory / "ca.pem", self._certificate.public_bytes(serialization.Encoding.PEM))
        # The key first: a reader of both sees the new pair at the latest when the certificate is new.
        replace_plain(directory / f"{name}.key", private)
        replace_plain(directory / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return TlsFiles(f"{seen_as}/ca.pem", f"{seen_as}/{name}.pem", f"{seen_as}/{name}.key")


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Return the permitted uses of a key (RFC 5280 §4.2.1.3): an authority's signs certificates, others sign
    handshakes.
    """
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
