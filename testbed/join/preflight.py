"""Checks whether a machine can join a network, all at once, before anything is changed."""

import http.client
from collections.abc import Callable, Iterator

from agent.assembly import (
    choose_underlay,
    open_registry,
    refuse_conflicts,
    refuse_other_bridge,
    refuse_underlay_inside,
    refuse_unknown_backend,
)
from agent.errors import AgentError, EnvironmentMissing
from agent.kernel.journal import open_journal
from agent.kernel.kernel import Kernel
from agent.netconfig.config import NetworkConfig, parse_network_config
from agent.node.other_agents import FLANNELD, running_agents
from agent.options.options import Options
from agent.options.preconditions import check_machine, check_tun
from testbed.join.flags import health_host

ANSWER_LIMIT_S = 2.0


def problems(options: Options) -> list[AgentError]:
    """Return every problem of this machine, its flags and the network in etcd; empty if it may join."""
    return [error for check in _checks(options) if (error := _fails(check)) is not None]


def running_here(options: Options) -> bool:
    """Report whether an agent answers on the health port that ours would use."""
    if options.healthz_port is None:
        return False
    connection = http.client.HTTPConnection(health_host(options), options.healthz_port, timeout=ANSWER_LIMIT_S)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _checks(options: Options) -> Iterator[Callable[[], object]]:
    yield lambda: check_machine(options)
    yield lambda: _check_alone(options)
    found: list[NetworkConfig] = []
    yield lambda: found.append(_network(options))
    yield lambda: _check_links(options, found[0] if found else None)
    if found and found[0].backend_type == "udp":
        yield check_tun


def _fails(check: Callable[[], object]) -> AgentError | None:
    try:
        check()
    except AgentError as error:
        return error
    return None


def _check_alone(options: Options) -> None:
    if running_here(options):
        raise EnvironmentMissing(
            f"machine: an agent runs here already (got an answer on port {options.healthz_port};"
            " want it stopped, or with another network another --healthz-port, --etcd-prefix and --subnet-file)"
        )
    for other in running_agents():
        if other.meets(options):
            raise EnvironmentMissing(
                f"machine: {'a flanneld' if other.program == FLANNELD else 'an agent'} runs here already"
                f" (got process {other.pid}, which has {other.etcd_prefix} in etcd and writes {other.subnet_file};"
                " want it stopped, or with another network another --etcd-prefix and --subnet-file)"
            )


def _network(options: Options) -> NetworkConfig:
    registry = open_registry(options)
    try:
        config = parse_network_config(registry.config())
    finally:
        registry.close()
    refuse_unknown_backend(config)
    return config


def _check_links(options: Options, config: NetworkConfig | None) -> None:
    with Kernel(open_journal(None, options.node_name)) as kernel:
        underlay = choose_underlay(options, kernel, ipv6=config is not None and config.ipv6_network is not None)
        if config is not None:
            refuse_underlay_inside(underlay, config, options)
            refuse_conflicts(config, kernel)
            refuse_other_bridge(options, config, kernel)
