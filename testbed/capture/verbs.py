"""The lab's side of `testbed capture`: choose the namespaces, compile the filter, run the recorder."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

from testbed.capture.filters import FilterError, Instruction, from_tcpdump, nothing
from testbed.capture.map import LAB, Map
from testbed.capture.outer_only import note_of
from testbed.capture.plan import CapturePlan, CapturePoint
from testbed.cluster.object_key import DEFAULT_NAMESPACE
from testbed.control.answers.lab import EndedAnswer
from testbed.control.programs import run_for_client
from testbed.control.questions import CAPTURE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.spelling import listed

EVERYTHING = "all"
UPLINK = "uplink"
FILTER_LIMIT_S = 5.0
LINK_TYPES = ("EN10MB", "RAW")
"""Of interfaces with and without a link header, as tcpdump calls them."""


class _NotCompiled(Exception):
    """tcpdump refuses the filter for a link type; has its message."""


def capture_verbs(draw_map: Callable[[], Map]) -> Sequence[AnyVerb]:
    """Return the verb; `draw_map` returns the current map of the lab."""
    return (Verb(CAPTURE, lambda request: capture(draw_map(), request)),)


def capture(known: Map, request: Request) -> EndedAnswer:
    """Run the recorder on the client's streams until its standard input ends, or the client leaves."""
    words = [str(word) for word in request.argument("words", list, [])]
    points, expression = split(words, known, request.argument("namespace", str) or DEFAULT_NAMESPACE)
    wanted = tuple(listenings(points, known))
    ethernet, raw = compiled(expression)
    note = note_of(expression, wanted, known)
    if note and request.streams:
        with contextlib.suppress(OSError):
            os.write(request.streams[-1], f"{note}\n".encode())
    plan = CapturePlan(
        wanted,
        known.overlay,
        tuple(ethernet),
        tuple(raw),
        cut=not request.argument("raw", bool, False),
        count=request.argument("count", int),
        seconds=request.argument("seconds", float),
        text=request.argument("text", bool, False),
        replace=request.argument("replace", bool, False),
    )
    return run_for_client(request, [sys.executable, "-m", "testbed.capture.recorder", plan.to_json()])


def split(words: Sequence[str], known: Map, namespace: str = DEFAULT_NAMESPACE) -> tuple[list[str], str]:
    """Split the words into points, with pods of `namespace`, and a filter in tcpdump's language.

    Raises TestbedError if no point comes first.
    """
    owners = {EVERYTHING, *known.place_of, *known.switch_ports.values()}
    points: list[str] = []
    for word in words:
        name, colon, interface = word.partition(":")
        owner = known.in_namespace(name, namespace)
        if owner not in owners:
            break
        points.append(f"{owner}{colon}{interface}")
    if not points:
        raise TestbedError(
            f"capture: no such point (got {words[0] if words else 'none'}; want all, or some of "
            f"{listed(sorted(owners - {EVERYTHING}), words[0] if words else '')}, each with :INTERFACE or without)"
        )
    return points, " ".join(words[len(points) :])


def compiled(expression: str) -> tuple[list[Instruction], list[Instruction]]:
    """Compile the filter for interfaces with and without a link header. Raises TestbedError with tcpdump's message."""
    if not expression:
        return [], []
    programs, refusals = [], []
    for link_type in LINK_TYPES:
        try:
            programs.append(_compile(expression, link_type))
        except _NotCompiled as refusal:
            # It may test something that only one kind of interface has, such as Ethernet addresses.
            programs.append(nothing())
            refusals.append(refusal)
    if len(refusals) == len(LINK_TYPES):
        raise InvalidInput(f"capture: filter: {refusals[0]} (got {expression!r}; want a filter of tcpdump)")
    ethernet, raw = programs
    if ethernet == raw == nothing():
        raise InvalidInput(f"capture: filter: no packet can pass it (got {expression!r})")
    return ethernet, raw


def _compile(expression: str, link_type: str) -> list[Instruction]:
    command = ["tcpdump", "-ddd", "-s", "262144", "-y", link_type, expression]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FILTER_LIMIT_S, check=False)
    except FileNotFoundError as failure:
        raise WrongEnvironment("capture: a filter needs tcpdump (want: Debian package tcpdump)") from failure
    except subprocess.TimeoutExpired as failure:
        what = f"not compiled within {FILTER_LIMIT_S:g} s (got {expression!r}; want a simpler one)"
        raise InvalidInput(f"capture: filter: {what}") from failure
    if done.returncode:
        if "rejects all packets" in done.stderr:
            return nothing()
        said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1].removeprefix("tcpdump: ")
        raise _NotCompiled(said)
    try:
        return from_tcpdump(done.stdout)
    except FilterError as failure:
        raise TestbedError(f"capture: filter: {failure}") from failure


def listenings(points: Iterable[str], known: Map) -> list[CapturePoint]:
    """Return one capture point per namespace. Raises TestbedError for an interface that cannot exist."""
    wanted: dict[str, set[str] | None] = {}
    for point in points:
        for place, interfaces in _meant(point, known).items():
            if interfaces is None or wanted.get(place, set()) is None:
                wanted[place] = None
            else:
                wanted.setdefault(place, set())
                wanted[place] = (wanted[place] or set()) | interfaces
    return [
        CapturePoint(place, known.pid(place), None if some is None else tuple(sorted(some)), _labels(place, known))
        # Our own namespace first: a thread that has entered another does not return.
        for place, some in sorted(wanted.items(), key=lambda one: one[0] != LAB)
    ]


def _meant(point: str, known: Map) -> dict[str, set[str] | None]:
    owner, _, interface = point.partition(":")
    if owner == EVERYTHING:
        if interface:
            raise InvalidInput(f"capture: {point}: all takes no interface (want POD|NODE:INTERFACE)")
        return {place.name: None for place in known.places}
    if owner in known.place_of:
        place = known.place_of[owner]
        return {place: {f"{place}-eth0" if interface == UPLINK else interface} if interface else None}
    ports = {port for port, switch in known.switch_ports.items() if switch == owner}
    if interface and interface not in ports:
        raise TestbedError(
            f"capture: {point}: {owner} has no such port (there are: {listed(sorted(ports), interface)})"
        )
    return {LAB: {interface} if interface else ports}


def _labels(place: str, known: Map) -> tuple[tuple[str, str], ...]:
    if place == LAB:
        return tuple((port, f"{switch}:{port}") for port, switch in sorted(known.switch_ports.items()))
    return ((f"{place}-eth0", f"{place}:{UPLINK}"),) if place in known.nodes else ()
