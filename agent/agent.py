"""One node's agent: connects etcd's leases to a backend and keeps this node's kernel and files in the wanted state.

    options → preconditions → health server → interface → network config (waits for etcd) → backend → subnet lease
    → overlay device → rules → bridge → subnet.env → [renewal thread, watch thread] → first peers → ready

The main thread then sleeps until the kernel reports a change, the resync period ends, or a stop is requested. Losing
etcd changes nothing here: its threads keep retrying, and packets follow the last known leases.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial

from agent.assembly import (
    certificates_of,
    choose_underlay,
    open_registry,
    refuse_conflicts,
    refuse_other_bridge,
    refuse_underlay_inside,
    refuse_unknown_backend,
)
from agent.backends import make_backend
from agent.backends.base import Backend, Underlay
from agent.backends.drop_device import DROP_DEVICES, remove_drop_device
from agent.backends.leftovers import PEER_DEVICES
from agent.daemon.memory import freeze_startup_objects
from agent.daemon.service_manager import Shutdown, notify_service_manager
from agent.daemon.watchdog import Watchdog, WatchedClock
from agent.datapath.counters import Counters
from agent.errors import LeaseLost, RegistryError
from agent.etcd.registry import EtcdRegistry
from agent.kernel.forward_chains import SHARED_CHAIN, SHARED_TABLE
from agent.kernel.journal import open_journal
from agent.kernel.kernel import Kernel
from agent.kernel.monitor import Monitor
from agent.kernel.nftables import ChainMonitor
from agent.kernel.values import IPAddress
from agent.lease import Lease
from agent.leases.config_wait import wait_for_config
from agent.leases.manager import SubnetManager
from agent.netconfig.config import NetworkConfig
from agent.node.health import HealthServer, LeaseReport, Readiness, Report, process_started_at_s
from agent.node.setup import BRIDGE, DEVICE, FILES, RULES, NodeSetup
from agent.node.subnet_env import read_env, read_previous_subnet
from agent.node.underlay_watch import UnderlayWatch
from agent.node.warnings import OperatorWarnings
from agent.options.options import Options

log = logging.getLogger(__name__)

CONFIG, LEASE, PEERS = "network config", "subnet lease", "peers"
PARTS = (CONFIG, LEASE, DEVICE, RULES, BRIDGE, FILES, PEERS)

FOLLOWED_DEVICES = ("flannel", PEER_DEVICES, DROP_DEVICES)
"""Prefixes of the names of overlay devices and their stand-ins."""
FENCED_FOR_S = 5.0
"""A fenced agent exits after this time; its supervisor restarts it, and it asks for another subnet."""
RETRY_S = 3.0
"""Delay before a failed step is tried again, whatever the resync period."""
LINKS_RESYNC_S = 30.0
"""The kernel reports changes of links; this catches lost reports, and sysctls, which have no reports."""
LINKS_RETRY_S = 1.0
"""The same while something is not ready. Not at every wake-up: another program may change its rules all the time."""
SETTLE_S = 0.1
"""Changes come in bursts (a device gets addresses, addresses make routes): wait for the end of one."""
QUIET_STOP_S = 1.0
"""How long threads may take to notice a stop before their connections are closed."""
HARD_STOP_S = 5.0
LOOPS = {"MainThread": 12.0, "renewal": 40.0, "watch": 40.0}
"""Seconds that a loop may stay silent.

One round of those that talk to etcd may wait for several answers of 3 s each.
"""
BEAT_S = 4.0
"""The main loop wakes at least this often, to beat."""


class Agent:
    """Run the agent once; see the module's text."""

    def __init__(self, options: Options, shutdown: Shutdown) -> None:
        self._options = options
        self._shutdown = shutdown
        self._stop = shutdown.requested
        self._readiness = Readiness(PARTS)
        self._started_at_s = process_started_at_s()
        self._lock = threading.Lock()
        self._wake_up: Callable[[], None] = lambda: None
        self._backend: Backend | None = None
        self._manager: SubnetManager | None = None
        self._warnings: OperatorWarnings | None = None
        self._setup: NodeSetup | None = None
        self._trouble = threading.Event()
        """Set when the backend needs a look."""
        self._fenced_at: float | None = None
        self._broken: str | None = None
        self._ends_for_good = False
        """Whether this is a stop on purpose, after which the node is cleaned; an agent that fails is restarted."""
        self._moved_to: Underlay | None = None
        """The underlay's new address, if it changed since the start."""
        self._revision = 0
        self._announced = False
        self._watchdog = Watchdog(LOOPS)

    def run(self) -> int:
        """Run until a signal (returns 0) or until the agent cannot continue (returns 1).

        Raises UsageError, EnvironmentMissing, RegistryDenied and NetlinkError, all before packets flow.
        """
        options = self._options
        with ExitStack() as undo:
            if options.healthz_port is not None:
                server = HealthServer(options.healthz_ip, options.healthz_port, self.report)
                undo.callback(server.close)
            kernel = undo.enter_context(Kernel(open_journal(options.journal, options.node_name)))
            monitor = undo.enter_context(Monitor(neighbours_of=FOLLOWED_DEVICES, ipv6=True))
            self._listen_to(monitor, undo)
            exit_code = self._run(kernel, monitor, undo)
            # There is no next start, or not with this subnet.
            self._ends_for_good = exit_code == 0 or self._fenced_at is not None
            return exit_code

    def _run(self, kernel: Kernel, monitor: Monitor, undo: ExitStack) -> int:
        options = self._options
        log.info("starting as %s, etcd %s", options.node_name, ",".join(options.etcd_endpoints))
        registry = open_registry(options)
        undo.callback(registry.close)
        # Early, so that a wrong --iface is reported even while etcd is down.
        choose_underlay(options, kernel)
        config = wait_for_config(
            registry,
            self._stop,
            refuse_unknown_backend,
            on_waiting=partial(self._readiness.mark_unready, CONFIG),
        )
        self._undo_the_run_before(kernel, config)
        if config is None:
            return 0
        self._readiness.mark_ready(CONFIG)
        choose = partial(choose_underlay, options, kernel, ipv6=config.ipv6_network is not None)
        underlay = choose()
        refuse_underlay_inside(underlay, config, options)
        refuse_conflicts(config, kernel)
        refuse_other_bridge(options, config, kernel)
        log.info(
            "underlay: %s, MTU %d, address %s, public address %s",
            underlay.interface,
            underlay.mtu,
            underlay.address,
            underlay.public_ip,
        )
        monitor.follow_only({underlay.interface, options.bridge or ""})
        backend = make_backend(config, underlay, kernel, options.datapath, offload=options.offload)
        undo.callback(lambda: backend.stop(for_good=self._ends_for_good))
        backend.on_trouble = self._on_trouble
        manager = self._subnet_manager(registry, config, backend, kernel.own_addresses(4, 6))
        lease = manager.acquire(self._stop, partial(self._readiness.mark_unready, LEASE))
        if lease is None:
            return 0
        self._readiness.mark_ready(LEASE)
        backend.start(lease)
        with self._lock:
            self._backend, self._manager = backend, manager
        setup = NodeSetup(options, config, lease, backend, kernel, self._readiness, self._watchdog.beat)
        chains = self._follow_shared_chain(monitor, undo)
        setup.converge_all()
        self._setup = setup
        self._warnings = OperatorWarnings(registry, config, certificates_of(options))
        threads = self._start_threads(manager, self._warnings)
        undo.callback(self._end_threads, threads, manager, registry)
        freeze_startup_objects()
        self._watchdog.start()
        undo.callback(self._watchdog.stop)
        watch = UnderlayWatch(underlay, lambda now: choose(current=now), partial(kernel.own_addresses, 4, 6))
        return self._keep_up(setup, monitor, chains, watch)

    def _undo_the_run_before(self, kernel: Kernel, config: NetworkConfig | None) -> None:
        """Remove the previous run's drop device, which is useless in another network and without an agent."""
        before = read_env(self._options.subnet_file)
        if before is not None and (config is None or before.network != config.network):
            why = "the agent is stopped on purpose" if config is None else "left by a run with another network"
            remove_drop_device(kernel, before.network, why)

    def report(self) -> Report:
        """Return a consistent report for the health server; never waits for etcd."""
        with self._lock:
            backend, manager = self._backend, self._manager
        lease = manager.lease if manager else None
        return Report(
            node=self._options.node_name,
            why_not_ready=self._readiness.reasons(),
            lease=self._lease_report(lease, manager) if lease and manager else None,
            device=backend.device if backend else None,
            overlay_mtu=backend.overlay_mtu if backend else None,
            datapath=backend.datapath if backend else None,
            forwarding=backend.forwarding_table() if backend else (),
            counters=backend.counters() if backend else Counters(),
            revision=self._revision,
            fenced=self._fenced_at is not None,
            watch_restarts=manager.watch_restarts if manager else 0,
            started_at_s=self._started_at_s,
            warnings=(
                *(self._warnings.current if self._warnings else ()),
                *(manager.warnings if manager else ()),
                *(self._setup.warnings if self._setup else ()),
            ),
            refused={str(subnet): reason for subnet, reason in manager.refused.items()} if manager else {},
        )

    def _lease_report(self, lease: Lease, manager: SubnetManager) -> LeaseReport:
        return LeaseReport(
            subnet=str(lease.subnet),
            public_ip=str(lease.attrs.public_ip),
            ttl_s=self._options.subnet_lease_ttl_s,
            reservation=lease.is_reservation,
            seconds_left=manager.seconds_left(),
        )

    def _listen_to(self, monitor: Monitor, undo: ExitStack) -> None:
        self._wake_up = monitor.wake
        self._shutdown.call_on_request(monitor.wake)
        undo.callback(self._shutdown.call_on_request, lambda: None)

    def _follow_shared_chain(self, monitor: Monitor, undo: ExitStack) -> ChainMonitor | None:
        """Notice at once when a program creates the chain that holds our accept rules; dockerd may start after us."""
        if not self._options.forward_rules:
            return None
        try:
            chains = undo.enter_context(ChainMonitor(SHARED_TABLE, SHARED_CHAIN))
        except OSError as error:
            log.warning("forward: chains are checked only every %d s: %s", self._options.resync_s, error)
            return None
        monitor.also_wake_for(chains)
        return chains

    def _subnet_manager(
        self, registry: EtcdRegistry, config: NetworkConfig, backend: Backend, own_addresses: Collection[IPAddress]
    ) -> SubnetManager:
        previous, warning = read_previous_subnet(self._options.subnet_file)
        if warning:
            log.warning("%s", warning)
        return SubnetManager(
            registry,
            config,
            backend.lease_attrs(),
            previous_subnet=previous,
            own_addresses=own_addresses,
            lease_ttl_s=self._options.subnet_lease_ttl_s,
            node=self._options.node_name,
            clock=WatchedClock(self._watchdog),
        )

    def _start_threads(self, manager: SubnetManager, warnings: OperatorWarnings) -> list[threading.Thread]:
        jobs = {
            "renewal": lambda: manager.run_renewal(self._stop, self._on_fenced, self._on_lease_over),
            "watch": lambda: manager.run_watch(self._stop, self._on_peers),
            "warnings": lambda: warnings.run(self._stop),
        }
        threads = [threading.Thread(target=self._guard, args=job, name=job[0], daemon=True) for job in jobs.items()]
        for thread in threads:
            thread.start()
        return threads

    def _guard(self, name: str, job: Callable[[], None]) -> None:
        """Run a thread's loop; if it dies, stop the agent, which would otherwise look alive and follow nothing."""
        try:
            job()
        except Exception as error:
            log.exception("%s thread: unexpected error", name)
            self._broken = f"the {name} thread ended: {type(error).__name__}: {error}"
            self._wake_up()

    def _on_peers(self, peers: tuple[Lease, ...], revision: int) -> None:
        with self._lock:
            # `set_peers` would resume forwarding for a subnet that another node owns.
            if self._backend is None or self._fenced_at is not None:
                return
            self._backend.set_peers(peers)
            self._revision = revision
        log.info("peers: %d active, revision %d", len(peers), revision)
        self._readiness.mark_ready(PEERS)
        self._announce_ready()

    def _on_trouble(self) -> None:
        self._trouble.set()
        self._wake_up()

    def _trouble_came(self) -> bool:
        """Return whether the backend has needed a look since the last call."""
        if not self._trouble.is_set():
            # Not cleared either: what comes at this moment is for the next call.
            return False
        self._trouble.clear()
        return True

    def _on_fenced(self, reason: str) -> None:
        with self._lock:
            self._fenced_at = time.monotonic()
            if self._backend is not None:
                self._backend.fence()
        self._readiness.mark_unready(LEASE, f"fenced: {reason}")
        log.error("forwarding stopped; exiting in %g s to restart with another subnet", FENCED_FOR_S)
        self._wake_up()

    def _on_lease_over(self, why: str | None) -> None:
        """Report an expired lease; packets keep flowing until another node owns our subnet."""
        if why is None:
            self._readiness.mark_ready(LEASE)
        else:
            self._readiness.mark_unready(LEASE, why)

    def _announce_ready(self) -> None:
        with self._lock:
            if self._announced or self._readiness.reasons():
                return
            self._announced = True
        log.info("ready")
        notify_service_manager("READY=1")

    def _keep_up(self, setup: NodeSetup, monitor: Monitor, chains: ChainMonitor | None, underlay: UnderlayWatch) -> int:
        next_full = time.monotonic() + self._options.resync_s
        links_at = time.monotonic()
        while not self._stop.is_set():
            self._watchdog.beat()
            if (reason := self._reason_to_end()) is not None:
                log.error("ending: %s", reason)
                return 1
            if self._readiness.reasons():
                next_full = min(next_full, time.monotonic() + RETRY_S)
            wake_at = next_full if self._fenced_at is None else min(next_full, self._fenced_at + FENCED_FOR_S)
            wake_at = min(wake_at, underlay.due_at_s)
            changed = monitor.wait(min(BEAT_S, max(0.0, wake_at - time.monotonic())))
            if changed:
                self._stop.wait(SETTLE_S)
                monitor.wait(0)
            if changed or time.monotonic() >= underlay.due_at_s:
                self._look_at(underlay)
            if self._stop.is_set():
                break
            links_due = links_at + (LINKS_RETRY_S if self._readiness.reasons() else LINKS_RESYNC_S)
            if self._trouble_came() or changed or time.monotonic() >= links_due:
                setup.converge_links()
                links_at = time.monotonic()
            chain_changed = chains is not None and chains.changed()
            if chain_changed or time.monotonic() >= next_full:
                setup.converge_unreported()
                next_full = time.monotonic() + self._options.resync_s
            if chain_changed:
                # Let a burst pass after the check, not before: until the chain holds our rules, it drops packets.
                self._stop.wait(SETTLE_S)
            self._announce_ready()
        log.info("stopping")
        notify_service_manager("STOPPING=1")
        return 0

    def _look_at(self, underlay: UnderlayWatch) -> None:
        """Exit for a restart when the underlay changed: a new address, device or MTU affects every socket
        and device.
        """
        now = underlay.look(time.monotonic())
        if now is not None:
            self._moved_to = now
            before = _words(underlay.started_with)
            self._broken = f"underlay changed from {before} to {_words(now)}; exiting to restart with it"

    def _reason_to_end(self) -> str | None:
        if self._fenced_at is not None and time.monotonic() >= self._fenced_at + FENCED_FOR_S:
            return "another node owns our subnet; the next start requests a new one"
        return self._broken

    def _end_threads(self, threads: list[threading.Thread], manager: SubnetManager, registry: EtcdRegistry) -> None:
        self._stop.set()
        for thread in threads:
            thread.join(QUIET_STOP_S)
        if self._moved_to is not None and self._fenced_at is None:
            self._take_subnet_along(manager, registry, self._moved_to)
        elif self._options.revoke_on_exit and self._fenced_at is None:
            try:
                manager.release()
            except RegistryError as error:
                log.error("could not release the subnet: %s", error)
        registry.close()
        for thread in threads:
            thread.join(HARD_STOP_S)

    def _take_subnet_along(self, manager: SubnetManager, registry: EtcdRegistry, underlay: Underlay) -> None:
        """Write our new address under our key, so that peers follow and our next start finds it."""
        # What still uses the old address would notice only by silence.
        registry.reconnect()
        try:
            manager.move_to(underlay.public_ip)
        except (RegistryError, LeaseLost) as error:
            log.error("could not move the subnet to %s: %s", underlay.public_ip, error)


def _words(underlay: Underlay) -> str:
    also = "" if underlay.ipv6_address is None else f" and {underlay.ipv6_address}"
    return f"{underlay.address}{also} on {underlay.interface} with MTU {underlay.mtu}"
