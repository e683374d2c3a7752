"""Pages of the web for one test: a proxy on loopback that answers for a host with a certificate of its own.

A program that is run with `environment` gets https://HOST/… from here, as it would from the web; every other host is
refused.
"""

import contextlib
import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@contextlib.contextmanager
def web_site(directory: Path, pages: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Serve `pages`, URL → text or `-> URL` for a redirection; gives the environment to run programs with."""
    hosts = sorted({url.split("/")[2] for url in pages})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(directory / "site.pem", hosts))

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            host = self.path.partition(":")[0]
            if host not in hosts:
                self.send_error(403)
                return
            self.send_response(200)
            self.end_headers()
            with context.wrap_socket(self.connection, server_side=True) as connection:
                with connection.makefile("rb") as lines:
                    path = lines.readline().split()[1].decode()
                    while lines.readline().strip():
                        pass
                connection.sendall(_answer(pages.get(f"https://{host}{path}")))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        trusted = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(directory / "site.pem"))
        yield {**trusted, "https_proxy": f"http://127.0.0.1:{server.server_port}", "no_proxy": ""}
    finally:
        server.shutdown()
        server.server_close()


def _answer(page: str | None) -> bytes:
    if page is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    if page.startswith("-> "):
        return f"HTTP/1.1 301 Moved Permanently\r\nLocation: {page[3:]}\r\nContent-Length: 0\r\n\r\n".encode()
    body = page.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _certificate(file: Path, hosts: list[str]) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(certificate.public_bytes(pem) + private)
    return file
