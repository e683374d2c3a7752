"""Replaces one function of our agent and then runs it: `run_agent.py MUTANT [flags of the agent …]`.

In a cluster file: `agent: {command: [PYTHON, …/run_agent.py, rules, …]}`. The product has no flag for this.
"""

import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHERS = 2
"""Nodes besides our own in the lab for faults."""


def device() -> None:
    """What becomes of links is nobody's business."""
    from agent.node_setup import NodeSetup

    first = NodeSetup.converge_links
    done: list[object] = []

    def converge_once(setup: NodeSetup) -> None:
        if not done:
            done.append(setup)
            first(setup)

    NodeSetup.converge_links = converge_once  # type: ignore[assignment,method-assign]  # that is what a mutant is


def rules() -> None:
    """Rules are made once."""
    from agent.node_setup import NodeSetup

    NodeSetup.converge_unreported = lambda _: None  # type: ignore[assignment,method-assign]  # the same


def renewal() -> None:
    """The lease is never renewed."""
    from agent.subnet_manager import SubnetManager

    def wait(_manager: SubnetManager, stop: threading.Event, _on_fenced: Callable[[str], None]) -> None:
        stop.wait()

    SubnetManager.run_renewal = wait  # type: ignore[assignment,method-assign]  # the same


def watch() -> None:
    """Peers are listed until the others are there, and never again."""
    from agent.lease_watch import LeaseWatch

    def list_once(follower: LeaseWatch, stop: threading.Event) -> None:
        while len(follower._table.peers) < OTHERS and not stop.wait(0.2):
            follower._take(follower._registry.list_leases())
        stop.wait()

    LeaseWatch.run = list_once  # type: ignore[assignment,method-assign]  # the same


def repair() -> None:
    """Our key is gone, and nobody writes it again."""
    from agent.errors import LeaseLost
    from agent.lease import Lease
    from agent.subnet_manager import SubnetManager

    def give_up(_manager: SubnetManager, lease: Lease) -> Lease:
        raise LeaseLost(str(lease.subnet))

    SubnetManager._take_again = give_up  # type: ignore[assignment,method-assign]  # the same


def despair() -> None:
    """An etcd that is away is taken for one without leases."""
    from agent.errors import RegistryError
    from agent.lease_watch import LeaseWatch

    follow = LeaseWatch._follow

    def forget(watch: LeaseWatch, stop: threading.Event) -> None:
        try:
            follow(watch, stop)
        except RegistryError:
            watch._on_peers((), watch.revision)
            watch._delivered = None
            raise

    LeaseWatch._follow = forget  # type: ignore[assignment,method-assign]  # the same


def chance() -> None:
    """Which subnet a node asks for has nothing to do with the one that it had."""
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from agent import allocator

    draw = allocator._draw

    def draw_blindly(slots: allocator._Slots, taken: Iterable[IPv4Network | IPv6Network], node: str) -> int:
        return draw(slots, taken, f"{node} {random.random()}")

    allocator._draw = draw_blindly


def address() -> None:
    """What becomes of the node's own address is nobody's business."""
    from agent.agent import Agent

    Agent._look_at_underlay = lambda *_: None  # type: ignore[method-assign]  # the same


def watchdog() -> None:
    """Nobody looks whether a loop stands still."""
    from agent.watchdog import Watchdog

    Watchdog.tick = lambda _: True  # type: ignore[assignment,method-assign]  # the same


MUTANTS = {
    mutant.__name__: mutant for mutant in (device, rules, renewal, watch, repair, despair, chance, address, watchdog)
}


def main() -> None:
    """Break it and run it."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    MUTANTS[sys.argv[1]]()
    from agent.__main__ import run

    sys.exit(run(sys.argv[2:], os.environ))


if __name__ == "__main__":
    main()
