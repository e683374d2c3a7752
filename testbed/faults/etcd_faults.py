"""Faults of etcd: members killed, stopped, paused, emptied, full; history compacted."""

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from testbed.cluster.spec import Cluster
from testbed.errors import EtcdFailed, TestbedError
from testbed.faults.catalogue import FaultRequest
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.lab.etcd import DATA_DIRECTORY, EtcdCluster, EtcdMember
from testbed.lab.registry import LabRegistry
from testbed.lab.waiting import wait_for

ANSWER_LIMIT_S = 20.0
ELECTION_LIMIT_S = 5.0
POLL_S = 0.1
SNAPSHOT = "/run/etcd-snapshot.db"
"""Path on the member's machine."""
TINY_QUOTA = "--quota-backend-bytes=1"
LEADER, FOLLOWER = "leader", "follower"
"""Placeholders for a member's name."""


class EtcdFaults:
    """See the catalogue."""

    def __init__(self, registry: LabRegistry, cluster: Callable[[], Cluster]) -> None:
        """`cluster` returns the plan with the current nodes."""
        self._registry = registry
        self._cluster = cluster

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        injectors: Mapping[str, Injector] = {
            "etcd kill": self.kill,
            "etcd stop": self.stop,
            "etcd pause": self.pause,
            "etcd wipe": self.wipe,
            "etcd snapshot": self.snapshot,
            "etcd restore": self.restore,
            "etcd compact": self.compact,
            "etcd quota": self.quota,
        }
        return {kind: partial(self._inject, injector) for kind, injector in injectors.items()}

    def _inject(self, injector: Injector, request: FaultRequest) -> Injected:
        members = self._registry.etcd.members
        if not self._registry.etcd.is_the_labs:
            relay = members[0].name
            want = f"want `etcd partition {relay}`, or a fault of {relay}'s link"
            raise FaultImpossible(f"{request.text}: the etcd cluster is not the lab's to break ({want})")
        return injector(request)

    def kill(self, request: FaultRequest) -> Injected:
        """Send SIGKILL."""
        member = self._member(request)
        pid = self._running(request, member)
        member.process.kill()
        return Injected(f"SIGKILL to process {pid}, {member.name}", "by the lab, which restarts it with back-off")

    def stop(self, request: FaultRequest) -> Injected:
        """Send SIGKILL, without a restart."""
        member = self._member(request)
        pid = self._running(request, member)
        member.process.hold(grace_s=0)

        def start() -> str:
            member.process.resume()
            return f"{member.name} is restarted"

        return Injected(f"SIGKILL to process {pid}, {member.name}; it stays down", "by a restart", start)

    def pause(self, request: FaultRequest) -> Injected:
        """Send SIGSTOP."""
        member = self._member(request)
        pid = self._running(request, member)
        member.process.kill(signal.SIGSTOP)

        def go_on() -> str:
            member.process.kill(signal.SIGCONT)
            return f"SIGCONT to {member.name}"

        return Injected(f"SIGSTOP to process {pid}, {member.name}", "by SIGCONT", go_on)

    def wipe(self, request: FaultRequest) -> Injected:
        """Delete the member's data; alone it restarts empty, in a cluster it rejoins."""
        member = self._member(request)
        pid = self._running(request, member)
        others = [other for other in self._registry.etcd.members if other is not member]
        if others:
            return self._replace(member, pid)
        with _data_put_aside(member):
            member.process.resume()
            self._await_healthy(member)

        def write_config() -> str:
            self._registry.prepare(self._cluster())
            return "the network config is rewritten; each agent re-acquires its own subnet"

        return Injected(
            f"SIGKILL to process {pid}, {member.name}, its data removed, restarted empty: no config, no lease",
            "by rewriting the network config",
            write_config,
        )

    def snapshot(self, request: FaultRequest) -> Injected:
        """Save all its data to a file on its machine."""
        member = self._member(request)
        self._running(request, member)
        self._etcdctl("snapshot", "save", SNAPSHOT, asked=member)
        revision = self._json("get", "--limit=1", "/")["header"]["revision"]
        return Injected(
            f"etcdctl snapshot save {SNAPSHOT} on {member.name}, revision {revision}", "never: nothing is broken"
        )

    def restore(self, request: FaultRequest) -> Injected:
        """Restore the data of the last snapshot, discarding later writes."""
        member = self._member(request)
        pid = self._running(request, member)
        if len(self._registry.etcd.members) > 1:
            raise FaultImpossible(f"{request.text}: only a single-member etcd can be restored")
        if not (member.data.parent / Path(SNAPSHOT).name).exists():
            raise FaultImpossible(f"{request.text}: there is no snapshot (want `etcd snapshot {member.name}` before)")
        with _data_put_aside(member):
            self._etcdctl(
                "snapshot",
                "restore",
                SNAPSHOT,
                f"--name={member.name}",
                f"--data-dir={DATA_DIRECTORY}",
                f"--initial-cluster={member.name}={member.peer_url}",
                f"--initial-advertise-peer-urls={member.peer_url}",
            )
            member.process.resume()
            self._await_healthy(member)
        return Injected(
            f"SIGKILL to process {pid}, {member.name}; it now has the data of {SNAPSHOT} (etcdctl snapshot restore)",
            "never: writes since the snapshot are lost; agents rewrite their own keys",
        )

    def compact(self, request: FaultRequest) -> Injected:
        """Compact all history up to now."""
        revision = self._json("get", "--limit=1", "/")["header"]["revision"]
        try:
            self._etcdctl("compaction", str(revision))
        except EtcdFailed as failure:
            # Something else has compacted it already: that is fine.
            if "has been compacted" not in str(failure):
                raise
        return Injected(f"etcdctl compaction {revision}: no older revision can be watched from", "never: it is history")

    def quota(self, request: FaultRequest) -> Injected:
        """Fill the member's database quota, which raises an alarm for all."""
        member = self._member(request)
        self._running(request, member)

        def make_room() -> str:
            self._restart(member, ())
            self._etcdctl("alarm", "disarm")
            self._await_alarm(on=False)
            return f"{member.name} runs with the usual quota, the alarm is disarmed"

        try:
            self._restart(member, (TINY_QUOTA,))
            with contextlib.suppress(EtcdFailed):  # the refusal is intended
                self._etcdctl("put", "testbed/quota", "full")
            self._await_alarm(on=True)
        except (OSError, TestbedError):
            # As far as possible: no fault is active that could be healed later.
            with contextlib.suppress(OSError, TestbedError):
                make_room()
            raise
        return Injected(
            f"{member.name} runs with {TINY_QUOTA}: the alarm NOSPACE is on, etcd takes no writes and grants no lease",
            "by a restart with the usual quota and etcdctl alarm disarm",
            make_room,
        )

    def _replace(self, member: EtcdMember, pid: int) -> Injected:
        """Delete the data of one of several members; the lab replaces it, as an operator does after a disk failure."""
        member.process.hold(grace_s=0)
        shutil.rmtree(member.data, ignore_errors=True)
        member.process.resume()
        self._await_healthy(member)
        return Injected(
            f"SIGKILL to process {pid}, {member.name}, its data removed; it joined the others again as a new member",
            "by itself: it copies the others' data",
        )

    def _restart(self, member: EtcdMember, flags: tuple[str, ...]) -> None:
        member.extra_flags = flags
        member.process.restart()
        self._await_healthy(member, alarmed_too=True)

    def _await_healthy(self, member: EtcdMember, *, alarmed_too: bool = False) -> None:
        def missing() -> str:
            if member.healthy() or (alarmed_too and member.answers()):
                return ""
            return member.why_not_healthy() or ""

        if why := wait_for(missing, ANSWER_LIMIT_S):
            raise FaultImpossible(f"after {ANSWER_LIMIT_S:g} s: {why}")

    def _await_alarm(self, *, on: bool) -> None:
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while ("NOSPACE" in self._etcdctl("alarm", "list")) != on:
            if time.monotonic() > deadline:
                raise FaultImpossible(f"the alarm NOSPACE is {'not raised' if on else 'still on'}")
            time.sleep(POLL_S)

    def _member(self, request: FaultRequest) -> EtcdMember:
        return member_of(self._registry.etcd, request)

    def _running(self, request: FaultRequest, member: EtcdMember) -> int:
        pid = member.process.pid
        if pid is None:
            raise FaultImpossible(f"{request.text}: {member.name} is not running (state {member.process.state})")
        return pid

    def _json(self, *arguments: str) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self._etcdctl(*arguments, "--write-out=json"))

    def _etcdctl(self, *arguments: str, asked: EtcdMember | None = None) -> str:
        return self._registry.etcd.etcdctl(arguments, asked=asked).decode()


@contextlib.contextmanager
def _data_put_aside(member: EtcdMember) -> Iterator[None]:
    """Stop the only member for the block, which starts it with other data; if that fails, it gets its own back."""
    aside = member.data.with_name(f"{member.data.name}-before")
    member.process.hold(grace_s=0)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            member.data.rename(aside)
        yield
    except (OSError, TestbedError):
        # As far as possible: no fault is active that could be healed later.
        with contextlib.suppress(OSError):
            member.process.hold(grace_s=0)
            if aside.exists():
                shutil.rmtree(member.data, ignore_errors=True)
                aside.rename(member.data)
        raise
    else:
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        member.process.resume()


def member_of(etcd: EtcdCluster, request: FaultRequest) -> EtcdMember:
    """Return the etcd member that is the fault's first word. Raises FaultImpossible."""
    members, name = etcd.members, str(request.values[0])
    if name in (LEADER, FOLLOWER) and members:
        leader = _leader(etcd)
        chosen = leader if name == LEADER else next((one for one in members if one is not leader), None)
        if chosen is not None:
            return chosen
    for member in members:
        if member.name == name:
            return member
    raise FaultImpossible(f"{request.text}: no etcd member named {name} (there are: {_names(members)})")


def _leader(etcd: EtcdCluster) -> EtcdMember:
    """Return the leader, after waiting for its election."""
    deadline = time.monotonic() + ELECTION_LIMIT_S
    while time.monotonic() < deadline:
        for member in etcd.members:
            try:
                said = etcd.etcdctl(["endpoint", "status", "--write-out=json"], asked=member)
            except EtcdFailed:
                continue
            status = json.loads(said)[0]["Status"]
            if status["leader"] == status["header"]["member_id"]:
                return member
        time.sleep(POLL_S)
    raise FaultImpossible("etcd has no leader now")


def _names(members: tuple[EtcdMember, ...]) -> str:
    return ", ".join(member.name for member in members) or "none; it is not the lab's own"
