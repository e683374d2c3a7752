"""The commands `cleanup`, which removes what runs left on this node, and `bridge`, which makes a bridge from
subnet.env.

Neither keeps a record of what was made: names and values identify our nftables tables and last-resort route, contents
identify our files.
"""

import contextlib
import logging
import re
import shlex
from collections.abc import Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from agent.assembly import choose_underlay, open_registry
from agent.backends.drop_device import is_drop_device
from agent.backends.leftovers import remove_kernel_path, remove_other_devices, remove_subnet_routes
from agent.backends.subnet_routes import LAST_RESORT_METRIC
from agent.errors import EnvironmentMissing, LeaseLost, RegistryError
from agent.kernel.bridge import converge_bridge, remove_bridge
from agent.kernel.firewall import Firewall
from agent.kernel.flanneld_rules import find_leftovers, remove_leftovers
from agent.kernel.forward_rules import ForwardRules
from agent.kernel.journal import Journal, open_journal
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPNetwork
from agent.node.other_agents import running_flannelds
from agent.node.setup import bridge_claim
from agent.node.subnet_env import first_address, read_env, read_previous_subnet, read_values
from agent.options.options import Options

log = logging.getLogger(__name__)

OUR_FILE_STARTS = ("FLANNEL_", "DOCKER_OPT")
REMOVED = "the overlay is removed from this node"
SMALLEST_MTU, LARGEST_MTU = 68, 65535
"""Bytes; RFC 791 §3.2, and the largest 16-bit length."""


class _Announcer:
    """Prints each change as something removed, and passes it on."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.removed = False

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        self._journal.record(command, why, stdin)
        # The last line of an nft script is the one that deletes.
        self.say(f"nft {stdin.strip().splitlines()[-1]}" if stdin else shlex.join(command))

    def say(self, what: str) -> None:
        self.removed = True
        print(f"removed: {what}", flush=True)

    def end(self) -> None:
        """Print it if nothing was removed."""
        if not self.removed:
            print("nothing to remove")


def clean_up(options: Options) -> None:
    """Remove rules, overlay devices and routes, bridge (with --bridge), files, lease (with --revoke); print all.

    With --rules, remove only our rules and last-resort routes, which a flanneld would not replace.
    Raises RegistryError, or without an underlay EnvironmentMissing, when the lease cannot be revoked; everything else
    is removed even so.
    """
    announcer = _Announcer(open_journal(options.journal, options.node_name))
    refused: RegistryError | EnvironmentMissing | None = None
    with Kernel(announcer) as kernel:
        _remove_kernel_path(kernel, options.subnet_file)
        if options.rules:
            _remove_rules(announcer)
            _remove_last_resort(kernel)
            announcer.end()
            return
        for link in kernel.links():
            if link.kind == "tun" and link.name.startswith("flannel"):
                log.warning("%s: an agent is running here and will restore everything; stop it first", link.name)
        if options.revoke:
            try:
                _give_leases_back(options, kernel, announcer)
            except (RegistryError, EnvironmentMissing) as error:
                refused = error
        _remove_rules(announcer)
        _remove_rules_of_flanneld(announcer)
        _remove_overlay(kernel, options.subnet_file)
        if options.bridge is not None:
            kept = remove_bridge(kernel, options.bridge)
            if kept is not None:
                print(f"kept: {kept}, made by another program", flush=True)
    for path in (options.docker_opts_file, options.subnet_file):
        if path is not None:
            _remove_file(path, announcer)
    if refused is not None:
        raise refused
    announcer.end()


def _remove_kernel_path(kernel: Kernel, subnet_file: Path) -> None:
    """Remove the devices of --datapath kernel before the rules that check their packets; also, with them, the kernel
    has the port that a flanneld needs.
    """
    env = read_env(subnet_file)
    if env is not None:
        remove_kernel_path(kernel, env.network, why=REMOVED)


def _remove_rules(announcer: _Announcer) -> None:
    # Without nft there are no rules of ours either.
    with contextlib.suppress(EnvironmentMissing):
        Firewall(announcer).remove_all()
        ForwardRules(announcer).remove()


def _remove_rules_of_flanneld(announcer: _Announcer) -> None:
    with contextlib.suppress(EnvironmentMissing):
        leftovers = find_leftovers()
        if leftovers and (running := running_flannelds()):
            kept = ", ".join(leftover.text for leftover in leftovers)
            print(f"kept: {kept}, of the flanneld that runs here (process {', '.join(map(str, running))})")
        else:
            remove_leftovers(leftovers, announcer)


def _remove_overlay(kernel: Kernel, subnet_file: Path) -> None:
    """Remove devices and routes that carry packets without an agent, if subnet.env shows which network was ours."""
    env = read_env(subnet_file)
    if env is not None:
        shares: list[tuple[IPNetwork | None, IPNetwork | None]] = [
            (env.network, env.subnet.ipv4),
            (env.ipv6_network, env.subnet.ipv6),
        ]
        for network, own in shares:
            if network is not None and own is not None:
                remove_other_devices(kernel, network, keep=(), why=REMOVED)
                remove_subnet_routes(kernel, network, own, why=REMOVED)
    _remove_last_resort(kernel)


def _remove_last_resort(kernel: Kernel) -> None:
    """Remove the last-resort routes, which take packets that the overlay does not."""
    for link in kernel.links():
        if is_drop_device(link):
            kernel.delete_link(link.name, REMOVED)
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        for route in kernel.routes(family):
            if route.kind in ("unreachable", "blackhole") and route.metric == LAST_RESORT_METRIC:
                kernel.delete_route(route, REMOVED)


def _give_leases_back(options: Options, kernel: Kernel, announcer: _Announcer) -> None:
    """Delete the leases of our public address; an operator's reservations stay.

    Raises RegistryError, and EnvironmentMissing without an underlay. The lease of the subnet in subnet.env is ours with
    any address of this machine: the agent may have kept one that it would not choose now.
    """
    public_ip, own = choose_underlay(options, kernel).public_ip, kernel.own_addresses(4, 6)
    previous, _ = read_previous_subnet(options.subnet_file)
    registry = open_registry(options)
    try:
        for lease in registry.list_leases().leases.values():
            ours = lease.attrs.public_ip == public_ip or (lease.subnet == previous and lease.attrs.public_ip in own)
            if ours and not lease.is_reservation:
                with contextlib.suppress(LeaseLost):
                    registry.delete(lease)
                    registry.revoke(lease.etcd_lease_id)
                    announcer.say(f"lease {lease.subnet} of {lease.attrs.public_ip}")
    finally:
        registry.close()


def _remove_file(path: Path, announcer: _Announcer) -> None:
    try:
        if path.is_symlink() or not path.is_file():
            return
        if not path.read_text(encoding="utf-8", errors="replace").lstrip().startswith(OUR_FILE_STARTS):
            log.warning("%s: kept; it does not look like one of our files", path)
            return
        path.unlink()
    except OSError as error:
        raise EnvironmentMissing(f"{path}: {error.strerror} (cannot remove it; want it gone)") from error
    announcer.say(str(path))


def make_bridge(options: Options) -> None:
    """Make the bridge that the subnet file asks for; twice is harmless. Raises EnvironmentMissing and NetlinkError."""
    bip, overlay_mtu = read_bridge_values(options.subnet_file)
    assert options.bridge is not None
    with Kernel(open_journal(options.journal, options.node_name)) as kernel:
        env = read_env(options.subnet_file)
        ipv6 = env.subnet.ipv6 if env is not None else None
        addresses = [bip] if ipv6 is None else [bip, first_address(ipv6)]
        claim = bridge_claim(options.subnet_file, bip.network if env is None else env.network)
        converge_bridge(kernel, options.bridge, addresses, overlay_mtu, claim)
    print(f"bridge {options.bridge}: {bip}, MTU {overlay_mtu}")


def read_bridge_values(path: Path) -> tuple[IPv4Interface, int]:
    """Return the bridge's address and MTU from subnet.env, as the CNI plugin reads it.

    Raises EnvironmentMissing with a line for each of the two that is missing.
    """
    want = "want the file that a running agent writes"
    try:
        values = read_values(path)
    except OSError as error:
        raise EnvironmentMissing(f"--subnet-file: {error.strerror} (got {path}; {want})") from error
    except ValueError as error:
        raise EnvironmentMissing(f"--subnet-file: {error} (got {path}; {want})") from error
    subnet, mtu = values.get("FLANNEL_SUBNET"), values.get("FLANNEL_MTU")
    bip, overlay_mtu = _bip(subnet or ""), _overlay_mtu(mtu or "")
    missing = []
    if bip is None:
        missing.append(f"no FLANNEL_SUBNET (got {_shown(subnet)}; want a line such as FLANNEL_SUBNET=10.1.74.1/24)")
    if overlay_mtu is None:
        missing.append(f"no FLANNEL_MTU (got {_shown(mtu)}; want a line such as FLANNEL_MTU=1472)")
    if bip is None or overlay_mtu is None:
        raise EnvironmentMissing("\n".join(f"--subnet-file: {path}: {what}" for what in missing))
    return bip, overlay_mtu


def _bip(text: str) -> IPv4Interface | None:
    try:
        # Without a length it would be parsed as a /32.
        return IPv4Interface(text) if "/" in text else None
    except ValueError:
        return None


def _overlay_mtu(text: str) -> int | None:
    if not re.fullmatch("[0-9]{1,6}", text) or not SMALLEST_MTU <= int(text) <= LARGEST_MTU:
        return None
    return int(text)


def _shown(text: str | None) -> str:
    return "nothing" if text is None else repr(text[:60])
