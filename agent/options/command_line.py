"""The agent's flags as one table, and Go's way of reading them: `-x`, `--x`, `--x=v`, `--x v`, `--x=false`.

flannel's flags keep their names, defaults and `FLANNELD_*` variables, so a unit file written for flanneld works here.
This module only finds which text belongs to which flag; `agent.options.options` says what the text must look like.
"""

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Command = Literal["run", "cleanup", "bridge"]

COMMANDS: Mapping[Command, str] = {
    "run": "(no command) lease a subnet and carry packets until SIGTERM",
    "cleanup": "remove what a run left: nftables tables, the bridge (with --bridge), subnet.env; twice is harmless",
    "bridge": "make the bridge of an existing --subnet-file once, as dockerd would with its --bip, and exit",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its name, what its value is called in the help ("" for a switch), and flannel's default as text."""

    name: str
    value: str
    default: str
    help: str
    repeatable: bool = False

    @property
    def variable(self) -> str:
        """The environment variable that sets it; a flag on the command line wins."""
        return "FLANNELD_" + self.name.upper().replace("-", "_")


FLAGS: tuple[Flag, ...] = (
    Flag("etcd-endpoints", "URL,URL…", "http://127.0.0.1:4001,http://127.0.0.1:2379", "where etcd listens"),
    Flag("etcd-prefix", "KEY", "/coreos.com/network", "etcd key above `config` and `subnets`"),
    Flag("etcd-keyfile", "FILE", "", "private key of our TLS certificate (PEM)"),
    Flag("etcd-certfile", "FILE", "", "our TLS certificate for etcd (PEM)"),
    Flag("etcd-cafile", "FILE", "", "certificate of the authority that signed etcd's (PEM)"),
    Flag("etcd-username", "NAME", "", "etcd user"),
    Flag("etcd-password", "TEXT", "", "its password; better given through the variable, which `ps` does not show"),
    Flag(
        "iface",
        "NAME|ADDRESS",
        "",
        "underlay interface; may be repeated, the first that fits is taken",
        repeatable=True,
    ),
    Flag(
        "iface-regex",
        "REGEX",
        "",
        "where no --iface fits: the first interface in whose address, else name, this is found; may be repeated",
        repeatable=True,
    ),
    Flag(
        "iface-can-reach",
        "ADDRESS",
        "",
        "where none of these fits: the interface, and the source address, that packets to this address leave by",
    ),
    Flag("public-ip", "ADDRESS", "", "IPv4 address under which other nodes reach us; default: the interface's own"),
    Flag("public-ipv6", "ADDRESS", "", "the same for IPv6, on a network with EnableIPv6"),
    Flag("subnet-file", "FILE", "/run/flannel/subnet.env", "where network, subnet and MTU are written for others"),
    Flag("docker-opts-file", "FILE", "", "where dockerd's --bip and --mtu are written too; empty: nowhere"),
    Flag("subnet-lease-ttl", "DURATION", "24h", "life of our lease without renewal, e.g. 30s, 5m, 24h; at least 2s"),
    Flag(
        "subnet-lease-renew-margin",
        "MINUTES",
        "60",
        "flannel's renewal margin, 1 to 1439; ours are renewed after a third of their life, mostly earlier",
    ),
    Flag("ip-masq", "", "false", "masquerade traffic that leaves the pod network"),
    Flag("ip-masq-fully-random-disable", "", "false", "masquerade without random source ports"),
    Flag("iptables-resync", "SECONDS", "5", "how often rules, routes and the bridge are checked and re-made"),
    Flag("iptables-forward-rules", "", "true", "accept forwarded traffic from and to the pod network"),
    Flag("ip-blackhole-route", "", "false", "drop packets for addresses of our subnet while there is no bridge for it"),
    Flag("bridge", "NAME", "", "make and keep this bridge for pods, as dockerd would (docker0); empty: no bridge"),
    Flag("healthz-ip", "ADDRESS", "0.0.0.0", "address of /healthz, /readyz, /metrics and /state"),
    Flag("healthz-port", "PORT", "0", "their TCP port; 0: off"),
    Flag("revoke-on-exit", "", "false", "give the lease back on SIGTERM; without it a restart keeps the subnet"),
    Flag("revoke", "", "false", "with `cleanup`: give the lease back too"),
    Flag(
        "datapath",
        "auto|native|python",
        "auto",
        "what moves packets of the udp backend: native (fast, compiled by scripts/install) or python; auto: native",
    ),
    Flag("journal", "FILE", "", "append every kernel change as the command a person would have typed (JSON lines)"),
    Flag("node-name", "NAME", "", "our name in journal and /state; default: the host name"),
    Flag("version", "", "false", "print the version and exit"),
    Flag("v", "LEVEL", "0", "verbosity of the log: 0 events, 1 and more also details"),
    Flag("help", "", "false", "print this and exit"),
)

FLAG_BY_NAME: Mapping[str, Flag] = {flag.name: flag for flag in FLAGS}

UNSUPPORTED = frozenset(
    {
        "kube-subnet-mgr",
        "kube-api-url",
        "kube-annotation-prefix",
        "kubeconfig-file",
        "net-config-path",
        "set-node-network-unavailable",
        "vmodule",
        "log_backtrace_at",
    }
)
"""flannel has these; we do not (yet), and taking them in silence would be worse than refusing."""


OF_KUBERNETES = ("CONT_WHEN_CACHE_NOT_READY", "EVENT_QUEUE_DEPTH")
"""Variables that only flannel's other subnet manager reads (`pkg/subnet/kube/kube.go`); its manifests set them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was given for one flag, and where, for the error line."""

    texts: tuple[str, ...]
    where: str


@dataclass(slots=True)
class Reading:
    """What a command line and an environment say, before any value was looked at."""

    command: Command = "run"
    given: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def texts(self, name: str) -> Given:
        """What was given for the flag, else its default."""
        return self.given.get(name, Given((FLAG_BY_NAME[name].default,), f"--{name}"))


def read_flags(argv: Sequence[str], environ: Mapping[str, str]) -> Reading:
    """Sort `argv` (without the program's name) and `FLANNELD_*` into flags. Never raises; see `problems`."""
    reading = Reading()
    words = list(argv)
    if words and not words[0].startswith("-"):
        _read_command(reading, words.pop(0))
    _read_words(reading, words)
    for flag in FLAGS:
        text = environ.get(flag.variable, "")
        if text and flag.name not in reading.given and flag.name not in ("help", "version"):
            reading.given[flag.name] = Given((text,), flag.variable)
    for name in sorted(UNSUPPORTED):
        variable = Flag(name, "", "", "").variable
        if environ.get(variable):
            reading.problems.append(
                f"{variable}: not supported by this agent (got {environ[variable]!r}; want it unset)"
            )
    return reading


def without_effect(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that flanneld knows and that means nothing where etcd is the store."""
    return [
        f"{name}={environ[name]}: without effect, it is for flannel's Kubernetes subnet manager"
        for name in OF_KUBERNETES
        if environ.get(name)
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
        flag = FLAG_BY_NAME.get("help" if name == "h" else name)
        if flag is None:
            reading.problems.append(_unknown(word, name))
            # «--unknown value»: the value must not be reported as a second mistake.
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
        earlier = reading.given.get(flag.name) if flag.repeatable else None
        reading.given[flag.name] = Given((*(earlier.texts if earlier else ()), text), f"--{flag.name}")


def _unknown(word: str, name: str) -> str:
    shown = word.partition("=")[0]
    if name in UNSUPPORTED:
        return f"--{name}: not supported by this agent (got {shown!r}; want it left out)"
    near = difflib.get_close_matches(name, FLAG_BY_NAME, n=1)
    return f"command line: unknown flag (got {shown!r}; want {f'--{near[0]}?' if near else 'a flag of --help'})"


def help_text() -> str:
    """Every command and flag with its default and its environment variable, at most 100 columns wide."""
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
        if flag.name not in ("help", "version"):
            lines.append(f"        {flag.variable}")
    lines += ["", "Exit codes: 0 ok, 1 failed, 2 flags, 3 something is missing on this machine, 4 etcd refused us."]
    return "\n".join(lines)
