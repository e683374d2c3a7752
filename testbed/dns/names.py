"""DNS names of a running lab: keeps the server's zones in line with Services and pods."""

import threading
import time
from collections.abc import Mapping
from ipaddress import IPv4Interface
from pathlib import Path

from agent.netconfig.config import NetworkConfig
from testbed.cluster.dns import CLUSTER_DOMAIN, DNS_ADDRESS
from testbed.cluster.underlay_plan import GATEWAY
from testbed.control.answers.lab import DnsStatus
from testbed.dns.records import Record, by_zone, records, zones_of
from testbed.dns.server import NameServer, NameServerFailed
from testbed.dns.zone import zone_file
from testbed.lab.changes import Changes
from testbed.lab.events import Events
from testbed.lab.underlay import LabUnderlay
from testbed.processes.supervise import Supervised
from testbed.services.services import Services

DIRECTORY = Path("/run/dns")
"""In the lab, whose /run is its own. knotd drops root's privileges, so it cannot enter the lab's directory below
/run/testbed.
"""
BATCH_S = 0.1
"""Minimum interval between changes of the zones: a burst of changes becomes one."""
PATIENCE = 10
"""The pause after reading Services and pods is this many times as long as reading took."""
RETRY_EVERY_S = 0.5


class Names:
    """The DNS of one lab."""

    def __init__(
        self,
        services: Services,
        underlay: LabUnderlay,
        network: NetworkConfig,
        log: Path,
        *,
        pods_changed: Changes,
        events: Events,
    ) -> None:
        """`network` is the pods' network, whose addresses have names too."""
        self._services = services
        self._underlay = underlay
        self._network = network
        self._log = log
        self._pods_changed = pods_changed
        self._events = events
        self._server: NameServer | None = None
        self._written: Mapping[str, tuple[Record, ...]] = {}
        """Zone → its records in its file."""
        self._unserved: frozenset[str] = frozenset()
        """Zones whose files the server has not loaded yet."""
        self.serial = 0
        """Serial of the newest zone file."""
        self._failure = ""
        self._published_at = 0.0
        self._pause_s = BATCH_S
        self._publishing = threading.Lock()

    @property
    def server(self) -> NameServer | None:
        """Return the server; None in a lab without DNS, and before its start."""
        return self._server

    def start(self) -> None:
        """Give the gateway the DNS's address and run the server there. Raises OSError."""
        gateway = self._underlay.machines[GATEWAY]
        addresses = [IPv4Interface("127.0.0.1/8"), IPv4Interface((DNS_ADDRESS, 32))]
        gateway.kernel.ensure_addresses("lo", addresses, "the cluster's DNS; nodes route it to the gateway, by default")
        zones = zones_of(self._network.network, self._network.ipv6_network)
        server = NameServer(gateway.pid, DNS_ADDRESS, zones, DIRECTORY, self._log, self._changed)
        self._server = server
        self._write(server)
        # It reads the files when it starts.
        self._unserved = frozenset()
        server.start()
        threading.Thread(target=self._repair_loop, name="names", daemon=True).start()

    def follow(self) -> None:
        """Publish every change of Services and pods from now on."""
        if self._server is not None:
            self._pods_changed.subscribe("names", self.publish)

    def records(self) -> tuple[Record, ...]:
        """Return all records of the server, in order; none in a lab without DNS."""
        return tuple(sorted(record for found in self._written.values() for record in found))

    def publish(self) -> None:
        """Update the zones to the current Services and pods."""
        server = self._server
        if server is None:
            return
        with self._publishing:
            time.sleep(max(0.0, self._published_at + self._pause_s - time.monotonic()))
            started = time.monotonic()
            try:
                self._bring_up_to_date(server)
            finally:
                # Pause even if nothing was published: a start of many pods triggers many checks.
                self._published_at = time.monotonic()
                self._pause_s = max(BATCH_S, PATIENCE * (self._published_at - started))

    def _bring_up_to_date(self, server: NameServer) -> None:
        try:
            self._write(server)
            if self._unserved:
                server.reload(sorted(self._unserved))
                self._unserved = frozenset()
        except (NameServerFailed, OSError) as failure:
            self._report(str(failure))
        else:
            self._report("")

    def why_not_served(self) -> list[str]:
        """Return the DNS's problems, one line each; empty if it serves the newest zones, and in a lab without DNS."""
        if self._server is None:
            return []
        why = self._server.why_not() or self._failure
        return [f"dns: no answer from {DNS_ADDRESS} yet: {why}"] if why else []

    def status(self) -> DnsStatus | None:
        """Return the DNS's part of the status; None in a lab without DNS."""
        server = self._server
        if server is None:
            return None
        return {
            "address": str(DNS_ADDRESS),
            "domain": CLUSTER_DOMAIN,
            "machine": GATEWAY,
            "healthy": not server.why_not() and not self._failure,
            "pid": server.process.pid,
            "restarts": server.process.restarts,
            "records": len(self.records()),
            "serial": self.serial,
        }

    def _write(self, server: NameServer) -> None:
        wanted = by_zone(records(list(self._services.numbered.values()), self._services.pods()), server.zones)
        changed = [zone for zone, found in wanted.items() if self._written.get(zone) != found]
        if not changed:
            return
        self.serial += 1
        server.write({zone: zone_file(zone, wanted[zone], self.serial) for zone in changed})
        self._written = wanted
        self._unserved |= frozenset(changed)

    def _report(self, why: str) -> None:
        if why and why != self._failure:
            self._events.note("Warning", "dns", "NamesNotPublished", why)
        self._failure = why

    def _changed(self, process: Supervised) -> None:
        if process.state == "backoff":
            text = f"the name server exited with {process.exit_code}; restarting it"
            self._events.note("Warning", "dns", "BackOff", text)

    def _repair_loop(self) -> None:
        while True:
            time.sleep(RETRY_EVERY_S)
            if self._failure:
                self.publish()
