"""Access control in the lab's etcd: root may do everything, each agent, as its own user, what flannel's agents do.

Client certificates identify users (by common name), so there are no passwords. While access control is off, etcd's HTTP
gateway creates a user in a millisecond; afterwards only gRPC supports certificates, so etcdctl creates the few later
ones.
"""

import base64
import contextlib
import http.client
import json
import ssl
from collections.abc import Iterable
from typing import Any

from testbed.errors import EtcdFailed
from testbed.lab.etcd import CLIENT_PORT, EtcdCluster, EtcdMember
from testbed.lab.etcd import ROOT_USER as ROOT
from testbed.processes.namespaces import in_network_of

AGENT_ROLE = "overlay-agent"
ANSWER_LIMIT_S = 5.0


def agent_user(node: str) -> str:
    """Return the name of a node's agent in etcd and in its certificate; never root, whatever the node's name is."""
    return f"agent-{node}"


def set_up_access(cluster: EtcdCluster, prefix: str, users: Iterable[str]) -> None:
    """Create roles and users, and enable access control. `prefix` is flannel's. Raises EtcdFailed."""
    member = cluster.members[0]

    def set_up() -> None:
        with contextlib.closing(_connect(member)) as connection:
            for path, body in _steps(prefix, users):
                _post(connection, path, body)

    try:
        in_network_of(member.pid, set_up)
    except (OSError, http.client.HTTPException) as failure:
        raise EtcdFailed(f"access control: {failure}") from failure


def admit(cluster: EtcdCluster, user: str) -> None:
    """Create one more user; an existing one is success. Raises EtcdFailed."""
    try:
        cluster.etcdctl(["user", "add", user, "--no-password"])
    except EtcdFailed as failure:
        if "already exists" not in str(failure):
            raise
    cluster.etcdctl(["user", "grant-role", user, AGENT_ROLE])


def _steps(prefix: str, users: Iterable[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the requests to post, in order."""
    yield "user/add", {"name": ROOT, "options": {"no_password": True}}
    yield "role/add", {"name": ROOT}
    yield "user/grant", {"user": ROOT, "role": ROOT}
    yield "role/add", {"name": AGENT_ROLE}
    for kind, keys in (("READ", f"{prefix}/"), ("READWRITE", f"{prefix}/subnets/")):
        start = keys.encode()
        end = start[:-1] + bytes([start[-1] + 1])
        permission = {"permType": kind, "key": _text(start), "range_end": _text(end)}
        yield "role/grant", {"name": AGENT_ROLE, "perm": permission}
    for user in users:
        yield "user/add", {"name": user, "options": {"no_password": True}}
        yield "user/grant", {"user": user, "role": AGENT_ROLE}
    yield "enable", {}


def _connect(member: EtcdMember) -> http.client.HTTPSConnection:
    files = member.files_for_lab(ROOT)
    context = ssl.create_default_context(cafile=files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return http.client.HTTPSConnection("127.0.0.1", CLIENT_PORT, timeout=ANSWER_LIMIT_S, context=context)


def _post(connection: http.client.HTTPSConnection, path: str, body: dict[str, Any]) -> None:
    connection.request("POST", f"/v3/auth/{path}", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    said = response.read().decode(errors="replace")
    if response.status != http.client.OK and "already" not in said:
        raise EtcdFailed(f"access control: {path}: {said.strip()}")


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
