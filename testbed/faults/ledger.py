"""What is broken in a lab now and how each is undone; every injection and healing is written down."""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.faults.catalogue import FaultRequest, parse
from testbed.lab.clock import now
from testbed.lab.etcd import EtcdFailed
from testbed.plain_files import plain


class FaultImpossible(Exception):
    """The fault makes no sense here, or could not be done; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Injected:
    """What an injection did."""

    did: str
    """In words, with the means: signal, command, program."""
    undone: str
    """How it ends, in words."""
    undo: Callable[[], str] | None = None
    """Ends it and says what it did; None: the lab or the kernel mend it by themselves."""
    lasts_s: float | None = None
    """When it is healed by itself; None: not before somebody does."""


Injector = Callable[[FaultRequest], Injected]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that was injected, as `fault list` shows it."""

    number: int
    fault: str
    since: str
    """RFC 3339, UTC."""
    did: str
    undone: str
    on: bool
    """False: it was over as soon as it was done."""


class Ledger:
    """The faults of one lab. Usable from several threads; injections are done one by one."""

    def __init__(self, injectors: Mapping[str, Injector], history: Path) -> None:
        """`injectors` by the name of the kind; `history` gets a JSON line for each injection and healing."""
        self._injectors = injectors
        self._history = history
        self._lock = threading.RLock()
        self._count = 0
        self._on: dict[int, tuple[Fault, Callable[[], str]]] = {}

    def inject(self, words: Sequence[str], lasts_s: float | None = None) -> Fault:
        """Break something; with `lasts_s` it is healed after so many seconds.

        Raises NoSuchFault (usage) and FaultImpossible.
        """
        request = parse(words)
        with self._lock:
            for fault, _ in self._on.values():
                if fault.fault == request.text:
                    raise FaultImpossible(f"{request.text}: is on already, as fault {fault.number} (heal it first)")
            started = time.monotonic()
            done = self._injectors[request.kind.name](request)
            self._count += 1
            lasts_s = done.lasts_s if lasts_s is None else lasts_s
            timed = done.undo is not None and lasts_s is not None
            undone = f"{done.undone}, by itself in {lasts_s:g} s" if timed else done.undone
            fault = Fault(self._count, request.text, now(), done.did, undone, done.undo is not None)
            if done.undo is not None:
                self._on[fault.number] = (fault, done.undo)
                if lasts_s is not None:
                    timer = threading.Timer(lasts_s, self._heal_in_time, (fault.number,))
                    timer.daemon = True
                    timer.start()
            self._write({"injected": asdict(fault), "took_s": round(time.monotonic() - started, 3)})
        return fault

    def active(self) -> list[Fault]:
        """What is on, oldest first."""
        with self._lock:
            return [fault for fault, _ in self._on.values()]

    def heal(self, numbers: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """End the faults of these numbers, or all that are on, the newest first.

        One that cannot be ended stays on and does not keep others from it. Raises FaultImpossible for a number that is
        not on, before anything is done.
        """
        with self._lock:
            for number in numbers or ():
                if number not in self._on:
                    on = ", ".join(map(str, self._on)) or "none"
                    raise FaultImpossible(f"no fault {number} is on (on: {on})")
            chosen = list(self._on) if numbers is None else list(dict.fromkeys(numbers))
            return [self._end(number) for number in sorted(chosen, reverse=True)]

    def _heal_in_time(self, number: int) -> None:
        with self._lock:
            if number in self._on:
                self._end(number)

    def _end(self, number: int) -> dict[str, Any]:
        fault, undo = self._on[number]
        healed: dict[str, Any] = {"number": number, "fault": fault.fault, "healed": True}
        try:
            healed["did"] = undo()
            del self._on[number]
        except (OSError, LookupError, EtcdFailed, FaultImpossible, subprocess.SubprocessError) as failure:
            healed.update(healed=False, did=str(failure))
        self._write({"ended": healed})
        return healed

    def _write(self, entry: dict[str, Any]) -> None:
        # What was done is done, and `fault list` has it, whether it can be written down or not.
        try:
            with open(self._history, "a", encoding="utf-8", opener=plain) as file:
                file.write(json.dumps({"at": now(), **entry}) + "\n")
        except OSError as failure:
            log.warning("faults: the history is not written: %s", failure)
