"""What an operator should know while everything works: a config that changed under a running agent, certificates that
end soon. Nothing here changes what the agent does; each warning is logged once and shown in /state while it lasts.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from agent.daemon.pacing import Clock, SystemClock
from agent.errors import ConfigMissing, InvalidConfig, RegistryError
from agent.etcd.certificate import read_validity
from agent.etcd.registry import Registry
from agent.netconfig.backend_options import BackendOptions
from agent.netconfig.config import NetworkConfig, parse_network_config

log = logging.getLogger(__name__)

LOOK_S = 10.0
KEPT = "this agent goes on with what it started with"


class Foresight:
    """Looks from time to time, in a thread of its own; `warnings` may be read from any."""

    def __init__(
        self,
        registry: Registry,
        config: NetworkConfig,
        certificates: Sequence[Path],
        *,
        clock: Clock | None = None,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`config` is what the agent runs with; `certificates` are PEM files, of which the first certificate counts."""
        self._registry = registry
        self._config = config
        self._certificates = certificates
        self._clock = clock or SystemClock()
        self._today = today
        self.warnings: tuple[str, ...] = ()

    def run(self, stop: threading.Event) -> None:
        """Look now and then until `stop`."""
        while not stop.is_set():
            self.look()
            self._clock.wait(stop, LOOK_S)

    def look(self) -> None:
        """Look once."""
        try:
            about_config = self._about_config()
        except RegistryError:
            # Whoever renews the lease says so; what was true of the config still is.
            about_config = tuple(warning for warning in self.warnings if warning.startswith("network config"))
        warnings = (*about_config, *self._about_certificates())
        for warning in warnings:
            if warning not in self.warnings:
                log.warning("%s", warning)
        for warning in self.warnings:
            if warning not in warnings:
                log.info("no longer: %s", warning)
        self.warnings = warnings

    def _about_config(self) -> tuple[str, ...]:
        try:
            now = parse_network_config(self._registry.config())
        except ConfigMissing:
            return (f"network config: gone from etcd; {KEPT}",)
        except InvalidConfig as error:
            return (f"{error}; {KEPT}, and no other could start",)
        if now == self._config:
            return ()
        changes = ", ".join(_changes(self._config, now))
        return (f"network config changed in etcd: {changes}; {KEPT}, restart it to use the new one",)

    def _about_certificates(self) -> tuple[str, ...]:
        return tuple(warning for file in self._certificates if (warning := self._about_certificate(file)) is not None)

    def _about_certificate(self, file: Path) -> str | None:
        try:
            validity = read_validity(file)
        except (OSError, ValueError):
            # Half of a renewal may be in place; whoever connects with it says what is wrong.
            return None
        if not validity.ends_soon(self._today()):
            return None
        ended = "has expired" if validity.ends <= self._today() else "expires"
        at = f"{validity.ends:%Y-%m-%dT%H:%M:%SZ}"
        return f"certificate {file} {ended} at {at} (want a new one in its place: it is read again)"


def _changes(before: NetworkConfig | BackendOptions, after: NetworkConfig | BackendOptions) -> Iterator[str]:
    """Yield `name before → after` for each difference of two values of one class; only the name where it is secret."""
    for one in fields(before):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if not one.compare or old == new:
            continue
        if one.name != "backend":
            yield f"{one.name} {old} → {new}" if one.repr else f"{one.name} changed"
        elif type(old) is type(new):
            yield from _changes(old, new)
