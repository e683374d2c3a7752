"""What a node holds beside the overlay device once it has a lease: packet filter rules, the bridge, and the two files.

Each part is re-made where it is missing, on its own: one that fails makes the agent unready with the reason, is tried
again, and keeps no other from being made.
"""

import contextlib
import logging
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

from agent.backends.base import Backend
from agent.bridge import converge_bridge
from agent.config import NetworkConfig
from agent.errors import AgentError, EnvironmentMissing
from agent.firewall import Firewall, Policy
from agent.lease import Lease
from agent.netlink import Kernel
from agent.options import Options
from agent.readiness import Readiness
from agent.subnet_env import SubnetEnv, write_docker_opts, write_subnet_env

log = logging.getLogger(__name__)

DEVICE, RULES, BRIDGE, FILES = "overlay device", "rules", "bridge", "subnet file"


class NodeSetup:
    """The wanted state of one node with one lease; brings the kernel and the files to it."""

    def __init__(
        self,
        options: Options,
        config: NetworkConfig,
        lease: Lease,
        backend: Backend,
        kernel: Kernel,
        readiness: Readiness,
    ) -> None:
        self._options = options
        self._backend = backend
        self._kernel = kernel
        self._readiness = readiness
        self._firewall = Firewall(kernel.journal)
        self._policy = Policy(
            network=config.network,
            subnet=lease.subnet.ipv4,
            masquerade=options.ip_masq,
            random_fully=options.ip_masq_fully_random,
            forward=options.forward_rules,
        )
        self._written: set[Path] = set()
        self._rules_made = False
        self._subnet_env = SubnetEnv(config.network, lease.subnet, backend.overlay_mtu, options.ip_masq)

    def converge_links(self) -> None:
        """Device, routes and bridge; cheap enough for every change that the kernel reports."""
        self._part(DEVICE, self._backend.converge)
        if self._options.bridge is not None:
            self._part(BRIDGE, self._converge_bridge)
        else:
            self._readiness.fulfilled(BRIDGE)

    def converge_all(self) -> None:
        """Links, rules and files."""
        self._part(RULES, self._converge_rules)
        self.converge_links()
        self._part(FILES, self._write_files)

    def converge_unreported(self) -> None:
        """Rules and files: nobody tells of their changes, so this has to be called regularly."""
        self._part(RULES, self._converge_rules)
        self._part(FILES, self._write_files)

    def _part(self, part: str, converge: Callable[[], object]) -> None:
        try:
            converge()
        except (AgentError, OSError) as error:
            # OSError: out of descriptors or memory; that passes, and packets keep flowing meanwhile.
            if self._readiness.lacking(part, str(error)):
                log.error("%s: %s", part, error)
        else:
            if self._readiness.fulfilled(part):
                log.info("%s: in place", part)

    def _converge_bridge(self) -> None:
        subnet = self._policy.subnet
        bip = IPv4Interface((subnet.network_address + 1, subnet.prefixlen))
        converge_bridge(self._kernel, self._options.bridge or "", bip, self._backend.overlay_mtu)

    def _converge_rules(self) -> None:
        if self._policy.masquerade or self._policy.forward:
            if self._firewall.converge(self._policy) and self._rules_made:
                log.warning("rules: some were missing, made again")
            if not self._rules_made:
                self._firewall.remove_others(self._policy.network)
            self._rules_made = True
            return
        # A run with other flags may have left rules; where there is no nft it left none.
        with contextlib.suppress(EnvironmentMissing):
            self._firewall.remove_others(None)

    def _write_files(self) -> None:
        files: list[tuple[Path | None, Callable[[Path, SubnetEnv], None]]] = [
            (self._options.docker_opts_file, write_docker_opts),
            # Last, because others wait for this one and then look for the other.
            (self._options.subnet_file, write_subnet_env),
        ]
        for path, write in files:
            if path is not None and (not path.exists() or path not in self._written):
                write(path, self._subnet_env)
                self._written.add(path)
