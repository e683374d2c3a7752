"""Read a command line and its environment as Go does (`-x`, `--x`, `--x=v`, `--x v`, `--x=false`); write the help.

The flags and their meaning are in `agent.options.options`. All mistakes are reported at once.
"""

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.errors import UsageError
from agent.options.options import (
    COMMANDS,
    FLAG_BY_NAME,
    FLAG_OF,
    FLAGS,
    OF_KLOG,
    UNSUPPORTED,
    Command,
    Flag,
    Options,
    variable_of,
)

OF_KUBERNETES = ("CONT_WHEN_CACHE_NOT_READY", "EVENT_QUEUE_DEPTH")
"""Variables that only flannel's other subnet manager reads (`pkg/subnet/kube/kube.go`); its manifests set them."""


@dataclass(frozen=True, slots=True)
class Given:
    """The texts given for one flag, and where, for the error line."""

    texts: tuple[str, ...]
    where: str


@dataclass(slots=True)
class Reading:
    """Which text belongs to which flag, before any parsing."""

    command: Command = "run"
    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    of_klog: list[str] = field(default_factory=list)
    """Flags and variables of flannel's logger, as given."""

    def where(self, name: str) -> str:
        """Return where the flag was given, as error lines name it."""
        return self.given[name].where if name in self.given else f"--{name}"


def parse_options(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read `argv` (without the program's name) and `FLANNELD_*` of `environ`.

    Raises UsageError with one line `<where>: <what> (got …; want …)` per mistake, all of them.
    """
    reading = read_flags(argv, environ)
    values: dict[str, Any] = {}
    for option, flag in FLAG_OF.items():
        if flag.name in reading.given:
            found, mistakes = _parse(flag, reading.given[flag.name])
            reading.problems += mistakes
            if flag.plural:
                values[option] = tuple(found)
            elif found:
                values[option] = found[0]
    # The default stands in for a mistake, so that the rest is checked too.
    options = Options(command=reading.command, **values)
    problems = reading.problems + _contradictions(options, reading)
    if problems:
        raise UsageError("\n".join(problems))
    return options


def read_flags(argv: Sequence[str], environ: Mapping[str, str]) -> Reading:
    """Sort `argv` (without the program's name) and `FLANNELD_*` into flags. Never raises; see `problems`."""
    reading = Reading()
    words = list(argv)
    if words and not words[0].startswith("-"):
        _read_command(reading, words.pop(0))
    _read_words(reading, words)
    for flag in FLAGS:
        if flag.variable and flag.name not in reading.given and (text := environ.get(flag.variable)):
            reading.given[flag.name] = Given((text,), flag.variable)
    for variable in map(variable_of, OF_KLOG):
        if got := environ.get(variable):
            reading.of_klog.append(f"{variable}={got}")
    for variable in map(variable_of, sorted(UNSUPPORTED)):
        if got := environ.get(variable):
            reading.problems.append(f"{variable}: not supported by this agent (got {got!r}; want it unset)")
    return reading


def without_effect(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return a line for each flag and variable of flanneld that has no effect here."""
    return [
        *(
            f"{name}={environ[name]}: without effect, it is for flannel's Kubernetes subnet manager"
            for name in OF_KUBERNETES
            if environ.get(name)
        ),
        *(f"{given}: without effect, it is for flannel's logger" for given in read_flags(argv, environ).of_klog),
    ]


def _read_command(reading: Reading, word: str) -> None:
    for command in COMMANDS:
        if word == command:
            reading.command = command
            return
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    reading.problems.append(f"command line: unknown command{hint} (got {word!r}; want one of {', '.join(COMMANDS)})")


def _read_words(reading: Reading, words: list[str]) -> None:
    while words:
        word = words.pop(0)
        if word == "--":
            continue
        if not word.startswith("-") or word == "-":
            reading.problems.append(
                f"command line: unexpected argument (got {word!r}; want flags only after a command)"
            )
            continue
        name, equals, text = word.lstrip("-").partition("=")
        if name in OF_KLOG and (equals or words):
            reading.of_klog.append(f"--{name}={text if equals else words.pop(0)}")
            continue
        if name in OF_KLOG:
            reading.problems.append(f"--{name}: has no value (got nothing; want one, or the flag left out)")
            continue
        flag = FLAG_BY_NAME.get("help" if name == "h" else name)
        if flag is None:
            reading.problems.append(_unknown(word, name))
            # In `--unknown value`, do not report the value as a second mistake.
            if not equals and words and not words[0].startswith("-"):
                words.pop(0)
            continue
        if not equals and flag.value:
            if not words:
                reading.problems.append(f"--{name}: has no value (got nothing; want {flag.value})")
                continue
            text = words.pop(0)
        elif not equals:
            text = "true"
        earlier = reading.given.get(flag.name)
        reading.given[flag.name] = Given((*(earlier.texts if earlier else ()), text), f"--{flag.name}")


def _unknown(word: str, name: str) -> str:
    shown = word.partition("=")[0]
    if name in UNSUPPORTED:
        return f"--{name}: not supported by this agent (got {shown!r}; want it left out)"
    near = difflib.get_close_matches(name, FLAG_BY_NAME, n=1)
    return f"command line: unknown flag (got {shown!r}; want {f'--{near[0]}?' if near else 'a flag of --help'})"


def _parse(flag: Flag, given: Given) -> tuple[list[object], list[str]]:
    """Return a flag's values, and an error line for each text that has none."""
    values, mistakes = [], []
    for text in flag.texts(given.texts):
        try:
            values.append(flag.parse(text))
        except ValueError as error:
            what, _, want = str(error).partition("; want ")
            mistakes.append(f"{given.where}: {what} (got {text!r}; want {want})")
    return values, mistakes


def _contradictions(options: Options, reading: Reading) -> list[str]:
    """Return a line for each contradiction between flags."""
    where, problems = reading.where, []
    pairs = (
        ("etcd-certfile", options.etcd_certfile, "etcd-keyfile", options.etcd_keyfile),
        ("etcd-username", options.etcd_username, "etcd-password", options.etcd_password),
    )
    for first, first_value, second, second_value in pairs:
        if (first_value is None) != (second_value is None):
            present, missing = (second, first) if first_value is None else (first, second)
            problems.append(f"{where(present)}: has no effect alone (got no --{missing}; want both or neither)")
    files = {
        "etcd-certfile": options.etcd_certfile,
        "etcd-keyfile": options.etcd_keyfile,
        "etcd-cafile": options.etcd_cafile,
    }
    tls = [name for name, file in files.items() if file is not None]
    if tls and any(url.startswith("http:") for url in options.etcd_endpoints):
        problems.append(
            f"{where(tls[0])}: TLS files with an endpoint without TLS"
            f" (got {','.join(options.etcd_endpoints)!r}; want https:// for all)"
        )
    # The default margin is an hour: with a shorter TTL only an explicit margin is a contradiction.
    margin = "subnet-lease-renew-margin"
    if margin in reading.given and not reading.problems:
        ttl_s, margin_s = options.subnet_lease_ttl_s, options.subnet_lease_renew_margin_s
        if margin_s >= ttl_s:
            problems.append(
                f"{where(margin)}: not below the lease's life"
                f" (got {margin_s // 60}; want less than --subnet-lease-ttl, {ttl_s} s)"
            )
    if options.revoke and options.command != "cleanup":
        problems.append(
            f"{where('revoke')}: belongs to cleanup (got no such command; want --revoke-on-exit or `cleanup --revoke`)"
        )
    if options.rules and (options.command != "cleanup" or options.revoke):
        problems.append(
            f"{where('rules')}: belongs to cleanup, without --revoke (got another command line; want `cleanup --rules`)"
        )
    if options.command == "bridge" and options.bridge is None:
        problems.append("--bridge: missing (got nothing; want the name of the bridge, e.g. docker0)")
    return problems


def help_text() -> str:
    """Return every command and flag with its default and its environment variable, at most 100 columns wide."""
    lines = [
        "usage: python -m agent [cleanup | bridge] [flags]",
        "",
        "Overlay agent: a peer of flannel's flanneld.",
        "",
    ]
    for command, meaning in COMMANDS.items():
        lines += textwrap.wrap(f"{command:<8} {meaning}", 98, initial_indent="  ", subsequent_indent=" " * 11)
    lines += ["", "A flag given on the command line wins over its variable; an empty variable is ignored."]
    for flag in FLAGS:
        default = "" if flag.default in ("", "false") else f" [{flag.default}]"
        lines += ["", f"  --{flag.name}{'=' if flag.value else ''}{flag.value}{default}"]
        lines += textwrap.wrap(flag.help, 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
        if flag.variable:
            lines.append(f"        {flag.variable}")
    lines += ["", "Exit codes: 0 ok, 1 failed, 2 flags, 3 something is missing on this machine, 4 etcd refused us."]
    return "\n".join(lines)
