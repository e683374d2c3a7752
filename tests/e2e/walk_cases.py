"""Every verb of the command line with odd arguments, streams, signals, limits and lab states: the cases. Pure.

They come from click's own tree, so a new verb or option is walked as soon as it is there.
"""

import resource
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import click

LAB = "walk"
"""Two nodes, ready."""
STATES = ("nosuch", "dead", "garbled", "silent", "stopped", "a-file", "a-link", "", "../x")
"""Labs that do not answer, each for another reason (see walker.py), and names that no lab has."""

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Words with which the verb has something to do, and that leave the lab as it is whatever is put beside them.
        "apply": ("-f", "/dev/null"),
        "bench": ("--only", "nosuch"),
        "bench scale": ("--nodes", "x"),
        "capture": ("all", "-c", "1", "--seconds", "0.1"),
        "check": (),
        "cli": (),
        "commands": ("node1",),
        "completion": ("bash",),
        "delete": ("pod", "nosuch"),
        "describe": ("pod", "shell1"),
        "doctor": (),
        "down": ("--lab", "nosuch"),
        "etcdctl": ("--", "version"),
        "events": (),
        "exec": ("shell1", "--", "true"),
        "fault": ("list",),
        "forward": ("shell1", "0:8080"),
        "get": ("pods",),
        "graph": ("-o", "json"),
        "hint": (),
        "init": (),
        "iperf": ("shell1", "nosuch"),
        "join": ("--etcd-endpoints=http://127.0.0.1:1",),
        "kubeconfig": (),
        "leave": ("--etcd-endpoints=http://127.0.0.1:1",),
        "logs": ("shell1",),
        "machines": ("--etcd-endpoints=http://127.0.0.1:1",),
        "node add": ("nobody", "--switch", "nosuch"),
        "node delete": ("nosuch",),
        "node drain": ("nosuch",),
        "node uncordon": ("nosuch",),
        "ping": ("shell1", "shell2"),
        "policy": ("shell1", "shell2"),
        "restart agent": ("nosuch",),
        "restart pod": ("nosuch",),
        "scale": ("deployment", "nosuch", "--replicas", "1"),
        "shell": ("shell1",),
        "soak": ("--replay", "/nonexistent"),
        "status": (),
        "topologies": (),
        "trace": ("shell1", "shell2"),
        "ui": ("--port", "0"),
        "up": ("two_nodes", "--dry-run"),
        "validate": ("two_nodes",),
    }
)
ODD_WORDS = (
    "",
    "-",
    "nobody",
    "lab",
    "gw",
    "node1/",
    "/",
    "pod/",
    "deployment/none",
    "svc/none",
    "pod/a service/b",
    ":80",
    "shell1:",
    "shell1:99999",
    "*",
    "$(id)",
    "naïve",
    "\x1b[31m",
    "a b",
    "x" * 5000,
    "\udcff",
    "../../etc/passwd",
    "0",
    "-1",
    "1e999",
    "[::1]:80",
    "{}",
    "NaN",
    "\n",
    "%s",
    "all",
    "1,2",
    "٣",
)
ODD_VALUES = (
    "",
    "x",
    "-1",
    "99999999999999999999",
    "nan",
    "inf",
    "\udcff",
    "/",
    "/dev/full",
    "/nonexistent/x",
    "=",
    "0",
)
NUMBERS = (click.types.IntParamType, click.types.FloatParamType)
STREAMS = ("closed input", "closed output", "closed errors", "all closed", "full output", "full errors", "no reader")
SIGNALS = ((signal.SIGINT, 0.05), (signal.SIGINT, 0.4), (signal.SIGTERM, 0.2), (signal.SIGHUP, 0.2))
LIMITS = (
    (resource.RLIMIT_NOFILE, 8),
    (resource.RLIMIT_NOFILE, 24),
    (resource.RLIMIT_AS, 150 << 20),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NPROC, 1),
    (resource.RLIMIT_STACK, 256 << 10),
)
NEEDS_NO_LAB = frozenset(
    {"bench", "bench scale", "completion", "doctor", "down", "init", "join", "leave", "machines", "topologies"}
    | {"up", "validate"}
)
WORDS_OF_ANOTHER_PROGRAM = frozenset({"exec", "etcdctl", "shell", "cli", "join"})
"""What they run says what it likes."""
TELLS_BESIDE_ITS_OUTPUT = frozenset({"capture", "bench", "bench scale"})
"""What it is doing stands on standard error, because its output may be a file of packets."""
FAILS_IN_ITS_ANSWER = frozenset({"ping", "check", "trace", "policy", "doctor", "machines", "get", "soak", "iperf"})
"""The code alone may say that something is not as it should be."""
USAGE = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One call."""

    verb: str
    words: tuple[str, ...]
    about: str
    """Which dimension it is of, in words."""
    code: int | None = None
    """What it must end with; None: any that is documented."""
    lab: str = LAB
    streams: str = ""
    limit: tuple[int, int] | None = None
    signal: tuple[int, float] | None = None
    """Which, and after how many seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        line = " ".join([self.verb, *(repr(word)[:80] for word in self.words)])
        return f"{line} ({self.about}{f', lab {self.lab!r}' if self.lab != LAB else ''})"


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every verb that does something, with its path."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    if path and (not isinstance(command, click.Group) or command.invoke_without_command):
        yield " ".join(path), command


def cases(root: click.Command, *, everything: bool) -> list[Case]:
    """Return all of them; without `everything` each place gets some of the odd words and values, in turn."""
    found: list[Case] = []
    for number, (verb, command) in enumerate(leaves(root)):
        example = EXAMPLES[verb]
        found += [
            Case(verb, ("--help",), "help", 0),
            Case(verb, example, "example"),
            Case(verb, ("--no-such-option", *example), "unknown option", None if _takes_flags(command) else USAGE),
            Case(verb, (), "no words"),
            Case(verb, (*example, *(f"more{count}" for count in range(9))), "too many words"),
        ]
        found += _odd_words(verb, example, number, everything)
        found += _odd_values(verb, command, example, number, everything)
        found += _surroundings(verb, example, number, everything)
    # Without words it ends the lab that all others need.
    return sorted(found, key=lambda case: case.verb == "down")


def _takes_flags(command: click.Command) -> bool:
    return bool(command.context_settings.get("ignore_unknown_options"))


def _some(all_of_them: tuple[str, ...], count: int, place: int, everything: bool) -> tuple[str, ...]:
    start = place * count % len(all_of_them)
    return all_of_them if everything else (*all_of_them, *all_of_them)[start : start + count]


def _odd_words(verb: str, example: tuple[str, ...], number: int, everything: bool) -> Iterator[Case]:
    for place, word in enumerate(example):
        if word.startswith("-") or (place and example[place - 1].startswith("--") and len(example[place - 1]) > 2):
            continue
        for odd in _some(ODD_WORDS, 5, 3 * number + place, everything):
            yield Case(verb, (*example[:place], odd, *example[place + 1 :]), "odd word")


def _odd_values(
    verb: str, command: click.Command, example: tuple[str, ...], number: int, everything: bool
) -> Iterator[Case]:
    for place, option in enumerate(one for one in command.params if isinstance(one, click.Option)):
        if option.name in ("help", "version"):
            continue
        name = max(option.opts, key=len)
        rest = _without(example, option)
        if option.is_flag:
            yield Case(verb, (name, *rest), "flag", lab="nosuch" if name == "--all" else LAB)
            continue
        for odd in _some(ODD_VALUES, 2, number + place, everything):
            wrong = isinstance(option.type, NUMBERS) and odd in ("", "x", "\udcff", "/", "=")
            wrong = wrong or isinstance(option.type, click.Choice)
            yield Case(verb, (f"{name}={odd}", *rest), "odd value", USAGE if wrong else None)


def _without(example: tuple[str, ...], option: click.Option) -> tuple[str, ...]:
    """Return the example without the option's own value, which would be the one that counts."""
    places = [place for place, word in enumerate(example) if word in option.opts]
    return tuple(word for place, word in enumerate(example) if place not in places and place - 1 not in places)


def _surroundings(verb: str, example: tuple[str, ...], number: int, everything: bool) -> Iterator[Case]:
    for streams in _some(STREAMS, 3, number, everything):
        yield Case(verb, example, streams, streams=streams)
    for place, (which, after_s) in enumerate(SIGNALS):
        if everything or (number + place) % 2:
            yield Case(verb, example, f"signal {which} after {after_s} s", signal=(which, after_s))
    for place, limit in enumerate(LIMITS):
        if everything or (number + place) % 2:
            yield Case(verb, example, f"limit {limit}", limit=limit)
    for state in STATES if everything else (*STATES[:3], STATES[3 + number % 6]):
        yield Case(verb, example, "lab state", lab=state)
    for name, value in (("SUDO_UID", "abc"), ("SUDO_UID", "-5"), ("COLUMNS", "0"), ("TERM", ""), ("LANG", "xx")):
        if everything or (number + len(value)) % 3 == 0:
            yield Case(verb, example, f"{name}={value}", environment={name: value})


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case."""

    code: int
    """Negative: ended by that signal."""
    out: str
    err: str
    crash: str
    """A traceback, wherever it would have gone."""
    took_s: float
    asked_to_end: bool
    """It ran longer than others are meant to, and got a SIGINT."""
    hung: bool
    """It did not end then."""


def problems(case: Case, result: Result) -> Iterator[str]:
    """Yield every deviation from the expected state."""
    said = result.err.splitlines()
    if result.crash or "Traceback" in result.out + result.err:
        yield "a traceback: " + (result.crash or result.err)[-2000:]
    if "internal error" in result.out + result.err:
        yield f"an internal error: {result.err}"
    steering = [line for line in said if not line.isprintable()]
    if steering and case.verb not in WORDS_OF_ANOTHER_PROGRAM:
        yield f"control characters of a name: {steering[:3]}"
    if result.hung:
        yield f"no end after {result.took_s:.1f} s"
        return
    errors = [line for line in said if line.startswith("error: ")]
    if len(set(errors)) < len(errors):
        yield f"a problem twice: {result.err}"
    if case.verb not in WORDS_OF_ANOTHER_PROGRAM and len(errors) < len([line for line in said if line.strip()]):
        strange = [line for line in said if not line.startswith(("error: ", "warning: "))]
        if case.verb not in TELLS_BESIDE_ITS_OUTPUT and strange:
            yield f"lines that are no errors: {strange[:5]}"
    yield from _wrong_code(case, result, errors)


def _wrong_code(case: Case, result: Result, errors: list[str]) -> Iterator[str]:
    if result.code < 0:
        # Before a verb begins, and where it has nothing to undo, a signal does what it always does.
        if case.signal is None or result.code != -case.signal[0]:
            yield f"ended by signal {-result.code}"
        return
    if case.code is not None and result.code != case.code and case.signal is None:
        yield f"exit code {result.code} instead of {case.code}: {result.err[:300]}"
    documented = {0, 1, 2, 3, 4, 130}
    if result.code not in documented and case.verb not in WORDS_OF_ANOTHER_PROGRAM:
        yield f"exit code {result.code}: {result.err[:300]}"
    if result.code == 0 and errors and case.verb not in WORDS_OF_ANOTHER_PROGRAM:
        yield f"success with errors: {errors}"
    unseen = case.streams in ("closed errors", "all closed", "full errors", "no reader")
    silent = case.verb in WORDS_OF_ANOTHER_PROGRAM | FAILS_IN_ITS_ANSWER or unseen
    if result.code in (1, 2, 3, 4) and not errors and not silent:
        yield f"exit code {result.code} without a word"
