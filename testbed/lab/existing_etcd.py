"""An existing etcd cluster in the place of the lab's own: the relay to it, and the lab's keys there."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from testbed.cluster.etcd_claim import Marker, PrefixClaim
from testbed.cluster.spec import Cluster
from testbed.control.existing_etcd import ExistingEtcd
from testbed.errors import EtcdFailed
from testbed.lab.certificates import Authority
from testbed.lab.etcd import HEALTH_PORT, EtcdCluster, EtcdMember, enter_machine, http_get
from testbed.plain_files import plain
from testbed.processes.supervise import last_line

LARGEST_BYTES = 1_000_000
KEYS_AT_ONCE = 100
"""etcd's limit of a transaction is 128."""
HEALTH_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outside:
    """What `up` hands to a lab with an existing cluster."""

    existing: ExistingEtcd
    gate: socket.socket

    @classmethod
    def receive(cls, descriptor: int) -> "Outside":
        """Take it from the descriptor that the lab's first process has inherited."""
        os.set_inheritable(descriptor, False)
        gate = socket.socket(fileno=descriptor)
        return cls(ExistingEtcd.from_json(gate.recv(LARGEST_BYTES)), gate)


class EtcdRelay(EtcdMember):
    """The relay to the cluster, on the machine of a member (etcd_relay.py)."""

    is_the_labs = False

    def __init__(
        self,
        name: str,
        address: IPv4Address,
        pid: int,
        directory: Path,
        authority: Authority | None,
        outside: Outside,
    ) -> None:
        super().__init__(name, address, pid, directory, {}, authority)
        self._outside = outside

    def _health(self) -> dict[str, str]:
        _, body = http_get(self.pid, HEALTH_PORT, "/health", HEALTH_LIMIT_S)
        found = json.loads(body)
        return found if isinstance(found, dict) else {}

    def healthy(self) -> bool:
        """Return whether the cluster answers and has a leader."""
        try:
            return self._health().get("health") == "true"
        except (OSError, ValueError):
            return False

    def why_not_healthy(self) -> str | None:
        """Describe the cluster's problem; None if it is healthy."""
        if self.process.state != "running":
            return f"{self.name}: the relay exited with {self.process.exit_code}: {last_line(self.log)}"
        try:
            health = self._health()
        except (OSError, ValueError):
            return f"{self.name}: the relay does not answer yet"
        return None if health.get("health") == "true" else f"{self.name}: {health.get('reason')}"

    def _launch(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        tls = [] if self._tls is None else [self._tls.ca, self._tls.certificate, self._tls.key]
        gate = self._outside.gate.fileno()
        relay = [sys.executable, "-m", "testbed.lab.etcd_relay", str(gate), str(self.address), *tls]
        with (
            open(self.log, "ab", opener=plain) as log,
            open(os.memfd_create("existing etcd", os.MFD_CLOEXEC), "w+b") as given,
        ):
            given.write(self._outside.existing.to_json())
            given.seek(0)
            return subprocess.Popen(
                [*enter_machine(self.pid), *relay],
                stdin=given,
                stdout=log,
                stderr=log,
                pass_fds=(gate,),
                start_new_session=True,
            )


class OwnKeys:
    """The lab's keys in an existing cluster."""

    def __init__(self, claim: PrefixClaim) -> None:
        self._claim = claim

    def take(self, etcd: EtcdCluster, cluster: Cluster) -> bool:
        """Mark the prefix as the lab's; return whether the network config is to be written. Raises EtcdFailed.

        Keys that an earlier run of the lab has left are removed.
        """
        found, addresses = self._found(etcd), cluster.addresses.nodes
        if refusals := list(self._claim.refusals(found, cluster.network_json, addresses)):
            raise EtcdFailed("\n".join(refusals))
        marker = self._claim.marker(found)
        if marker is None:
            marker = Marker(self._claim.claimant, self._claim.config_key not in found)
            if not etcd.create(self._claim.marker_key, marker.to_json()):
                raise EtcdFailed(f"{self._claim.prefix} was taken by another lab just now")
        else:
            left = self._claim.own_keys(found, set(addresses.values()))
            _delete(etcd, [key for key in left if key != self._claim.marker_key])
        return marker.wrote_config

    def leave(self, etcd: EtcdCluster, addresses: Collection[IPv4Address]) -> list[str]:
        """Remove and return the keys that the lab has made; `addresses` are its nodes'. Raises EtcdFailed."""
        own = self._claim.own_keys(self._found(etcd), addresses)
        _delete(etcd, own)
        return own

    def _found(self, etcd: EtcdCluster) -> dict[str, bytes]:
        return {entry.key: entry.value for entry in etcd.get_prefix(f"{self._claim.prefix}/")}


def _delete(etcd: EtcdCluster, keys: list[str]) -> None:
    for start in range(0, len(keys), KEYS_AT_ONCE):
        etcd.delete_all(keys[start : start + KEYS_AT_ONCE])
