"""A node's state beside the overlay device once it has a lease: packet filter rules, the bridge, and the two files.

Each part is restored on its own: one that fails makes the agent unready with the reason, is retried, and does not stop
the others.
"""

import contextlib
import logging
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from agent.backends.base import Backend
from agent.backends.subnet_routes import own_blackhole
from agent.errors import AgentError, EnvironmentMissing
from agent.kernel.bridge import BridgeClaim, converge_bridge, refuse_second_bridge
from agent.kernel.conntrack import forget_flows, words
from agent.kernel.firewall import Firewall, Policy, escapes
from agent.kernel.flanneld_rules import find_leftovers, remove_leftovers
from agent.kernel.forward_rules import ForwardRules
from agent.kernel.kernel import Kernel
from agent.kernel.values import IPNetwork
from agent.lease import Lease
from agent.netconfig.config import NetworkConfig
from agent.node.health import Readiness
from agent.node.other_agents import running_flannelds
from agent.node.subnet_env import (
    SubnetEnv,
    first_address,
    read_env,
    read_previous_subnet,
    write_docker_opts,
    write_subnet_env,
)
from agent.node.warnings import log_news
from agent.options.options import Options

log = logging.getLogger(__name__)

DEVICE, RULES, BRIDGE, FILES = "overlay device", "rules", "bridge", "subnet file"


def bridge_claim(subnet_file: Path, network: IPv4Network) -> BridgeClaim:
    """Return how our bridge is recognised: the pod network, and what the previous run wrote into its subnet.env."""
    env, (previous, _) = read_env(subnet_file), read_previous_subnet(subnet_file)
    networks = (network,) if env is None else (network, env.network)
    addresses = () if previous is None else (IPv4Interface(first_address(previous.ipv4)).ip,)
    return BridgeClaim(networks, addresses)


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
        alive: Callable[[], object],
    ) -> None:
        """`alive` is called before each part: all of them together may take long on a slow machine."""
        self._options = options
        self._backend = backend
        self._kernel = kernel
        self._readiness = readiness
        self._alive = alive
        self._firewall = Firewall(kernel.journal)
        self._forward_rules = ForwardRules(kernel.journal)
        self.warnings: tuple[str, ...] = ()
        """Other programs' chains that drop packets between pods."""
        shares = [(config.network, lease.subnet.ipv4), (config.ipv6_network, lease.subnet.ipv6)]
        self._policies = [
            Policy(
                network,
                subnet,
                options.ip_masq,
                options.ip_masq_fully_random,
                options.forward_rules,
                getattr(config.backend, "port", None),
                options.bridge,
            )
            for network, subnet in shares
            if network is not None and subnet is not None
        ]
        self._written: set[Path] = set()
        self._rules_made = False
        ipv6_network = None if lease.subnet.ipv6 is None else config.ipv6_network
        self._subnet_env = SubnetEnv(
            config.network, lease.subnet, backend.overlay_mtu, options.ip_masq, ipv6_network=ipv6_network
        )
        self._before = read_env(options.subnet_file)
        """What the previous run wrote."""
        self._bridge_claim = bridge_claim(options.subnet_file, config.network)

    def converge_links(self) -> None:
        """Converge device, routes and bridge; cheap enough for every change that the kernel reports."""
        self._part(DEVICE, self._converge_device)
        self._part(BRIDGE, self._converge_bridge)

    def converge_all(self) -> None:
        """Converge links, rules and files."""
        self._part(RULES, self._converge_rules)
        self.converge_links()
        self._part(FILES, self._write_files)

    def converge_unreported(self) -> None:
        """Converge rules, files and bridge: changes of the first two, and other bridges, are not reported, so call this
        regularly.
        """
        self._part(RULES, self._converge_rules)
        self._part(BRIDGE, self._converge_bridge)
        self._part(FILES, self._write_files)

    def _part(self, part: str, converge: Callable[[], object]) -> None:
        self._alive()
        try:
            converge()
        except (AgentError, OSError) as error:
            # OSError: out of descriptors or memory; that is transient, and packets keep flowing meanwhile.
            if self._readiness.mark_unready(part, str(error)):
                log.error("%s: %s", part, error)
        else:
            if self._readiness.mark_ready(part):
                log.info("%s: in place", part)

    def _converge_device(self) -> None:
        self._backend.converge()
        if self._options.blackhole_route:
            for policy in self._policies:
                route = own_blackhole(policy.subnet)
                self._kernel.ensure_route(route, "without the bridge, packets for our own pods are dropped")

    def _converge_bridge(self) -> None:
        name, addresses = self._options.bridge, [first_address(policy.subnet) for policy in self._policies]
        if name is not None:
            converge_bridge(self._kernel, name, addresses, self._backend.overlay_mtu, self._bridge_claim)
        refuse_second_bridge(self._kernel, name, self._subnet_env.subnet.ipv4)

    def _converge_rules(self) -> None:
        self._backend.converge_rules()
        with_rules = self._options.ip_masq or self._options.forward_rules
        if with_rules:
            made = [policy for policy in self._policies if self._firewall.converge(policy)]
            if made and self._rules_made:
                log.warning("rules: restored missing rules")
            for policy in made:
                self._forget_flows(policy)
        if self._options.forward_rules:
            self._converge_forward_rules()
        if self._rules_made:
            return
        # The previous run may have had another network or other flags. Tables of networks that were never ours belong
        # to other agents. Without nft there are none.
        with contextlib.suppress(EnvironmentMissing):
            for network in self._networks_before():
                is_ours_now = network in [policy.network for policy in self._policies]
                if not with_rules or not is_ours_now:
                    self._firewall.remove(network)
                if not self._options.forward_rules or not is_ours_now:
                    self._forward_rules.remove(network)
            self._remove_rules_of_flanneld()
        self._rules_made = True

    def _remove_rules_of_flanneld(self) -> None:
        leftovers = find_leftovers()
        if not leftovers:
            return
        found = ", ".join(leftover.text for leftover in leftovers)
        if running := running_flannelds():
            processes = ", ".join(map(str, running))
            log.warning("rules: a flanneld runs here too (process %s), so its rules stay: %s", processes, found)
            return
        remove_leftovers(leftovers, self._kernel.journal)
        log.info("rules: removed what a flanneld left: %s", found)

    def _converge_forward_rules(self) -> None:
        reports = [self._forward_rules.converge(policy.network) for policy in self._policies]
        for chain in (chain for report in reports for chain in report.opened):
            log.info("forward: %s now accepts the pod network's packets, by our rules", chain)
        warnings = tuple(warning for report in reports for warning in report.warnings)
        log_news(log, self.warnings, warnings)
        self.warnings = warnings

    def _forget_flows(self, policy: Policy) -> None:
        """Forget the UDP flows older than the rules, so that these are masqueraded too."""
        version = policy.network.version
        try:
            own = self._kernel.own_addresses(version)
            forgotten = forget_flows(version, lambda flow: escapes(policy, flow, own))
        except (AgentError, OSError) as error:
            # The rules are in force all the same, and such flows end by themselves.
            log.warning("rules: older UDP flows are masqueraded only after a pause of 30 s: %s", error)
            return
        for command in words(forgotten):
            self._kernel.journal.record(command, "these flows are older than the rules that masquerade them")

    def _networks_before(self) -> list[IPNetwork]:
        before = self._before
        networks = [policy.network for policy in self._policies]
        return networks + ([] if before is None else [it for it in (before.network, before.ipv6_network) if it])

    def _write_files(self) -> None:
        files: list[tuple[Path | None, Callable[[Path, SubnetEnv], None]]] = [
            (self._options.docker_opts_file, write_docker_opts),
            # Last, because other programs wait for this file and then read the other.
            (self._options.subnet_file, write_subnet_env),
        ]
        for path, write in files:
            if path is not None and (not path.exists() or path not in self._written):
                write(path, self._subnet_env)
                self._written.add(path)
