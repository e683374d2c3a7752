"""One connection to one etcd member through etcd3, and the translation of grpc's errors into ours."""

import re
import ssl
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import etcd3
import grpc
from etcd3 import etcdrpc

from agent.errors import AgentError, LeaseLost, RegistryDenied, RegistryUnavailable

CHANNEL_OPTIONS = (
    # A member that vanished without closing its connection is detected in 15 s, or in 5 s if something was sent to it;
    # the second is also TCP's user timeout. It is longer than an RPC's deadline, so that a slow path does not look like
    # a dead one. etcd refuses pings more often than every 5 s (its --grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Limit for TCP, TLS and the HTTP/2 preface together: three round trips.
    ("grpc.min_reconnect_backoff_ms", 9_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A new channel must connect by itself, not share the back-off of the closed one.
    ("grpc.use_local_subchannel_pool", 1),
    # One junk value of 1.5 MB (etcd's limit) must not make long lists of keys unreadable.
    ("grpc.max_receive_message_length", -1),
    # A proxy from the user's shell is useless on the underlay.
    ("grpc.enable_http_proxy", 0),
)

# Texts of etcd and TLS for refusals whose status code also stands for transient failures, and a plainer text for some.
REFUSALS = {
    "permission denied": "",
    "authentication failed": "",
    "user name is empty": "etcd requires a user and a password",
    "certificate has expired": "etcd's certificate has expired",
    "certificate is not yet valid": "etcd's certificate is not yet valid, or this machine's clock is wrong",
    "certificate_verify_failed": "etcd's certificate is not signed by the authority in --etcd-cafile",
    "hostname verification": "etcd's certificate is for another name or address",
    "wrong_version_number": "this etcd speaks http, not https",
    "unwrap failed": "etcd ended the TLS session; it may require another client certificate",
    "tlsv1": "etcd refused our TLS parameters or certificate",
    "security handshaker": "the certificate does not match the key, or a TLS file is damaged",
}

# The meaning of etcd's errors whatever their code: `etcd grpc-proxy` passes on only the text.
CODES = {
    "etcdserver: requested lease not found": grpc.StatusCode.NOT_FOUND,
    "etcdserver: permission denied": grpc.StatusCode.PERMISSION_DENIED,
    "etcdserver: invalid auth token": grpc.StatusCode.UNAUTHENTICATED,
    # A JWT is valid for the users and roles at the time it was issued.
    "etcdserver: revision of auth store is old": grpc.StatusCode.UNAUTHENTICATED,
    "etcdserver: user name is empty": grpc.StatusCode.INVALID_ARGUMENT,
    "etcdserver: mvcc: database space exceeded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "context deadline exceeded": grpc.StatusCode.DEADLINE_EXCEEDED,
}

NO_LEADER = "etcdserver: no leader"

# grpc's function that starts the thread which completes a channel's calls.
SPIN = "_run_channel_spin_thread"

# grpc's prefix to the useful part of "cannot connect".
CONNECT_PREFIX = re.compile(r"^failed to connect to all addresses; last error: \w+: \S+: ")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to authenticate; all optional."""

    ca_file: Path | None = None
    """For https; without it the system's authorities are used."""
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)


class NoAnswerInTime(RegistryUnavailable):
    """The deadline passed first: etcd, or the path to it, may be slow and otherwise fine."""


class Connection:
    """An open channel to `endpoint` and what each RPC on it needs."""

    def __init__(self, endpoint: str, client: Any, deadline_s: float) -> None:  # noqa: ANN401 - etcd3 has no types
        self.endpoint = endpoint
        self._client = client
        self._deadline_s = deadline_s
        self.channel = client.channel
        self.kv = client.kvstub
        self.lease = client.leasestub
        self._token: tuple[tuple[str, str], ...] = ()
        self._lock = threading.Lock()
        self._unattended = False
        """Whether grpc could not start the thread that completes the channel's calls. It never tries again."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what each RPC sends along."""
        # A member that lost its cluster then answers at once instead of making us wait.
        return (*self._token, ("hasleader", "true"))

    @property
    def limits(self) -> dict[str, Any]:
        """Return the arguments of each RPC that has a deadline."""
        return {"timeout": self._deadline_s, "metadata": self.metadata}

    def log_in(self, credentials: Credentials) -> None:
        """Get a new token for the RPCs that follow; open streams keep theirs. Raises grpc.RpcError."""
        request = etcdrpc.AuthenticateRequest(name=credentials.user, password=credentials.password)
        answer = etcdrpc.AuthStub(self.channel).Authenticate(request, timeout=self._deadline_s)
        self._token = (("token", answer.token),)

    def begin(self, rpc: Callable[[], Any]) -> Any:  # noqa: ANN401 - etcd3 has no types
        """Begin an RPC for which grpc needs threads of its own, and return the call.

        Raises RuntimeError if one cannot be started; the connection is then useless.
        """
        with self._lock:
            try:
                return rpc()
            except RuntimeError as error:
                stack = traceback.extract_tb(error.__traceback__)
                self._unattended = self._unattended or any(frame.name == SPIN for frame in stack)
                raise

    def close(self) -> None:
        """Close the channel and end every RPC on it."""
        with self._lock:
            if self._unattended:
                # A plain close waits forever for that thread. This one is meant for forked processes, which have none
                # either: it completes the calls itself.
                cancelled, _ = grpc.StatusCode.CANCELLED.value
                self.channel._channel.close_on_fork(cancelled, "no thread completes its calls")
            self._client.close()


def connect(endpoint: str, credentials: Credentials, deadline_s: float) -> Connection:
    """Create a client for `endpoint`, e.g. `https://192.168.8.11:2379`; logs in when there is a user.

    Raises RegistryUnavailable or RegistryDenied.
    """
    url = urlsplit(endpoint)
    host = url.hostname or ""
    tls = url.scheme == "https"
    arguments: dict[str, Any] = {
        "host": f"[{host}]" if ":" in host else host,
        "port": url.port or 2379,
        "timeout": deadline_s,
        "grpc_options": CHANNEL_OPTIONS,
        "ca_cert": str(_authorities(credentials)) if tls else None,
        "cert_cert": str(credentials.cert_file) if tls and credentials.cert_file else None,
        "cert_key": str(credentials.key_file) if tls and credentials.key_file else None,
    }
    try:
        connection = Connection(endpoint, etcd3.client(**arguments), deadline_s)
    except OSError as error:
        raise RegistryDenied(f"TLS file {error.filename}: {error.strerror}") from error
    if credentials.user is not None:
        try:
            connection.log_in(credentials)
        except grpc.RpcError as error:
            # As etcd's own client does: a password that is not needed does no harm.
            if "authentication is not enabled" not in str(error.details()):
                # Not left to the garbage collector: until then it would go on connecting.
                connection.close()
                raise translate(error, endpoint) from error
    return connection


def _authorities(credentials: Credentials) -> Path:
    if credentials.ca_file is not None:
        return credentials.ca_file
    system = ssl.get_default_verify_paths()
    for candidate in (system.cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise RegistryDenied("https without --etcd-cafile, and this machine has no list of certificate authorities")


def translate(error: BaseException, endpoint: str) -> AgentError:
    """Translate an error of grpc, or of a channel closed under us, for the caller. Our own errors pass unchanged."""
    if isinstance(error, AgentError):
        return error
    if not isinstance(error, grpc.RpcError):
        return RegistryUnavailable(f"{endpoint}: {str(error) or 'no answer'}")
    code, details = status_of(error), CONNECT_PREFIX.sub("", " ".join(str(error.details()).split()))
    if code == grpc.StatusCode.NOT_FOUND:
        return LeaseLost(f"{endpoint}: {details}")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or is_refusal(details):
        plain = next((word for text, word in REFUSALS.items() if text in details.lower() and word), None)
        return RegistryDenied(f"{endpoint}: {plain} ({details})" if plain else f"{endpoint}: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return NoAnswerInTime(f"{endpoint}: no answer in time")
    if details == NO_LEADER:
        details += " (are enough of its members up?)"
    return RegistryUnavailable(f"{endpoint}: {details}")


def status_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status of an error: by its text if known, else by its code."""
    return CODES.get(str(error.details()), error.code())


def is_refusal(details: str) -> bool:
    """Report whether etcd or TLS refuses permanently, judged by the text: some refusals have the status of transient
    failures.
    """
    return any(text in details.lower() for text in REFUSALS)


def is_stale_token(error: BaseException) -> bool:
    """Report whether logging in again may help: etcd forgets tokens after five minutes, when its leader changes, and
    JWTs when users or roles change.
    """
    return isinstance(error, grpc.RpcError) and status_of(error) == grpc.StatusCode.UNAUTHENTICATED


def is_late(error: BaseException) -> bool:
    """Report whether all we know is that the answer was not in time."""
    if isinstance(error, grpc.RpcError):
        return bool(status_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED)
    return isinstance(error, NoAnswerInTime)


def is_wrong_endpoint(error: BaseException) -> bool:
    """Report whether the connection is to blame, so that the next call should use another."""
    if not isinstance(error, grpc.RpcError):
        return not isinstance(error, AgentError) or isinstance(error, RegistryUnavailable)
    return status_of(error) in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAUTHENTICATED,
    )
