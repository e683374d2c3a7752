"""Faults of cables: unplugged, flapping, slow, and everything that a bad wire does to packets."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from agent.errors import AgentError
from agent.kernel.values import Wanted, WantedLink
from testbed.cluster.shaping import LEAST_BURST_BYTES, PROBES
from testbed.faults.catalogue import FaultRequest
from testbed.faults.impairment import Impairment, loss_script, netem_arguments
from testbed.faults.ledger import FaultImpossible, Injected, Injector
from testbed.faults.machines import TABLE_PREFIX, Wire, WireEnd, is_there, run, wire_between
from testbed.lab.underlay import LabUnderlay

SHIM = Path(__file__).with_name("link_shim.py")
OFFLOADS = ("tx", "sg", "tso", "gso", "gro")
"""Switched off on the far end of a cable with a shim, so that it sends frames as on a wire."""
log = logging.getLogger(__name__)


class LinkFaults:
    """See the catalogue."""

    def __init__(self, underlay: LabUnderlay) -> None:
        self._underlay = underlay
        self._cables: dict[str, _Cable] = {}
        """Those that are impaired."""
        self._slow: set[str] = set()
        """Cables with a token bucket, which takes netem's place."""
        self._netem = False

    def injectors(self) -> Mapping[str, Injector]:
        """Return the injectors by kind."""
        return {
            "link down": self.down,
            "link flap": self.flap,
            "link rate": self.rate,
            **{f"link {what}": self.impair for what in ("loss", "delay", "duplicate", "corrupt", "reorder")},
        }

    def down(self, request: FaultRequest) -> Injected:
        """Unplug the cable at the switch: a machine sees no carrier but keeps its addresses and routes."""
        wire = self._wire(request)
        end = _unplugged_end(wire)
        end.mininet.ifconfig("down")

        def up() -> str:
            end.mininet.ifconfig("up")
            return f"ip link set {end.interface} up ({end.owner})"

        did = f"ip link set {end.interface} down ({end.owner})"
        return Injected(did, "by setting it up", self._unless_gone(wire, up))

    def flap(self, request: FaultRequest) -> Injected:
        """Unplug and plug in the cable repeatedly."""
        wire = self._wire(request)
        end = _unplugged_end(wire)
        times, period_s = request.values[2], request.values[3]
        assert isinstance(times, float)  # the catalogue guarantees it
        assert isinstance(period_s, float)
        over = threading.Event()

        def work() -> None:
            for _ in range(int(times)):
                for state in ("down", "up"):
                    try:
                        end.mininet.ifconfig(state)
                    except AgentError as refusal:
                        log.info("%s flaps no more: %s", end.interface, refusal)
                        return
                    if over.wait(period_s / 2):
                        return

        thread = threading.Thread(target=work, name=f"flap {end.interface}", daemon=True)
        thread.start()

        def plug_in() -> str:
            end.mininet.ifconfig("up")
            return f"{end.interface} ({end.owner}) is up"

        def stop() -> str:
            over.set()
            thread.join()
            return self._unless_gone(wire, plug_in)()

        did = f"{end.interface} ({end.owner}) goes down and up {times:g} times, once in {period_s:g} s"
        return Injected(did, "by setting it up", stop, lasts_s=times * period_s)

    def rate(self, request: FaultRequest) -> Injected:
        """Put a token bucket at both ends."""
        wire, megabits = self._wire(request), request.values[2]
        cable = self._known(wire)
        if wire.name in self._slow or (cable is not None and self._netem and not cable.impairment.is_none):
            raise FaultImpossible(f"{request.text}: {wire.name} is already shaped (heal it first)")
        bucket = ["rate", f"{megabits:g}mbit", "burst", str(LEAST_BURST_BYTES), "latency", "50ms"]

        def remove() -> str:
            for place, end in enumerate(wire.ends):
                _restore_queueing(wire, place, end)
            return f"the token buckets of {wire.name} are removed"

        try:
            for end in wire.ends:
                run(end.pid, ["tc", "qdisc", "replace", "dev", end.interface, "root", "handle", "1:", "tbf", *bucket])
        except OSError:
            # As far as possible: no fault is active that could be healed later.
            with contextlib.suppress(OSError):
                remove()
            raise
        self._slow.add(wire.name)

        def undo() -> str:
            did = self._unless_gone(wire, remove)()
            self._slow.discard(wire.name)
            return did

        return Injected(f"tc qdisc tbf with {megabits:g} Mbit/s at both ends", "by removing the token buckets", undo)

    def impair(self, request: FaultRequest) -> Injected:
        """Add loss, delay, duplicates, corruption or reordering to the cable's current impairments."""
        what = request.kind.name.split()[1]
        if self._underlay.open_vswitch is not None:
            want = "link down, flap or rate, or switch: bridge in the cluster file"
            raise FaultImpossible(f"{request.text}: not on Open vSwitch switches (want {want})")
        wire = self._wire(request)
        cable = self._known(wire) or _Cable(self._underlay, wire, self._has_netem())
        before = cable.impairment
        if wire.name in self._slow and self._has_netem():
            raise FaultImpossible(f"{request.text}: {wire.name} is already slowed (heal it first)")
        if getattr(before, what):
            raise FaultImpossible(f"{request.text}: {what} is already active for {wire.name} (heal it first)")
        try:
            cable.apply(_with(before, what, request))
        except (OSError, AgentError):
            # As far as possible, as for a rate.
            with contextlib.suppress(OSError, AgentError):
                cable.apply(before)
            raise
        self._cables[wire.name] = cable

        def remove() -> str:
            gone = replace(cable.impairment, **{what: 0.0}, **({"jitter": 0.0} if what == "delay" else {}))
            cable.apply(gone)
            if gone.is_none:
                self._cables.pop(wire.name, None)
            return f"{wire.name}: no more {what}" + ("" if gone.is_none else f"; still {_words(gone)}")

        undo = self._unless_gone(wire, remove, cable.abandon)
        return Injected(f"{cable.means} in both directions: {_words(cable.impairment)}", "by removing it", undo)

    def _unless_gone(
        self, wire: Wire, undo: Callable[[], str], abandon: Callable[[], None] = lambda: None
    ) -> Callable[[], str]:
        """Return an undo that does `undo`, or `abandon` if the cable was removed meanwhile, with its machine."""

        def end() -> str:
            if is_there(self._underlay, wire):
                return undo()
            abandon()
            return f"the cable {wire.name} is gone; nothing to restore"

        return end

    def _known(self, wire: Wire) -> "_Cable | None":
        """Return the cable if it was impaired before; that of a node that was added again is another one."""
        cable = self._cables.get(wire.name)
        return cable if cable is not None and cable.wire.ends == wire.ends else None

    def _wire(self, request: FaultRequest) -> Wire:
        first, second = sorted((str(request.values[0]), str(request.values[1])))
        return wire_between(self._underlay, first, second)

    def _has_netem(self) -> bool:
        """Report whether the kernel has netem. A refusal is not remembered: it may be lack of memory or processes."""
        if not self._netem:
            with contextlib.suppress(OSError):
                # In a network namespace that ends with the command.
                run(None, ["unshare", "--net", *PROBES["netem"]])
                self._netem = True
        return self._netem


class _Cable:
    """One cable and its current impairments."""

    def __init__(self, underlay: LabUnderlay, wire: Wire, netem: bool) -> None:
        self._underlay = underlay
        self.wire = wire
        self._netem = netem
        self._table = TABLE_PREFIX + wire.name.replace(" ", "-")
        self._shim: _Shim | None = None
        self.impairment = Impairment()

    @property
    def means(self) -> str:
        """Return the means that impairs it."""
        if self._netem:
            return "tc qdisc netem"
        if self._shim is not None:
            return "a program in the cable (this kernel has no netem)"
        return "nftables (this kernel has no netem)"

    def apply(self, wanted: Impairment) -> None:
        """Set the cable's impairments from now on. Raises OSError and FaultImpossible."""
        if self._netem:
            self._apply_netem(wanted)
        else:
            self._apply_without_netem(wanted)
        self.impairment = wanted

    def abandon(self) -> None:
        """End what impairs the cable, which is gone."""
        if self._shim is not None:
            self._shim.end()
            self._shim = None

    def _apply_netem(self, wanted: Impairment) -> None:
        for place, end in enumerate(self.wire.ends):
            if wanted.is_none:
                _restore_queueing(self.wire, place, end)
            else:
                arguments = netem_arguments(wanted)
                run(
                    end.pid,
                    ["tc", "qdisc", "replace", "dev", end.interface, "root", "handle", "1:", "netem", *arguments],
                )

    def _apply_without_netem(self, wanted: Impairment) -> None:
        by_rules = wanted.only_loses
        if by_rules or wanted.is_none:
            if self._shim is not None:
                self._shim.remove()
                self._shim = None
        else:
            if self._shim is None:
                self._shim = _Shim(self._underlay, self.wire)
            self._shim.obey(wanted)
        for end in self.wire.ends:
            clean = f"table netdev {self._table}\ndelete table netdev {self._table}\n"
            script = loss_script(self._table, end.interface, wanted.loss) if by_rules else ""
            run(end.pid, ["nft", "-f", "-"], clean + script)


class _Shim:
    """The program in a cable, and the interface that replaces the cable on the bridge."""

    def __init__(self, underlay: LabUnderlay, wire: Wire) -> None:
        self._kernel = underlay.kernel
        near = _unplugged_end(wire)
        if near.pid is not None:
            raise FaultImpossible(f"{wire.name}: this kernel has no netem, and the cable is at no switch")
        self._near, self._far = near, next(end for end in wire.ends if end is not near)
        link = self._kernel.link(near.interface)
        assert link is not None  # it is a port of the switch
        self._tap = f"{near.interface}x"
        command = [sys.executable, "-I", "-S", str(SHIM), near.interface, self._tap]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self._await("carrying")
            run(self._far.pid, ["ethtool", "-K", self._far.interface, *_offloads("off")])
            self._kernel.converge(
                Wanted(links=(WantedLink(self._tap, "a program in the cable", mtu=link.mtu, up=True),))
            )
            run(None, ["ip", "link", "set", near.interface, "nomaster"])
            self._plug(self._tap, near.owner, "in place of the cable's own end")
        except (OSError, AgentError):
            self.remove()
            raise

    def obey(self, wanted: Impairment) -> None:
        """Treat frames like this from now on. Raises OSError when the program is gone."""
        assert self._process.stdin is not None  # Popen was given a pipe
        self._process.stdin.write(json.dumps(wanted.orders()) + "\n")
        self._process.stdin.flush()
        self._await("obeyed")

    def remove(self) -> None:
        """Plug the cable into the switch again."""
        self.end()
        self._plug(self._near.interface, self._near.owner, "the cable is plugged in again")
        run(self._far.pid, ["ethtool", "-K", self._far.interface, *_offloads("on")])

    def end(self) -> None:
        """End the program; its interface goes with it."""
        self._process.kill()
        self._process.wait()

    def _plug(self, interface: str, switch: str, why: str) -> None:
        self._kernel.converge(Wanted(links=(WantedLink(interface, why, master=switch),)))

    def _await(self, word: str) -> None:
        assert self._process.stdout is not None  # Popen was given a pipe
        said = self._process.stdout.readline().strip()
        if said != word:
            raise OSError(f"the program in the cable exited with {self._process.wait()}")


def _offloads(state: str) -> list[str]:
    return [word for name in OFFLOADS for word in (name, state)]


def _restore_queueing(wire: Wire, place: int, end: WireEnd) -> None:
    try:
        run(end.pid, ["tc", "qdisc", "del", "dev", end.interface, "root"])
    except OSError:
        # An undo that failed at the other end has restored this one: the kernel's own has the handle 0.
        if " 0: root" not in run(end.pid, ["tc", "qdisc", "show", "dev", end.interface]):
            raise
    for command in wire.shaping[place]:
        run(end.pid, command)


def _unplugged_end(wire: Wire) -> WireEnd:
    """Return the end where the cable is unplugged: at a switch if there is one."""
    return next((end for end in wire.ends if end.pid is None), wire.ends[1])


def _with(before: Impairment, what: str, request: FaultRequest) -> Impairment:
    number = request.values[2]
    assert isinstance(number, float)  # the catalogue guarantees it
    if what != "delay":
        return replace(before, **{what: number})
    jitter_s = request.values[3]
    assert isinstance(jitter_s, float)
    return replace(before, delay=number * 1000, jitter=jitter_s * 1000)


def _words(impairment: Impairment) -> str:
    return " ".join(netem_arguments(impairment))
