"""The ledger of a lab's active faults and how each is healed; it records every injection and healing."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AgentError
from agent.kernel import json_lines
from testbed.control.answers.faults import FaultAnswer, HealAnswer
from testbed.errors import TestbedError
from testbed.faults.catalogue import HEAL_LIMIT_S, FaultRequest, parse
from testbed.faults.recovery import Recovery, Touched
from testbed.lab.clock import now
from testbed.plain_files import plain
from testbed.processes.threads import start_when_possible

BESIDE_OTHERS_S = 10.0
"""The limit while other faults are active: what the ended one broke may depend on their end."""
POLL_S = 0.05
PATIENCE = 3
"""The pause between two checks is this many times as long as a check takes."""


class FaultImpossible(TestbedError):
    """The fault makes no sense here or could not be injected; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Injected:
    """The result of an injection."""

    did: str
    """What was done, with its means: signal, command, program."""
    undone: str
    """How it ends, in words."""
    undo: Callable[[], str] | None = None
    """Ends it and returns what was done; None: the lab or the kernel repairs it by itself."""
    lasts_s: float | None = None
    """When it is healed automatically; None: only on request."""


Injector = Callable[[FaultRequest], Injected]
log = logging.getLogger(__name__)


@dataclass(slots=True)
class _On:
    """An active fault."""

    fault: FaultAnswer
    held: tuple[str, ...]
    undo: Callable[[], str]
    touched: Touched
    did: str | None = None
    """What ended it; from then on it is active only because what it broke is not ready yet."""


class Ledger:
    """The faults of one lab. For several threads; injections run one after the other."""

    def __init__(
        self,
        injectors: Mapping[str, Injector],
        history: Path,
        recovery: Recovery,
        on_end: Callable[[HealAnswer], None] = lambda _: None,
    ) -> None:
        """Take `injectors` by kind; `history` gets a JSON line for each injection and healing.

        `on_end` is called after each healing, from any thread.
        """
        self._injectors = injectors
        self._history = history
        self._recovery = recovery
        self._on_end = on_end
        self._lock = threading.RLock()
        """Held during each injection and each undo, which may take many seconds; not to look at what is active."""
        self._count = 0
        self._on: Mapping[int, _On] = {}
        """By number, oldest first; replaced as a whole."""

    def inject(self, words: Sequence[str], lasts_s: float | None = None) -> FaultAnswer:
        """Inject a fault; with `lasts_s`, heal it after this many seconds.

        Raises NoSuchFault (usage) and FaultImpossible.
        """
        request = parse(words)
        with self._lock:
            for one in self._on.values():
                if one.fault["fault"] == request.text:
                    number = one.fault["number"]
                    how = "heal it first" if one.did is None else "what it broke is not ready yet"
                    raise FaultImpossible(f"{request.text}: already active as fault {number} ({how})")
                if request.held and request.held == one.held and one.did is None:
                    other = f"{one.fault['fault']} is already active as fault {one.fault['number']}"
                    raise FaultImpossible(f"{request.text}: {other} (heal it first)")
            started = time.monotonic()
            touched = self._recovery.before(request)
            done = self._injectors[request.kind.name](request)
            self._count += 1
            lasts_s = done.lasts_s if lasts_s is None else lasts_s
            timed = done.undo is not None and lasts_s is not None
            undone = f"{done.undone}, by itself in {lasts_s:g} s" if timed else done.undone
            fault = FaultAnswer(
                number=self._count,
                fault=request.text,
                since=now(),
                did=done.did,
                undone=undone,
                on=done.undo is not None,
            )
            if done.undo is not None:
                self._on = {**self._on, fault["number"]: _On(fault, request.held, done.undo, touched)}
                if lasts_s is not None:
                    timer = threading.Timer(lasts_s, self._heal_in_time, (fault["number"],))
                    timer.daemon = True
                    start_when_possible(timer)
            self._write({"injected": fault, "took_s": round(time.monotonic() - started, 3)})
        return fault

    def active(self) -> list[FaultAnswer]:
        """Return the active faults, oldest first."""
        return [one.fault for one in self._on.values()]

    def heal(
        self,
        numbers: Sequence[int] | None = None,
        limit_s: float = HEAL_LIMIT_S,
        left: Callable[[float], bool] | None = None,
    ) -> list[HealAnswer]:
        """End the faults with these numbers, or all active ones, newest first; return when everything they broke is
        ready again, or after `limit_s` seconds (0: at once) with what is missing.

        One that cannot be ended stays active and does not stop the others. `left` pauses for some seconds and returns
        whether the caller has gone. Raises FaultImpossible for a number that is not active, before anything is done.
        """
        began = time.monotonic()
        with self._lock:
            for number in numbers or ():
                if number not in self._on:
                    on = ", ".join(map(str, self._on)) or "none"
                    raise FaultImpossible(f"no fault {number} is active (active: {on})")
            chosen = list(self._on) if numbers is None else list(dict.fromkeys(numbers))
            ended = [self._end(number) for number in sorted(chosen, reverse=True)]
        missing = self._await([one["number"] for one in ended if one["healed"]], limit_s, left or _pause)
        for one in ended:
            one["missing"] = missing if one["healed"] else []
            one["took_s"] = round(time.monotonic() - began, 3)
        self._forget(ended)
        return ended

    def _heal_in_time(self, number: int) -> None:
        with contextlib.suppress(FaultImpossible):
            self.heal([number])

    def _end(self, number: int) -> HealAnswer:
        one = self._on[number]
        ended = HealAnswer(number=number, fault=one.fault["fault"], healed=True, did="", missing=[], took_s=0.0)
        try:
            if one.did is None:
                one.did = one.undo()
            ended["did"] = one.did
        except (OSError, TestbedError, AgentError) as failure:
            ended["healed"], ended["did"] = False, str(failure)
        return ended

    def _await(self, numbers: Sequence[int], limit_s: float, left: Callable[[float], bool]) -> list[str]:
        """Wait until everything that these faults broke is ready again; return what is missing at the end."""
        began = time.monotonic()
        while numbers and limit_s > 0:
            active = self._on
            touched = [active[number].touched for number in numbers if number in active]
            others = any(one.did is None for one in active.values())
            looked_at = time.monotonic()
            missing = self._recovery.missing(touched, others=others)
            waited_s = time.monotonic() - began
            limit = min(limit_s, BESIDE_OTHERS_S) if others else limit_s
            if not missing or waited_s >= limit or left(max(POLL_S, PATIENCE * (time.monotonic() - looked_at))):
                return missing
        return []

    def _forget(self, ended: Sequence[HealAnswer]) -> None:
        with self._lock:
            # Two callers may have waited for the same fault.
            over = [one for one in ended if not one["healed"] or one["number"] in self._on]
            healed = {one["number"] for one in over if one["healed"]}
            self._on = {number: fault for number, fault in self._on.items() if number not in healed}
            for one in over:
                self._write({"ended": one})
        for one in over:
            self._on_end(one)

    def _write(self, entry: Mapping[str, object]) -> None:
        # The fault has ended and `fault list` has it, whether or not it can be recorded.
        try:
            json_lines.append(self._history, {"at": now(), **entry}, plain)
        except OSError as failure:
            log.warning("faults: cannot write the history: %s", failure)


def _pause(pause_s: float) -> bool:
    time.sleep(pause_s)
    return False
