"""The name server: knotd, supervised, on the lab's gateway, with the zones that it is given.

knotd loads a new zone while it answers from the old one and then swaps them (read-copy-update, liburcu), so that no
query is lost; tests/e2e/test_names.py queries continuously.
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from testbed.dns.query import QUERY_BYTES, NotAnAnswer, serial_answer, serial_question
from testbed.dns.zone import ROOT_ZONE, root_file, server_config
from testbed.plain_files import plain, replace_plain
from testbed.processes.namespaces import in_network_of
from testbed.processes.supervise import RestartPolicy, Supervised, last_line

ANSWER_LIMIT_S = 1.0
RELOAD_LIMIT_S = 5.0


class NameServerFailed(Exception):
    """The server failed; the message has its answer."""


class NameServer:
    """knotd in the network namespace of process `pid`."""

    def __init__(
        self,
        pid: int,
        address: IPv4Address,
        zones: Sequence[str],
        directory: Path,
        log: Path,
        on_change: Callable[[Supervised], None] = lambda _: None,
    ) -> None:
        """`address` must be one of that namespace. `directory` is the server's own and is created here."""
        self.address = address
        self.zones = tuple(zones)
        self.log = log
        self._pid = pid
        self._directory = directory
        # After this time, a failure has another cause than its start.
        self.process = Supervised("dns", self._launch, RestartPolicy(settled_after_s=1.0, max_delay_s=2.0), on_change)

    def start(self) -> None:
        """Serve the zones written so far, from now on. Raises OSError."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        (self._directory / "database").mkdir(parents=True, exist_ok=True)
        config = server_config(self.zones, self.address, self._directory)
        replace_plain(self._directory / "knot.conf", config.encode("ascii"))
        self.write({ROOT_ZONE: root_file()})
        self.process.start()

    def write(self, texts: Mapping[str, str]) -> None:
        """Write zone files by zone, each whole or not at all; they are served after the next `reload` or start."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for zone, text in texts.items():
            replace_plain(self._directory / f"{zone}.zone", text.encode("ascii"))

    def reload(self, zones: Sequence[str]) -> None:
        """Serve these zones' current files; return once it does. Raises NameServerFailed."""
        socket_path = self._directory / "knot.sock"
        command = ["knotc", "--socket", str(socket_path), "--blocking", "zone-reload", *zones]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RELOAD_LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise NameServerFailed(f"knotc: {failure}") from failure
        if done.returncode:
            raise NameServerFailed(f"knotc: {(done.stderr or done.stdout).strip() or done.returncode}")

    def serial(self, zone: str) -> int:
        """Return the serial with which it answers for a zone, through a normal query. Raises OSError or NotAnAnswer."""
        question = serial_question(zone, int.from_bytes(os.urandom(2), "big"))

        def ask() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.settimeout(ANSWER_LIMIT_S)
                asker.connect((str(self.address), 53))
                asker.send(question)
                return serial_answer(question, asker.recv(QUERY_BYTES))

        return in_network_of(self._pid, ask)

    def why_not(self) -> str:
        """Return why it does not answer; empty if it does."""
        why = ""
        try:
            self.serial(self.zones[0])
        except (OSError, NotAnAnswer) as failure:
            why = str(failure)
        if why and self.process.state != "running":
            said = last_line(self.log)
            why = f"knotd exited with {self.process.exit_code}{': ' if said else ''}{said}"
        return why

    def _launch(self) -> subprocess.Popen[bytes]:
        command = ["knotd", "--config", str(self._directory / "knot.conf")]

        def spawn() -> subprocess.Popen[bytes]:
            with open(self.log, "ab", opener=plain) as log:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
                )

        # A killed one leaves its socket behind, on which nothing answers.
        with contextlib.suppress(FileNotFoundError):
            (self._directory / "knot.sock").unlink()
        return in_network_of(self._pid, spawn)
