"""All machines of a network, listed from one of them or from any machine that reaches etcd."""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from agent.assembly import open_registry
from agent.etcd.registry import EtcdRegistry
from agent.lease import Lease
from agent.netconfig.config import NetworkConfig, parse_network_config
from agent.node.subnet_env import SubnetEnv, read_env
from agent.options.options import Options
from testbed.control.answers.offline import MachineLine

ANSWER_WITHIN_S = 1
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Network:
    """The network and its members."""

    config: NetworkConfig
    machines: Sequence[MachineLine]
    joined: bool
    """Whether this machine is a member."""


def network_of(options: Options) -> Network:
    """Query etcd, and ping each machine. Raises RegistryError and InvalidConfig."""
    registry = open_registry(options)
    try:
        config = parse_network_config(registry.config())
        leases = sorted(registry.list_leases().leases.values(), key=lambda lease: lease.subnet.number)
        env = read_env(options.subnet_file)
        own = env if env is not None and env.network == config.network else None
        with ThreadPoolExecutor(AT_ONCE, "ping") as askers:
            machines = tuple(askers.map(lambda lease: _machine(registry, config, lease, own), leases))
    finally:
        registry.close()
    return Network(config, machines, own is not None)


def _machine(registry: EtcdRegistry, config: NetworkConfig, lease: Lease, own: SubnetEnv | None) -> MachineLine:
    here = own is not None and own.subnet.ipv4 == lease.subnet.ipv4
    gateway = overlay = None
    if own is not None:
        gateway = _answers(lease.subnet.ipv4.network_address + 1)
        # A node without a bridge has only this one; with backends without a device no machine has it.
        overlay = gateway or _answers(lease.subnet.ipv4.network_address)
    return MachineLine(
        subnet=str(lease.subnet),
        public_ip=str(lease.attrs.public_ip),
        backend=lease.attrs.backend_type or config.backend_type,
        seconds_left=registry.seconds_left(lease),
        here=here,
        answers=overlay,
        gateway_answers=gateway,
    )


def _answers(address: IPv4Address) -> bool:
    command = ["ping", "-n", "-c1", f"-W{ANSWER_WITHIN_S}", str(address)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
