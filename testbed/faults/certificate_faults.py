"""Faults of the agents' certificates for etcd."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from testbed.faults.agent_faults import node_of, unless_gone
from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.faults.machines import run
from testbed.lab.certificates import LIFE, Authority
from testbed.lab.etcd import CLIENT_PORT, TLS_DIRECTORY
from testbed.lab.etcd_access import agent_user
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes

EXPIRED = timedelta(minutes=-1)


class CertificateFaults:
    """See the catalogue."""

    def __init__(self, nodes: Nodes, authority: Authority | None) -> None:
        """`authority` is None if the lab's etcd has no TLS."""
        self._nodes = nodes
        self._authority = authority

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {"certificate expire": self.expire, "certificate rotate": self.rotate}

    def expire(self, request: FaultRequest) -> Injected:
        """Replace the certificate by one that expired a minute ago."""
        node, authority = self._of(request)

        def renew() -> str:
            self._issue(node, authority, LIFE)
            return f"{node.name} has a valid certificate again"

        self._issue(node, authority, EXPIRED)
        try:
            run(node.pid, ["ss", "--kill", "state", "established", f"dport = :{CLIENT_PORT}"])
        except OSError:
            # No fault is active that could be healed later.
            renew()
            raise

        did = f"{node.name} has a certificate that expired a minute ago; its connections to etcd are cut (ss --kill)"
        return Injected(did, "by another certificate", unless_gone(self._nodes, node, renew))

    def rotate(self, request: FaultRequest) -> Injected:
        """Issue a new key and a new certificate, as for a renewal."""
        node, authority = self._of(request)
        self._issue(node, authority, LIFE)
        return Injected(f"{node.name} has a new key and a new certificate for etcd", "never: both are valid")

    def _of(self, request: FaultRequest) -> tuple[LabNode, Authority]:
        node = node_of(self._nodes, request)
        if self._authority is None:
            raise FaultImpossible(f"{request.text}: this lab's etcd has no TLS (etcd: {{tls: true}})")
        return node, self._authority

    def _issue(self, node: LabNode, authority: Authority, life: timedelta) -> None:
        directory = node.run / Path(TLS_DIRECTORY).name
        authority.issue(directory, TLS_DIRECTORY, agent_user(node.name), life=life)
