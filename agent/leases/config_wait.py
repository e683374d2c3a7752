"""Wait for a usable network config: operators may start nodes before they write the config."""

import logging
import random
import threading
from collections.abc import Callable

from agent.daemon.log import LogLimit
from agent.daemon.pacing import Backoff, Clock, SystemClock
from agent.errors import ConfigMissing, InvalidConfig, RegistryDenied, RegistryError
from agent.etcd.registry import Registry
from agent.netconfig.config import NetworkConfig, parse_network_config

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""flannel's interval between two reads of the config."""


def wait_for_config(
    registry: Registry,
    stop: threading.Event,
    check: Callable[[NetworkConfig], object] = lambda _: None,
    *,
    on_waiting: Callable[[str], object] = lambda _: None,
    clock: Clock | None = None,
) -> NetworkConfig | None:
    """Return the network config once it is valid; None if `stop` was set first.

    `check` may refuse a config by raising InvalidConfig, for instance for an unsupported backend type. Each problem is
    passed to `on_waiting`, and logged at once and then every 10 s while it lasts. Raises RegistryDenied.
    """
    clock = clock or SystemClock()
    limit, last_kind, backoff = LogLimit(clock), "", Backoff(random.Random())
    while not stop.is_set():
        delay_s = RETRY_S
        try:
            config = parse_network_config(registry.config())
            check(config)
        except RegistryDenied:
            raise
        except ConfigMissing as error:
            kind, problem = "missing", f"waiting for the network config: {error}"
        except InvalidConfig as error:
            kind, problem = str(error), f"waiting for a valid network config: {error}"
        except RegistryError as error:
            # One kind of problem whatever its text, which changes with each endpoint.
            kind, problem = "etcd", f"waiting for etcd: {error}"
            delay_s = backoff.next_s()
        else:
            for warning in config.warnings:
                log.warning("network config: %s", warning)
            for name in config.unknown_options:
                log.warning("Backend.%s: not an option of %s, ignored", name, config.backend_type)
            return config
        on_waiting(problem)
        if kind != last_kind:
            limit.reset()
        if limit.allows():
            log.warning("%s", problem)
        last_kind = kind
        clock.wait(stop, delay_s)
    return None
