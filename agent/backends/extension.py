"""The extension backend: runs the operator's own programs for our subnet and for every peer.

As in flannel (pkg/backend/extension), but each program is run directly: words are split with quotes, `$NAME` in a word
is one of the variables below, and there is no shell. A program that fails for a peer is tried again.

| when | variables | standard input |
|---|---|---|
| PreStartupCommand, before the lease; what it prints is published | none | none |
| PostStartupCommand, with the lease | NETWORK SUBNET IPV6SUBNET PUBLIC_IP PUBLIC_IPV6 | none |
| SubnetAddCommand, SubnetRemoveCommand | SUBNET PUBLIC_IP | what the peer published |
"""

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from agent.backends.base import ForwardingEntry, Underlay
from agent.errors import AgentError
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import ExtensionOptions

log = logging.getLogger(__name__)

LIMIT_S = 60.0
"""A program that takes longer is killed, so that later peers do not wait indefinitely."""
RETRY_S = 5.0
"""Delay before a program that failed for a peer is run again."""
SHOWN_CHARACTERS = 200
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class ProgramFailed(AgentError):
    """A program of the operator could not be run, timed out, or exited with a code other than 0."""


class ExtensionBackend:
    """See `Backend`. Methods may be called from several threads."""

    def __init__(self, network: IPv4Network, options: ExtensionOptions, underlay: Underlay) -> None:
        self.device: str | None = None
        self.on_trouble: Callable[[], None] = lambda: None
        self.overlay_mtu = underlay.mtu
        self.datapath = "other"
        self._network = network
        self._options = options
        self._underlay = underlay
        self._published: str | None = None
        self._wanted: dict[Subnet, Lease] = {}
        self._done: dict[Subnet, Lease] = {}
        """Peers whose SubnetAddCommand succeeded."""
        self._failures: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stopped = False
        # Programs may be slow; the caller of `set_peers` must not wait for them.
        self._worker = threading.Thread(target=self._run, name="extension", daemon=True)

    def lease_attrs(self) -> LeaseAttrs:
        """Return what PreStartupCommand printed; it runs once. Raises ProgramFailed."""
        if self._options.pre_startup and self._published is None:
            self._published = run_program(self._options.pre_startup, {})
        return LeaseAttrs(self._underlay.public_ip, backend_type="extension", backend_data=self._published)

    def start(self, lease: Lease) -> None:
        """Run PostStartupCommand. Raises ProgramFailed."""
        if self._options.post_startup:
            variables = {
                "NETWORK": str(self._network),
                "SUBNET": str(lease.subnet.ipv4),
                "IPV6SUBNET": "" if lease.subnet.ipv6 is None else str(lease.subnet.ipv6),
                "PUBLIC_IP": str(self._underlay.public_ip),
                "PUBLIC_IPV6": "",
            }
            said = run_program(self._options.post_startup, variables)
            log.info("%s: %s", self._options.post_startup[0], said[:SHOWN_CHARACTERS] or "done")
        self._worker.start()

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Queue runs of the programs for peers that are new, changed or gone."""
        with self._lock:
            self._wanted = {lease.subnet: lease for lease in peers if lease.attrs.backend_type == "extension"}
        self._changed.set()

    def converge_rules(self) -> None:
        """Do nothing: it has no rules of its own."""

    def fence(self) -> None:
        """Remove every peer."""
        self.set_peers(())

    def converge(self) -> None:
        """Raise ProgramFailed for programs that fail now; they are retried without this call."""
        if failures := self._failures:
            raise ProgramFailed("; ".join(failures[:3]))

    def _run(self) -> None:
        while True:
            self._changed.wait(RETRY_S if self._failures else None)
            self._changed.clear()
            if self._stopped:
                return
            failures = tuple(self._run_due())
            if failures != self._failures:
                self._failures = failures
                self.on_trouble()

    def _run_due(self) -> Iterator[str]:
        """Run everything due; yield the failures."""
        with self._lock:
            wanted = dict(self._wanted)
        for subnet, lease in list(self._done.items()):
            if subnet not in wanted or wanted[subnet].attrs != lease.attrs:
                # Remove the peer even if the program fails: it is no longer a peer, and a program that always fails
                # must not keep it.
                del self._done[subnet]
                if failed := self._run_for_peer(self._options.subnet_remove, lease):
                    log.warning("%s", failed)
        for subnet, lease in wanted.items():
            if subnet in self._done:
                continue
            if failed := self._run_for_peer(self._options.subnet_add, lease):
                yield failed
            else:
                self._done[subnet] = lease

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Return the peers that the program accepted."""
        done = sorted(dict(self._done).items(), key=lambda item: item[0].ipv4)
        return tuple(ForwardingEntry(subnet.ipv4, str(lease.attrs.public_ip)) for subnet, lease in done)

    def counters(self) -> None:
        """Return None: nothing is counted."""
        return

    def stop(self, *, for_good: bool = True) -> None:
        """Run no more programs; whatever they made belongs to them."""
        self._stopped = True
        self._changed.set()

    def _run_for_peer(self, command: Sequence[str], lease: Lease) -> str:
        """Run one program for a peer; return the failure, or ""."""
        if not command:
            return ""
        data = lease.attrs.backend_data
        variables = {"SUBNET": str(lease.subnet.ipv4), "PUBLIC_IP": str(lease.attrs.public_ip)}
        try:
            run_program(command, variables, data if isinstance(data, str) else "")
        except ProgramFailed as error:
            return f"{lease.subnet}: {error}"
        return ""


def expand(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Replace `$NAME` and `${NAME}` in each word, from the variables and then from our environment; a word stays one
    word.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return variables.get(name, os.environ.get(name, ""))

    return [VARIABLE.sub(value, word) for word in words]


def run_program(words: Sequence[str], variables: Mapping[str, str], stdin: str = "") -> str:
    """Run a program to its end and return what it printed, on both channels. Raises ProgramFailed."""
    command = expand(words, variables)
    name = f"backend extension: {command[0]}"
    try:
        done = subprocess.run(
            command,
            input=f"{stdin}\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT_S,
            env=os.environ | dict(variables),
            check=False,
            # Our threads block the signals that stop the agent; a program inherits that, and what it starts in the
            # background would ignore `kill`.
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailed(f"{name}: timed out after {LIMIT_S:g} s") from None
    except OSError as error:
        raise ProgramFailed(f"{name}: cannot be run: {error.strerror}") from error
    except ValueError as error:
        # A word of the network config has a zero byte, or half a character that JSON can express.
        raise ProgramFailed(f"{name}: cannot be run: {error}") from error
    if done.returncode != 0:
        said = done.stdout.strip().replace("\n", "; ")[:SHOWN_CHARACTERS]
        raise ProgramFailed(f"{name}: exited with {done.returncode}: {said}")
    return done.stdout.strip()
