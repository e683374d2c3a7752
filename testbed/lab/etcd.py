"""The lab's etcd: real servers on their own Mininet hosts, and etcdctl as their client."""

import base64
import http.client
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from testbed.control.options import MACHINES
from testbed.errors import EtcdFailed
from testbed.lab.certificates import Authority, TlsFiles
from testbed.plain_files import plain
from testbed.processes.namespaces import in_network_of
from testbed.processes.supervise import RestartPolicy, Supervised, last_line, last_words

CLIENT_PORT = 2379
PEER_PORT = 2380
HEALTH_PORT = 2381
"""On the member's own loopback, without TLS: /health and /metrics."""
DATA_DIRECTORY = "/run/etcd"
"""Of a member, as its machine sees it."""
TLS_DIRECTORY = "/run/tls"
"""Of every machine with a certificate, as the machine sees it."""
MEMBER_NAME = "etcd-member"
"""The name in every member's certificate for its peers, and in no other."""
ROOT_USER = "root"
"""The user with all rights in etcd; the lab itself."""
COMMAND_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class EtcdEntry:
    """One key in etcd."""

    key: str
    value: bytes
    etcd_lease_id: int
    """0: no lease."""
    mod_revision: int


def enter_machine(pid: int) -> list[str]:
    """Return the start of a command line that runs in a machine's network and mount namespaces."""
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--wdns=/", "--"]


def http_get(pid: int, port: int, path: str, timeout_s: float = 1.0) -> tuple[int, bytes]:
    """Send a GET to 127.0.0.1 inside the network namespace of process `pid`. Raises OSError without an answer."""

    def get() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as failure:
            raise OSError(f"not an HTTP answer: {failure!r}") from failure
        finally:
            connection.close()

    return in_network_of(pid, get)


KEPT_SMALL = (
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=5m",
    "--snapshot-count=10000",
    f"--quota-backend-bytes={256 << 20}",
)
"""A lab may run for weeks.

Without compaction every old value stays in the database until its quota is used up, and a hundred thousand log entries
stay in memory. An agent that was down for longer lists again. The quota leaves room for the log and a second database,
as for a snapshot, in the member's files (underlay_plan.ETCD_FILES_MIB): at the quota etcd refuses writes and stays up,
which it would not if its file system were full.
"""


class EtcdMember:
    """One etcd server."""

    is_the_labs: ClassVar[bool] = True
    """False: a relay to a cluster of others, which is not the lab's to break."""

    def __init__(
        self,
        name: str,
        address: IPv4Address,
        pid: int,
        directory: Path,
        peers: Mapping[str, IPv4Address],
        authority: Authority | None,
        program: str = "etcd",
    ) -> None:
        """Without `authority` it accepts all clients, and nothing is encrypted."""
        self._program = program
        self.name = name
        self.address = address
        self.pid = pid
        self.log = directory / "logs" / f"{name}.log"
        self._machine = directory / MACHINES / name / "run"
        """The directory that the machine sees as /run."""
        self._peers = peers
        self._scheme = "http" if authority is None else "https"
        self._tls: TlsFiles | None = None
        self._member_tls: TlsFiles | None = None
        if authority is not None:
            own = (address, IPv4Address("127.0.0.1"))
            self._tls = authority.issue(self._tls_directory, TLS_DIRECTORY, name, own)
            self._member_tls = authority.issue(self._tls_directory, TLS_DIRECTORY, MEMBER_NAME, own)
            authority.issue(self._tls_directory, TLS_DIRECTORY, ROOT_USER)
        self.extra_flags: tuple[str, ...] = ()
        """Added to etcd's own at the next start."""
        self.joins = False
        """True: it starts as a new member of an existing cluster."""
        self.replace: Callable[[], None] = lambda: None
        """Called before it restarts without its data."""
        self._has_run = False
        self.process = Supervised(name, self._launch, RestartPolicy())

    @property
    def endpoint(self) -> str:
        """Return the URL for clients."""
        return f"{self._scheme}://{self.address}:{CLIENT_PORT}"

    @property
    def peer_url(self) -> str:
        """Return the URL for other members."""
        return f"{self._scheme}://{self.address}:{PEER_PORT}"

    @property
    def secure(self) -> bool:
        """Return whether it requires TLS with client certificates."""
        return self._tls is not None

    @property
    def _tls_directory(self) -> Path:
        return self._machine / Path(TLS_DIRECTORY).name

    def files_for_lab(self, name: str) -> TlsFiles:
        """Return a certificate on this machine, by paths of the lab."""
        inside = self._tls_directory
        return TlsFiles(str(inside / "ca.pem"), str(inside / f"{name}.pem"), str(inside / f"{name}.key"))

    @property
    def data(self) -> Path:
        """Return its data directory, as the lab sees it."""
        return self._machine / Path(DATA_DIRECTORY).name

    @property
    def has_data(self) -> bool:
        """Return whether it has the data of its first start, which identifies it to the others."""
        return (self.data / "member").exists()

    def answers(self) -> bool:
        """Return whether it answers at all, even with an alarm."""
        try:
            return bool(http_get(self.pid, HEALTH_PORT, "/health")[0])
        except OSError:
            return False

    def healthy(self) -> bool:
        """Return whether it answers and its cluster has a leader."""
        try:
            status, body = http_get(self.pid, HEALTH_PORT, "/health")
            return status == http.client.OK and json.loads(body).get("health") == "true"
        except (OSError, ValueError):
            return False

    def why_not_healthy(self) -> str | None:
        """Describe its problem; None if it is healthy."""
        if self.healthy():
            return None
        if self.process.restarts or self.process.state != "running":
            return f"{self.name} exited with {self.process.exit_code}: {last_line(self.log)}"
        return f"{self.name}: no answer from {self.endpoint} yet"

    def _launch(self) -> subprocess.Popen[bytes]:
        # The others refuse a stranger with its name.
        if self._has_run and not self.has_data:
            self.replace()
        self._has_run = True
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *enter_machine(self.pid),
            self._program,
            f"--name={self.name}",
            f"--data-dir={DATA_DIRECTORY}",
            f"--listen-client-urls={self.endpoint},{self._scheme}://127.0.0.1:{CLIENT_PORT}",
            f"--listen-metrics-urls=http://127.0.0.1:{HEALTH_PORT}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            "--initial-cluster="
            + ",".join(f"{name}={self._scheme}://{ip}:{PEER_PORT}" for name, ip in self._peers.items()),
            f"--initial-cluster-state={'existing' if self.joins else 'new'}",
            # A lab elects quickly; the defaults suit members in different data centres.
            "--heartbeat-interval=50",
            "--election-timeout=500",
            *KEPT_SMALL,
            *_tls_flags(self._tls, self._member_tls),
            *self.extra_flags,
        ]
        with open(self.log, "ab", opener=plain) as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _tls_flags(clients: TlsFiles | None, members: TlsFiles | None) -> list[str]:
    """Return flags for TLS in both directions, for clients and between members."""
    flags = []
    for prefix, files in (("", clients), ("peer-", members)):
        if files is not None:
            flags += [
                f"--{prefix}cert-file={files.certificate}",
                f"--{prefix}key-file={files.key}",
                f"--{prefix}trusted-ca-file={files.ca}",
                f"--{prefix}client-cert-auth",
            ]
    if members is not None:
        # Agents' certificates have the same authority, and members are above all access control.
        flags.append(f"--peer-cert-allowed-cn={MEMBER_NAME}")
    return flags


Report = Callable[[str, str, str], None]


class EtcdCluster:
    """All members, and the lab's own requests to them."""

    def __init__(
        self,
        members: Sequence[EtcdMember],
        report: Report = lambda _member, _reason, _message: None,
        login: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`report` is called with a member's name, a reason and a message; `login` is etcdctl's variable for a user."""
        self.members = tuple(members)
        self._login = login
        self._report = report
        for member in self.members:
            member.replace = partial(self._replace, member)

    @property
    def endpoints(self) -> str:
        """Return all client URLs, comma-separated."""
        return ",".join(member.endpoint for member in self.members)

    def start(self) -> None:
        """Start every member; return before they answer."""
        for member in self.members:
            member.process.start()

    def _replace(self, member: EtcdMember) -> None:
        """Remove a member that has lost its data from the cluster, and add it as a new one.

        Raises OSError if the others cannot agree on that now.
        """
        others = [other for other in self.members if other is not member]
        if not any(other.has_data for other in others):
            # There is nothing to join: it restarts empty, as the others do.
            return
        try:
            asked = next((other for other in others if other.healthy()), None)
            if asked is None:
                # It may have been the leader. Started now, it would get data that the others refuse for ever.
                raise EtcdFailed("the other members have no leader")
            listed = json.loads(self.etcdctl(["member", "list", "--write-out=json"], asked=asked))["members"]
            known = [one for one in listed if member.peer_url in one["peerURLs"]]
            # A member without a name was added earlier, and has never started.
            for one in known:
                if one.get("name"):
                    self.etcdctl(["member", "remove", f"{one['ID']:x}"], asked=asked)
            if all(one.get("name") for one in known):
                self.etcdctl(["member", "add", member.name, f"--peer-urls={member.peer_url}"], asked=asked)
        except EtcdFailed as failure:
            self._report(member.name, "EtcdMemberLost", f"its data is gone and it cannot rejoin yet: {failure}")
            raise OSError(str(failure)) from failure
        member.joins = True
        self._report(member.name, "EtcdMemberReplaced", "its data was gone; it was removed and added as a new member")

    def environment(self) -> dict[str, str]:
        """Return etcdctl's environment for finding the members."""
        secure = {}
        if self.members[0].secure:
            own = f"{TLS_DIRECTORY}/{ROOT_USER}"
            secure = {
                "ETCDCTL_CACERT": f"{TLS_DIRECTORY}/ca.pem",
                "ETCDCTL_CERT": f"{own}.pem",
                "ETCDCTL_KEY": f"{own}.key",
            }
        return {**os.environ, "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": self.endpoints, **secure, **self._login}

    @property
    def is_the_labs(self) -> bool:
        """Return whether the servers are the lab's own."""
        return all(member.is_the_labs for member in self.members)

    def etcdctl_argv(self, arguments: Sequence[str]) -> list[str]:
        """Return a command line for etcdctl on the first member's machine."""
        return [*enter_machine(self.members[0].pid), "etcdctl", *arguments]

    def put(self, key: str, value: bytes) -> None:
        """Write a key without a lease. Raises EtcdFailed."""
        self.etcdctl(["put", "--", key], value)

    def delete(self, key: str) -> None:
        """Delete a key; a missing one is success. Raises EtcdFailed."""
        self.etcdctl(["del", "--", key], b"")

    def create(self, key: str, value: str) -> bool:
        """Write a key that does not exist yet; return whether that was so. Raises EtcdFailed."""
        # etcdctl reads Go's quoted texts, which JSON's are too.
        lines = [f'create({json.dumps(key)}) = "0"', "", f"put {json.dumps(key)} {json.dumps(value)}", "", "", ""]
        return self.etcdctl(["txn"], "\n".join(lines).encode()).startswith(b"SUCCESS")

    def delete_all(self, keys: Sequence[str]) -> None:
        """Delete these keys in one transaction. Raises EtcdFailed."""
        self.etcdctl(["txn"], "\n".join(["", *(f"del {json.dumps(key)}" for key in keys), "", "", ""]).encode())

    def get_prefix(self, prefix: str) -> list[EtcdEntry]:
        """Return every key with this prefix, in key order. Raises EtcdFailed."""
        answer = json.loads(self.etcdctl(["get", "--prefix", "--write-out=json", "--", prefix], b""))
        return [
            EtcdEntry(
                base64.b64decode(entry["key"]).decode(errors="replace"),
                base64.b64decode(entry.get("value", "")),
                entry.get("lease", 0),
                entry["mod_revision"],
            )
            for entry in answer.get("kvs", [])
        ]

    def seconds_left(self, etcd_lease_id: int) -> int:
        """Return how long a lease lives unless it is renewed; below 0: it is over. Raises EtcdFailed."""
        command = ["lease", "timetolive", "--write-out=json", f"{etcd_lease_id:x}"]
        return int(json.loads(self.etcdctl(command))["ttl"])

    def etcdctl(self, arguments: Sequence[str], stdin: bytes = b"", asked: EtcdMember | None = None) -> bytes:
        """Return the output of etcdctl, run against the member `asked`. Raises EtcdFailed with its error."""
        endpoints = {"ETCDCTL_ENDPOINTS": asked.endpoint} if asked is not None else {}
        try:
            done = subprocess.run(
                self.etcdctl_argv(arguments),
                input=stdin,
                capture_output=True,
                env={**self.environment(), **endpoints},
                timeout=COMMAND_TIMEOUT_S,
                check=True,
            )
        except subprocess.TimeoutExpired as failure:
            raise EtcdFailed(f"etcd did not answer within {COMMAND_TIMEOUT_S:g} s") from failure
        except subprocess.CalledProcessError as failure:
            said = last_words(failure.stderr.decode(errors="replace").strip())
            raise EtcdFailed(said or f"etcdctl exited with {failure.returncode}") from failure
        return done.stdout
