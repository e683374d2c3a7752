"""The table of the agent's flags: each field of `Options` is one flag, and its type is what the flag's parser returns.

The command line, the `FLANNELD_*` variables, `--help` and docs/reference.md are read from this table. flannel's flags
keep their names, defaults and variables, so a unit file written for flanneld works here.

Imports nothing heavy, so that `--help` and a mistyped flag are fast.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, TypeVar, cast

from agent.options import parsers
from agent.options.go_regex import GoRegex

T = TypeVar("T")
Command = Literal["run", "cleanup", "bridge"]

COMMANDS: Mapping[Command, str] = {
    "run": "(no command) lease a subnet and carry packets until SIGTERM",
    "cleanup": "remove what a run left: devices, routes, rules, the bridge (with --bridge), subnet.env; repeatable",
    "bridge": "make the bridge of an existing --subnet-file once, as dockerd would with its --bip, and exit",
}
UNSUPPORTED = frozenset(
    {
        "kube-subnet-mgr",
        "kube-api-url",
        "kube-annotation-prefix",
        "kubeconfig-file",
        "net-config-path",
        "set-node-network-unavailable",
    }
)
"""Flags of flannel that we do not support: they are refused, as ignoring them would surprise later."""
OF_KLOG = ("vmodule", "log_backtrace_at")
"""Flags of flannel's logger, each with a value; they affect only its own log lines."""
WITHOUT_VARIABLE = frozenset({"help", "version"})


def variable_of(name: str) -> str:
    """Return flannel's environment variable for a flag."""
    return "FLANNELD_" + name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, and how its text becomes a value."""

    name: str
    value: str
    """The name of its value in the help; "" for a switch, which needs none."""
    parse: Callable[[str], object]
    """Returns the value of one text; raises ValueError, `<what is wrong>; want <what is right>`."""
    help: str
    default: str
    """flannel's default, as text."""
    plural: bool = False
    """Whether the option is a tuple to which every use of the flag adds."""
    separator: str | None = None
    """If plural: the separator of values in one text, of which the last counts."""

    @property
    def variable(self) -> str:
        """Return its environment variable, or ""; a flag on the command line wins."""
        return "" if self.name in WITHOUT_VARIABLE else variable_of(self.name)

    def texts(self, given: Sequence[str]) -> Sequence[str]:
        """Return the texts that count; each is parsed."""
        if self.separator is not None:
            return given[-1].split(self.separator)
        return [text for text in given if text] if self.plural else given[-1:]

    def default_value(self) -> object:
        """Return the option's value when nothing is given."""
        values = tuple(self.parse(text) for text in self.texts((self.default,)))
        return values if self.plural else values[0]


def _flag(spelling: str, parse: Callable[[str], T], help: str, *, default: str = "", secret: bool = False) -> T:
    """Declare a flag, `NAME=VALUE` as in the help; its option has the type that `parse` returns."""
    return cast(T, _field(Flag(*_split(spelling), parse, help, default), secret))


def _switch(name: str, help: str, *, default: str = "false", parse: Callable[[str], bool] = parsers.switch) -> bool:
    return _flag(name, parse, help, default=default)


def _plural(
    spelling: str, parse: Callable[[str], T], help: str, *, default: str = "", separator: str | None = None
) -> tuple[T, ...]:
    flag = Flag(*_split(spelling), parse, help, default, plural=True, separator=separator)
    return cast(tuple[T, ...], _field(flag))


def _split(spelling: str) -> tuple[str, str]:
    name, _, value = spelling.partition("=")
    return name, value


def _field(flag: Flag, secret: bool = False) -> object:
    return field(default_factory=flag.default_value, repr=not secret, metadata={Flag: flag})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that a command line and its environment determine, in the order of the help."""

    command: Command = "run"
    etcd_endpoints: tuple[str, ...] = _plural(
        "etcd-endpoints=URL,URL…",
        parsers.endpoint,
        "etcd's endpoints",
        default="http://127.0.0.1:4001,http://127.0.0.1:2379",
        separator=",",
    )
    etcd_prefix: str = _flag(
        "etcd-prefix=KEY", parsers.prefix, "etcd key above `config` and `subnets`", default="/coreos.com/network"
    )
    etcd_keyfile: Path | None = _flag(
        "etcd-keyfile=FILE", parsers.optional_path, "private key of our TLS certificate (PEM)"
    )
    etcd_certfile: Path | None = _flag(
        "etcd-certfile=FILE", parsers.optional_path, "our TLS certificate for etcd (PEM)"
    )
    etcd_cafile: Path | None = _flag(
        "etcd-cafile=FILE", parsers.optional_path, "certificate of the authority that signed etcd's (PEM)"
    )
    etcd_username: str | None = _flag("etcd-username=NAME", parsers.optional_text, "etcd user")
    etcd_password: str | None = _flag(
        "etcd-password=TEXT",
        parsers.optional_text,
        "its password; prefer the variable, which `ps` does not show",
        secret=True,
    )
    iface: tuple[str, ...] = _plural(
        "iface=NAME|ADDRESS", str, "underlay interface; may be repeated, the first usable one is taken"
    )
    iface_regex: tuple[GoRegex, ...] = _plural(
        "iface-regex=REGEX",
        parsers.regex,
        "if no --iface fits: the first interface whose address, else name, matches this; may be repeated",
    )
    iface_can_reach: IPv4Address | None = _flag(
        "iface-can-reach=ADDRESS",
        parsers.reachable_ip,
        "if none of these fits: the interface and source address of packets to this address",
    )
    public_ip: IPv4Address | None = _flag(
        "public-ip=ADDRESS",
        parsers.public_ip,
        "IPv4 address under which other nodes reach us; default: the interface's own",
    )
    public_ipv6: IPv6Address | None = _flag(
        "public-ipv6=ADDRESS", parsers.public_ipv6, "the same for IPv6, on a network with EnableIPv6"
    )
    subnet_file: Path = _flag(
        "subnet-file=FILE",
        parsers.path,
        "the file with network, subnet and MTU for other programs",
        default="/run/flannel/subnet.env",
    )
    docker_opts_file: Path | None = _flag(
        "docker-opts-file=FILE",
        parsers.optional_path,
        "the file with dockerd's --bip and --mtu; empty: none",
    )
    subnet_lease_ttl_s: int = _flag(
        "subnet-lease-ttl=DURATION",
        parsers.lease_ttl_s,
        "life of our lease without renewal, e.g. 30s, 5m, 24h; at least 2s",
        default="24h",
    )
    subnet_lease_renew_margin_s: int = _flag(
        "subnet-lease-renew-margin=MINUTES",
        parsers.renew_margin_s,
        "flannel's renewal margin, 1 to 1439; ours are renewed after a third of their life, mostly earlier",
        default="60",
    )
    ip_masq: bool = _switch("ip-masq", "masquerade traffic that leaves the pod network")
    ip_masq_fully_random: bool = _switch(
        "ip-masq-fully-random-disable", "masquerade without random source ports", parse=parsers.switched_off
    )
    resync_s: int = _flag(
        "iptables-resync=SECONDS",
        parsers.whole(1, 3600, "seconds"),
        "how often rules, routes and the bridge are checked and restored",
        default="5",
    )
    forward_rules: bool = _switch(
        "iptables-forward-rules", "accept what the pod network forwards, in iptables' FORWARD too", default="true"
    )
    blackhole_route: bool = _switch("ip-blackhole-route", "drop packets to our subnet while it has no bridge")
    bridge: str | None = _flag(
        "bridge=NAME",
        parsers.interface_name,
        "make and keep this bridge for pods, as dockerd would (docker0); empty: no bridge",
    )
    healthz_ip: str = _flag(
        "healthz-ip=ADDRESS",
        parsers.listen_address,
        "address of /healthz, /readyz, /metrics and /state",
        default="0.0.0.0",
    )
    healthz_port: int | None = _flag("healthz-port=PORT", parsers.port, "their TCP port; 0: off", default="0")
    revoke_on_exit: bool = _switch(
        "revoke-on-exit", "revoke the lease on SIGTERM; without it a restart keeps the subnet"
    )
    revoke: bool = _switch("revoke", "with `cleanup`: revoke the lease too")
    rules: bool = _switch("rules", "with `cleanup`: only rules and last-resort routes, before a flanneld takes over")
    datapath: str = _flag(
        "datapath=auto|native|python|kernel",
        parsers.datapath,
        "what moves packets of the udp backend: native (fast, compiled by scripts/install), python, or"
        " kernel (FOU, if the kernel has it); auto: native if it is compiled, else python",
        default="auto",
    )
    offload: bool = _switch(
        "offload",
        "with --datapath kernel, where the underlay is a veth: leave segmentation and checksums to the other end; only"
        " if every node of the network has --datapath kernel",
    )
    journal: Path | None = _flag(
        "journal=FILE",
        parsers.optional_path,
        "append every kernel change as its equivalent command (JSON lines)",
    )
    node_name: str = _flag(
        "node-name=NAME", parsers.node_name, "node name in the journal and /state; default: the host name"
    )
    version: bool = _switch("version", "print the version and exit")
    verbosity: int = _flag(
        "v=LEVEL", parsers.whole(0, 10), "log verbosity: 0 events, 1 or more also details", default="0"
    )
    help: bool = _switch("help", "print this help and exit")


FLAG_OF: Mapping[str, Flag] = {one.name: one.metadata[Flag] for one in fields(Options) if Flag in one.metadata}
"""By the name of the option."""
FLAGS: Sequence[Flag] = tuple(FLAG_OF.values())
FLAG_BY_NAME: Mapping[str, Flag] = {flag.name: flag for flag in FLAGS}
