"""Faults of the cluster's DNS: its server killed, stopped, paused."""

import signal
from collections.abc import Mapping

from testbed.dns.names import Names
from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.processes.supervise import Supervised

WHO = "the cluster's DNS"


class DnsFaults:
    """See the catalogue."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {"dns kill": self.kill, "dns stop": self.stop, "dns pause": self.pause}

    def kill(self, request: FaultRequest) -> Injected:
        """Send SIGKILL."""
        process, pid = self._running(request)
        process.kill()
        return Injected(f"SIGKILL to process {pid}, {WHO}", "by the lab, which restarts it with back-off")

    def stop(self, request: FaultRequest) -> Injected:
        """Send SIGKILL, without a restart."""
        process, pid = self._running(request)
        process.hold(grace_s=0)

        def start() -> str:
            process.resume()
            return f"{WHO} is restarted"

        return Injected(f"SIGKILL to process {pid}, {WHO}; it stays down", "by a restart", start)

    def pause(self, request: FaultRequest) -> Injected:
        """Send SIGSTOP."""
        process, pid = self._running(request)
        process.kill(signal.SIGSTOP)

        def go_on() -> str:
            process.kill(signal.SIGCONT)
            return f"SIGCONT to {WHO}"

        return Injected(f"SIGSTOP to process {pid}, {WHO}", "by SIGCONT", go_on)

    def _running(self, request: FaultRequest) -> tuple[Supervised, int]:
        server = self._names.server
        if server is None:
            raise FaultImpossible(f"{request.text}: this lab has no DNS (see testbed status -o json)")
        if server.process.pid is None:
            raise FaultImpossible(f"{request.text}: {WHO} is not running (state {server.process.state})")
        return server.process, server.process.pid
