"""Probes a container periodically, by its readiness or liveness probe, from its node."""

import http.client
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from testbed.cluster.manifest import Container
from testbed.cluster.probe import HttpGetAction, Probe
from testbed.pods import grpc_health
from testbed.pods.probe_state import ProbeState
from testbed.processes.namespaces import in_network_of
from testbed.processes.threads import in_background

FIRST_PAUSE_S = 0.1
"""Until a container is first ready it is probed after this time, then twice that and so on, but at least once per
period: in Kubernetes, clients wait for a whole period if the first probe comes too early.
"""
SHOWN = 200  # characters of a command's output in an event
FIRST_BAD_STATUS, FIRST_GOOD_STATUS = 400, 200

Failure = str
"""Why a probe failed; empty if it succeeded."""
OnResult = Callable[[ProbeState, ProbeState, Failure], None]
"""Called with the state before and after each result."""


class Asker:
    """Probes one run of a container in one way."""

    def __init__(
        self,
        container: Container,
        probe: Probe,
        address: str,
        node_pid: int,
        exec_argv: Callable[[Sequence[str], bool], list[str]],
    ) -> None:
        """`exec_argv` returns the command that runs another one in the container."""
        self._probe = probe
        self._address = address
        self._node_pid = node_pid
        self._exec_argv = exec_argv
        self._port = port_number(container, probe.port)
        self._stand_in = container.stand_in

    def ask(self) -> Failure:
        """Probe once; takes little more than the probe's timeout."""
        try:
            if self._probe.exec is not None and self._stand_in:
                # The command is part of the image, which is missing.
                return ""
            if self._probe.exec is not None:
                return self._run(self._probe.exec.command)
            action = self._probe.http_get or self._probe.tcp_socket
            host = (action.host if action else None) or self._address
            if self._probe.http_get is not None and not (self._stand_in and self._probe.http_get.scheme == "HTTPS"):
                get = self._probe.http_get
                return in_network_of(self._node_pid, lambda: self._get(get, host))
            if self._probe.grpc is not None and not self._stand_in:
                service, timeout_s = self._probe.grpc.service, self._probe.timeout_seconds
                return in_network_of(self._node_pid, lambda: grpc_health.check(host, self._port, service, timeout_s))
            return in_network_of(self._node_pid, lambda: self._connect(host))
        except TimeoutError:
            return f"no answer within {self._probe.timeout_seconds} s"
        except (OSError, http.client.HTTPException) as error:
            return str(getattr(error, "strerror", None) or error or type(error).__name__)
        except Exception as error:
            # For example a container that has just ended: it does not answer.
            return str(error)

    def _run(self, command: Sequence[str]) -> Failure:
        try:
            done = subprocess.run(
                self._exec_argv(command, False),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._probe.timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{command[0]} timed out after {self._probe.timeout_seconds} s"
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[:SHOWN]
        return "" if done.returncode == 0 else f"{command[0]} exited with {done.returncode}{': ' if said else ''}{said}"

    def _connect(self, host: str) -> Failure:
        with socket.create_connection((host, self._port), timeout=self._probe.timeout_seconds):
            return ""

    def _get(self, action: HttpGetAction, host: str) -> Failure:
        connection: http.client.HTTPConnection
        if action.scheme == "HTTPS":
            # As in Kubernetes: a probe checks for an answer, not for the server's identity.
            trusting = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                host, self._port, timeout=self._probe.timeout_seconds, context=trusting
            )
        else:
            connection = http.client.HTTPConnection(host, self._port, timeout=self._probe.timeout_seconds)
        try:
            headers = {"User-Agent": "testbed-probe", **{one.name: one.value for one in action.http_headers}}
            # As in Kubernetes: a path is one from the server's root.
            path = action.path if action.path.startswith("/") else f"/{action.path}"
            connection.request("GET", path, headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        return "" if FIRST_GOOD_STATUS <= status < FIRST_BAD_STATUS else f"GET {action.path} answered {status}"


def port_number(container: Container, port: int | str | None) -> int:
    """Return the number of a port given by number or by name; 0 for a probe without one."""
    if isinstance(port, str):
        return next(one.container_port for one in container.ports if one.name == port)
    return port or 0


class Prober:
    """Probes one run of a container until it is stopped."""

    def __init__(
        self,
        name: str,
        probe: Probe,
        asker: Asker,
        state: ProbeState,
        on_result: OnResult,
        *,
        spaced: bool = False,
        at_once: bool = False,
    ) -> None:
        """`spaced`: failures closer together than the probe's period count once.

        `at_once`: begin without the probe's initial delay; until that is over, failures do not count.
        """
        self._spaced = spaced
        self._at_once = at_once
        self.state = state
        self._name = name
        self._probe = probe
        self._asker = asker
        self._on_result = on_result
        self._stopped = threading.Event()
        self._passed = False

    def start(self) -> None:
        """Begin, after the probe's initial delay, unless at once."""
        in_background(self._name, self._run)

    def stop(self) -> None:
        """Report no more results; a probe in progress completes unreported."""
        self._stopped.set()

    def _run(self) -> None:
        first_s, delay_s = FIRST_PAUSE_S, self._probe.initial_delay_seconds
        counts_from = time.monotonic() + delay_s
        if not self._at_once:
            self._stopped.wait(delay_s)
        while not self._stopped.is_set():
            failure = self._asker.ask()
            if self._stopped.is_set():
                return
            now = time.monotonic()
            if not failure or now >= counts_from:
                if self._spaced:
                    counts_from = now + self._probe.period_seconds
                before, self.state = self.state, self.state.after(not failure, self._probe)
                self._on_result(before, self.state, failure)
            pause_s = float(self._probe.period_seconds)
            if not self.state.passing and not self._passed:
                pause_s, first_s = min(pause_s, first_s), 2 * first_s
            self._passed |= self.state.passing
            self._stopped.wait(pause_s)
