"""Warnings for the operator while everything works: a changed network config, a certificate that expires soon.

Nothing here affects what the agent does. Each warning is logged once, and shown in /state while it lasts.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.daemon.pacing import Clock, SystemClock
from agent.errors import ConfigMissing, InvalidConfig, RegistryError
from agent.etcd.registry import Registry
from agent.netconfig.backend_options import BackendOptions
from agent.netconfig.config import NetworkConfig, parse_network_config

log = logging.getLogger(__name__)

CHECK_S = 10.0
KEPT = "this agent keeps its startup config"
WARNED_BEFORE = timedelta(days=7)
WARNED_SHARE = 3
"""Certificates that live for days cause a warning in the last third of their life."""


def log_news(log: logging.Logger, before: Sequence[str], now: Sequence[str]) -> None:
    """Log each new warning, and each that no longer applies."""
    for warning in now:
        if warning not in before:
            log.warning("%s", warning)
    for warning in before:
        if warning not in now:
            log.info("no longer: %s", warning)


@dataclass(frozen=True, slots=True)
class Validity:
    """The time during which a certificate is valid."""

    begins: datetime
    ends: datetime

    def ends_soon(self, now: datetime) -> bool:
        """Return whether it is time to renew the certificate."""
        return self.ends - now < min(WARNED_BEFORE, (self.ends - self.begins) / WARNED_SHARE)


def read_validity(file: Path) -> Validity:
    """Read the validity of the first certificate in a PEM file. Raises OSError, and ValueError if it has none."""
    # Imported here: it costs 35 ms and 10 MB, which an agent without TLS never needs.
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except (ValueError, x509.InvalidVersion) as error:
        raise ValueError(f"{file}: no readable certificate ({error})") from error


class OperatorWarnings:
    """Checks from time to time, in its own thread; any thread may read `current`."""

    def __init__(
        self,
        registry: Registry,
        config: NetworkConfig,
        certificates: Sequence[Path],
        *,
        clock: Clock | None = None,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Compare with `config`, which the agent runs with, and read the first certificate of each PEM file."""
        self._registry = registry
        self._config = config
        self._certificates = certificates
        self._clock = clock or SystemClock()
        self._today = today
        self.current: tuple[str, ...] = ()

    def run(self, stop: threading.Event) -> None:
        """Check every 10 s until `stop`."""
        while not stop.is_set():
            self.check()
            self._clock.wait(stop, CHECK_S)

    def check(self) -> None:
        """Check once; log new warnings and those that ended."""
        try:
            about_config = self._about_config()
        except RegistryError:
            # The lease's renewal reports an unreachable etcd; the last result about the config still stands.
            about_config = tuple(warning for warning in self.current if warning.startswith("network config"))
        warnings = (*about_config, *self._about_certificates())
        log_news(log, self.current, warnings)
        self.current = warnings

    def _about_config(self) -> tuple[str, ...]:
        try:
            now = parse_network_config(self._registry.config())
        except ConfigMissing:
            return (f"network config: gone from etcd; {KEPT}",)
        except InvalidConfig as error:
            return (f"{error}; {KEPT}, but no other agent can start",)
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
            # A renewal may be half done; the connection to etcd reports a file that stays unusable.
            return None
        if not validity.ends_soon(self._today()):
            return None
        ended = "has expired" if validity.ends <= self._today() else "expires"
        at = f"{validity.ends:%Y-%m-%dT%H:%M:%SZ}"
        return f"certificate {file} {ended} at {at} (replace it in place: it is reloaded)"


def _changes(before: NetworkConfig | BackendOptions, after: NetworkConfig | BackendOptions) -> Iterator[str]:
    """Yield `name before → after` for each difference between two values of one class; only the name if
    it is secret.
    """
    for one in fields(before):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if not one.compare or old == new:
            continue
        if one.name != "backend":
            yield f"{one.name} {old} → {new}" if one.repr else f"{one.name} changed"
        elif type(old) is type(new):
            yield from _changes(old, new)
