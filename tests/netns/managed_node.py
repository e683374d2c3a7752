"""A node's claim on a subnet on a real etcd: a manager with its two threads, without agent and kernel."""

import random
import threading

from agent.etcd.connection import Credentials
from agent.etcd.registry import EtcdRegistry
from agent.lease import Lease
from agent.leases.manager import SubnetManager
from agent.netconfig.config import parse_network_config
from tests.unit.fake_registry import attrs

SIXTEEN = '{"Network":"10.0.0.0/16"}'


class ManagedNode:
    """A manager with its two threads on a registry of its own."""

    def __init__(
        self,
        endpoint: str,
        public_ip: str,
        network: str = SIXTEEN,
        ttl_s: int = 30,
        credentials: Credentials | None = None,
    ) -> None:
        self.registry = EtcdRegistry([endpoint], credentials=credentials, deadline_s=1)
        config = parse_network_config(network.encode())
        self.manager = SubnetManager(
            self.registry, config, attrs(public_ip), lease_ttl_s=ttl_s, rng=random.Random(public_ip)
        )
        self.peers: list[str] = []
        self.fenced: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self.manager.run_renewal, args=(self._stop, self.fenced.append)),
            threading.Thread(target=self.manager.run_watch, args=(self._stop, self._see)),
        ]

    def acquire(self) -> Lease | None:
        return self.manager.acquire(self._stop)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=10)
                assert not thread.is_alive()
        self.registry.close()

    def _see(self, peers: tuple[Lease, ...], revision: int) -> None:
        self.peers = [str(peer.subnet.ipv4) for peer in peers]
