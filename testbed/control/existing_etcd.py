"""An existing etcd cluster as a lab sees it: its endpoints and what opens them. One value, from `up` to the relay.

It has a key and a password, so it is handed from process to process through descriptors, and is never written down.
"""

import contextlib
import http.client
import json
import os
import socket
import ssl
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from testbed.cluster.etcd_claim import Claimant, PrefixClaim

RECORD = "etcd.json"
"""In the directory of a lab with an existing cluster: what `down` has to say if the lab cannot remove its keys."""
HEALTH_LIMIT_S = 2.0
GRPC = ("h2",)
HTTP = ("http/1.1",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingEtcd:
    """See the module; texts are empty where there is none."""

    endpoints: tuple[str, ...]
    claim: PrefixClaim
    ca: str = ""
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def targets(self) -> list[tuple[str, int]]:
        """Return host and port of each endpoint."""
        parsed = [urlsplit(endpoint) for endpoint in self.endpoints]
        return [(url.hostname or "", url.port or 0) for url in parsed]

    @property
    def login(self) -> dict[str, str]:
        """Return etcdctl's variable for our user."""
        return {"ETCDCTL_USER": f"{self.user}:{self.password}"} if self.user else {}

    def to_json(self) -> bytes:
        """Return it for another process."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "ExistingEtcd":
        """Return the value that `to_json` wrote."""
        fields = json.loads(data)
        claim = fields.pop("claim")
        claimant = Claimant(**claim.pop("claimant"))
        return cls(**{**fields, "endpoints": tuple(fields["endpoints"])}, claim=PrefixClaim(claimant, **claim))

    def context(self, protocols: tuple[str, ...]) -> ssl.SSLContext | None:
        """Return what TLS towards the cluster needs; None without it. Raises OSError and ValueError for bad files."""
        if not self.endpoints[0].startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.certificate:
            # OpenSSL reads these from files only; this one is in memory, without a name.
            with open(os.memfd_create("certificate", os.MFD_CLOEXEC), "wb") as file:
                file.write(f"{self.certificate}\n{self.key}\n".encode())
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        context.set_alpn_protocols(list(protocols))
        return context


def why_unhealthy(connected: socket.socket, host: str, context: ssl.SSLContext | None) -> str | None:
    """Ask the etcd at the other end for its /health, and close the connection; None if it is healthy."""
    connected.settimeout(HEALTH_LIMIT_S)
    connection = http.client.HTTPConnection("etcd")
    try:
        with contextlib.closing(
            connected if context is None else context.wrap_socket(connected, server_hostname=host)
        ) as sock:
            connection.sock = sock
            connection.request("GET", "/health")
            response = connection.getresponse()
            said = response.read(1000).decode(errors="replace").strip()
    except TimeoutError:
        return f"no answer within {HEALTH_LIMIT_S:g} s"
    except (OSError, http.client.HTTPException) as failure:
        return in_words(failure)
    finally:
        connected.close()
    return None if response.status == http.client.OK and '"true"' in said else f"not healthy: {said}"


def in_words(failure: Exception) -> str:
    """Return the reason of a failed connection, in a few words."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        return f"its certificate: {failure.verify_message}"
    if isinstance(failure, ssl.SSLError):
        return f"TLS: {failure.reason or failure}"
    return str(getattr(failure, "strerror", None) or failure)
