"""Agents in which one thing is broken: each function replaces a part of our agent in the process that calls it."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from agent import agent as whole
from agent.agent import Agent
from agent.daemon.pacing import SystemClock
from agent.daemon.watchdog import Watchdog
from agent.errors import Compacted, Fenced, LeaseLost, RegistryDenied, RegistryError
from agent.etcd.client import EtcdClient
from agent.etcd.registry import Watch
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.lease import Delta, Lease
from agent.leases import allocator
from agent.leases.acquisition import Acquisition
from agent.leases.claims import AddressClaims
from agent.leases.life import LeaseLife
from agent.leases.manager import SubnetManager
from agent.leases.watch import LeaseWatch
from agent.node.setup import NodeSetup
from agent.node.underlay_watch import UnderlayWatch
from agent.node.warnings import OperatorWarnings

# A mutant replaces methods, which mypy does not like; that each one exists is what it checks here.
# mypy: disable-error-code="method-assign, assignment"

OTHERS = 2
"""Nodes besides our own in the lab for faults."""
FOREVER_S = 600.0
CHOSEN, STARTED = Path("/var/tmp/mutant"), Path("/var/tmp/mutant-started")
"""In the lab, where no node's crash reaches: which mutant is wanted, and that it has started before."""


def none() -> None:
    """Nothing is broken."""


def device() -> None:
    """What becomes of links is nobody's business."""
    first = NodeSetup.converge_links
    done: list[object] = []

    def converge_once(setup: NodeSetup) -> None:
        if not done:
            done.append(setup)
            first(setup)

    NodeSetup.converge_links = converge_once


def rules() -> None:
    """Rules and files are made once."""
    NodeSetup.converge_unreported = lambda _: None


def renewal() -> None:
    """The lease is never renewed."""

    def wait(_manager: SubnetManager, stop: threading.Event, *_: object) -> None:
        stop.wait()

    SubnetManager.run_renewal = wait


def watch() -> None:
    """Peers are listed until the others are there, and never again."""

    def list_once(follower: LeaseWatch, stop: threading.Event) -> None:
        while len(follower._table.peers) < OTHERS and not stop.wait(0.2):
            follower._take(follower._registry.list_leases())
        stop.wait()

    LeaseWatch.run = list_once


def repair() -> None:
    """Our key is gone, and nobody writes it again."""

    def give_up(_manager: SubnetManager, lease: Lease) -> Lease:
        raise LeaseLost(str(lease.subnet))

    SubnetManager._take_again = give_up


def despair() -> None:
    """An etcd that is away is taken for one without leases."""
    follow = LeaseWatch._follow

    def forget(watch: LeaseWatch, stop: threading.Event) -> None:
        try:
            follow(watch, stop)
        except RegistryError:
            watch._on_peers((), watch.revision)
            watch._delivered = None
            raise

    LeaseWatch._follow = forget


def chance() -> None:
    """Which subnet a node asks for has nothing to do with the one that it had."""
    draw = allocator._draw

    def draw_blindly(slots: allocator._Slots, taken: Iterable[IPv4Network | IPv6Network], node: str) -> int:
        return draw(slots, taken, f"{node} {random.random()}")

    allocator._draw = draw_blindly


def amnesia() -> None:
    """Nor does it, from its second start on, remember that one, or look whether etcd does."""
    if not STARTED.exists():
        STARTED.touch()
        return
    chance()
    whole.read_previous_subnet = lambda _: (None, None)  # type: ignore[attr-defined] # a name that it imports
    Acquisition._held_for_us = lambda *_: None


def address() -> None:
    """What becomes of the node's own address is nobody's business."""
    Agent._look_at = lambda *_: None


def watchdog() -> None:
    """Nobody looks whether a loop stands still."""
    Watchdog.tick = lambda _: True


def sluggish() -> None:
    """It takes its time to start."""
    time.sleep(4)


def leftovers() -> None:
    """Each start leaves a route behind."""
    subprocess.run(["ip", "route", "add", "blackhole", f"198.18.{os.getpid() % 250}.0/24"], check=False)


def one_endpoint() -> None:
    """Of several endpoints only the first is ever asked."""
    begin = EtcdClient.__init__

    def forget_the_others(client: EtcdClient, endpoints: Any, *more: Any) -> None:  # noqa: ANN401 - passed on as it is
        begin(client, endpoints[:1], *more)

    EtcdClient.__init__ = forget_the_others


def hasty() -> None:
    """An answer that takes longer than a second costs the connection."""
    begin, give_up = EtcdClient.__init__, EtcdClient._give_up

    def be_hasty(client: EtcdClient, endpoints: Any, credentials: Any, _deadline_s: float) -> None:  # noqa: ANN401
        begin(client, endpoints, credentials, 1.0)

    EtcdClient.__init__ = be_hasty
    EtcdClient._give_up = lambda client, connection, late=False: give_up(client, connection)


def panic() -> None:
    """An etcd that does not answer within a moment is taken for proof that our subnet is another node's."""
    _fence_after_silence(0.7)


def hasty_panic() -> None:
    """The same, and the moment is shorter than the election of a leader, which takes 0.4 to 1 s."""
    _fence_after_silence(0.3)


def _fence_after_silence(patience_s: float) -> None:
    begin, keep = EtcdClient.__init__, SubnetManager._keep
    whole.FENCED_FOR_S = FOREVER_S

    def be_hasty(client: EtcdClient, endpoints: Any, credentials: Any, _deadline_s: float) -> None:  # noqa: ANN401
        begin(client, endpoints, credentials, patience_s)

    def keep_or_fence(manager: SubnetManager, periodic: bool) -> None:
        try:
            keep(manager, periodic)
        except RegistryError as error:
            raise Fenced(str(error)) from error

    EtcdClient.__init__ = be_hasty
    SubnetManager._keep = keep_or_fence
    SubnetManager._interval_s = lambda _: 0.2


def regrant() -> None:
    """Each renewal takes a new etcd lease, as flannel's does."""

    def keep(manager: SubnetManager, periodic: bool) -> None:
        assert manager._lease is not None
        asked_at = manager._clock.now()
        manager._lease = manager._registry.renew(manager._lease, manager._attrs, manager._lease_ttl_s)
        manager._life = LeaseLife(asked_at, manager._lease_ttl_s)

    SubnetManager._keep = keep


def history() -> None:
    """The watch is begun anew each second where the first one began, and what is compacted is gone for good."""
    first: list[int] = []

    def poll_old(follower: LeaseWatch, watching: Watch, stop: threading.Event) -> None:
        first.append(follower.revision + 1)
        try:
            while not stop.wait(1.0):
                watching.cancel()
                watching = follower._registry.watch(first[0])
                while (result := watching.poll(0.3)) is not None:
                    if isinstance(result, Delta):
                        follower._take(result)
        except Compacted:
            follower._on_peers((), follower.revision)
            stop.wait()

    LeaseWatch._poll = poll_old


def timid() -> None:
    """Without a carrier for a moment it never forwards again."""

    def give_up(agent: Agent, underlay: UnderlayWatch) -> None:
        assert agent._backend is not None
        with Kernel(SilentJournal()) as kernel:
            link = kernel.link(underlay.started_with.interface)
        if link is None or "LOWER_UP" not in link.flags:
            agent._backend.fence()

    Agent._look_at = give_up


def suspicious() -> None:
    """Who says nothing for a second and a half is no peer any more."""
    start = Agent._start_threads

    def listen(agent: Agent) -> None:
        assert agent._backend is not None
        last, silent_since, peers_heard = -1, time.monotonic(), False
        while not agent._stop.wait(0.2):
            counters = agent._backend.counters()
            assert counters is not None
            if counters.rx_packets != last:
                peers_heard = last >= 0
                last, silent_since = counters.rx_packets, time.monotonic()
            elif peers_heard and time.monotonic() - silent_since > 1.5:
                agent._backend.fence()
                return

    def start_and_listen(agent: Agent, *arguments: Any) -> list[threading.Thread]:  # noqa: ANN401 - passed on as they are
        threading.Thread(target=listen, args=(agent,), daemon=True).start()
        return start(agent, *arguments)

    Agent._start_threads = start_and_listen


def wall_clock() -> None:
    """Timers use the wall clock."""
    SystemClock.now = lambda _: time.time()


def offended() -> None:
    """Who is refused once never asks again."""
    keep = SubnetManager._keep

    def keep_or_sulk(manager: SubnetManager, periodic: bool) -> None:
        try:
            keep(manager, periodic)
        except RegistryDenied:
            threading.Event().wait(FOREVER_S)

    SubnetManager._keep = keep_or_sulk


def serene() -> None:
    """A lease that is over is no reason not to be ready."""
    Agent._on_lease_over = lambda *_: None


def unfenced() -> None:
    """Whose address stands under our key does not matter."""
    keep = SubnetManager._keep

    def keep_anyway(manager: SubnetManager, periodic: bool) -> None:
        try:
            keep(manager, periodic)
        except Fenced:
            return

    SubnetManager._keep = keep_anyway


def blind() -> None:
    """Nobody looks whether the config is still the same."""
    OperatorWarnings.check = lambda _: None


def mute() -> None:
    """Who asks whether we are there gets no answer."""
    AddressClaims.see = lambda *_: None


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        none,
        device,
        rules,
        renewal,
        watch,
        repair,
        despair,
        chance,
        amnesia,
        address,
        watchdog,
        sluggish,
        leftovers,
        one_endpoint,
        hasty,
        panic,
        hasty_panic,
        regrant,
        history,
        timid,
        suspicious,
        wall_clock,
        offended,
        serene,
        unfenced,
        blind,
        mute,
    )
}
