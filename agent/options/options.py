"""The agent's options as one checked value; every mistake of a command line is reported at once.

Imports nothing heavy: `--help` and a mistyped flag are answered at once.
"""

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from agent.errors import UsageError
from agent.options.command_line import Command, Reading, read_flags
from agent.options.parsers import (
    SHORTEST_TTL_S,
    datapath,
    endpoint,
    interface_name,
    lease_ttl_s,
    listen_address,
    node_name,
    optional_path,
    path,
    prefix,
    public_ip,
    public_ipv6,
    reachable_ip,
    regex,
    switch,
)

T = TypeVar("T")

MARGIN_RANGE_MIN = (1, 1439)
"""Minutes; flannel's own limits of --subnet-lease-renew-margin (one minute to a day less one)."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a command line and its environment decide."""

    command: Command
    etcd_endpoints: tuple[str, ...]
    """URLs, each `http://HOST:PORT` or `https://HOST:PORT`."""
    etcd_prefix: str
    """Without a slash at its end."""
    etcd_keyfile: Path | None
    etcd_certfile: Path | None
    etcd_cafile: Path | None
    etcd_username: str | None
    etcd_password: str | None = field(repr=False)
    iface: tuple[str, ...]
    """Names or IPv4 addresses; the first that fits is taken."""
    iface_regex: tuple[re.Pattern[str], ...]
    """Searched for in addresses and names, where no `iface` fits."""
    iface_can_reach: IPv4Address | None
    public_ip: IPv4Address | None
    public_ipv6: IPv6Address | None
    subnet_file: Path
    docker_opts_file: Path | None
    subnet_lease_ttl_s: int
    subnet_lease_renew_margin_s: int
    ip_masq: bool
    ip_masq_fully_random: bool
    resync_s: int
    """How often kernel state is checked (flannel's --iptables-resync)."""
    forward_rules: bool
    blackhole_route: bool
    bridge: str | None
    healthz_ip: str
    healthz_port: int | None
    revoke_on_exit: bool
    revoke: bool
    datapath: str
    """auto, native or python."""
    journal: Path | None
    node_name: str
    verbosity: int
    version: bool
    help: bool


def parse_options(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Read `argv` (without the program's name) and `FLANNELD_*` of `environ`.

    Raises UsageError with one line `<where>: <what> (got …; want …)` per mistake, all of them.
    """
    reading = read_flags(argv, environ)
    values = _Values(reading)
    ttl_s = values.one("subnet-lease-ttl", lease_ttl_s, SHORTEST_TTL_S)
    options = Options(
        command=reading.command,
        etcd_endpoints=values.endpoints(),
        etcd_prefix=values.one("etcd-prefix", prefix, ""),
        etcd_keyfile=values.one("etcd-keyfile", optional_path, None),
        etcd_certfile=values.one("etcd-certfile", optional_path, None),
        etcd_cafile=values.one("etcd-cafile", optional_path, None),
        etcd_username=values.text("etcd-username") or None,
        etcd_password=values.text("etcd-password") or None,
        iface=tuple(text for text in values.reading.texts("iface").texts if text),
        iface_regex=values.several("iface-regex", regex),
        iface_can_reach=values.one("iface-can-reach", reachable_ip, None),
        public_ip=values.one("public-ip", public_ip, None),
        public_ipv6=values.one("public-ipv6", public_ipv6, None),
        subnet_file=values.one("subnet-file", path, Path("/")),
        docker_opts_file=values.one("docker-opts-file", optional_path, None),
        subnet_lease_ttl_s=ttl_s,
        subnet_lease_renew_margin_s=60 * values.whole("subnet-lease-renew-margin", *MARGIN_RANGE_MIN, "minutes"),
        ip_masq=values.one("ip-masq", switch, False),
        ip_masq_fully_random=not values.one("ip-masq-fully-random-disable", switch, False),
        resync_s=values.whole("iptables-resync", 1, 3600, "seconds"),
        forward_rules=values.one("iptables-forward-rules", switch, True),
        blackhole_route=values.one("ip-blackhole-route", switch, False),
        bridge=values.one("bridge", interface_name, None),
        healthz_ip=values.one("healthz-ip", listen_address, ""),
        healthz_port=values.whole("healthz-port", 0, 65535) or None,
        revoke_on_exit=values.one("revoke-on-exit", switch, False),
        revoke=values.one("revoke", switch, False),
        datapath=values.one("datapath", datapath, "auto"),
        journal=values.one("journal", optional_path, None),
        node_name=values.one("node-name", node_name, None) or socket.gethostname(),
        verbosity=values.whole("v", 0, 10),
        version=values.one("version", switch, False),
        help=values.one("help", switch, False),
    )
    problems = reading.problems + _contradictions(options, reading)
    if problems:
        raise UsageError("\n".join(problems))
    return options


class _Values:
    """Turns texts into values; a mistake is noted and a stand-in returned, so that the rest is looked at too."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def text(self, name: str) -> str:
        return self.reading.texts(name).texts[-1]

    def one(self, name: str, parse: Callable[[str], T], stand_in: T) -> T:
        try:
            return parse(self.text(name))
        except ValueError as error:
            self.problem(name, str(error), self.text(name))
            return stand_in

    def several(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Every value of a repeatable flag; empty ones do not count."""
        found = []
        for text in filter(None, self.reading.texts(name).texts):
            try:
                found.append(parse(text))
            except ValueError as error:
                self.problem(name, str(error), text)
        return tuple(found)

    def problem(self, name: str, complaint: str, got: str) -> None:
        """Note `complaint`, written as `<what>; want <what is right>`."""
        what, _, want = complaint.partition("; want ")
        self.reading.problems.append(f"{self.reading.texts(name).where}: {what} (got {got!r}; want {want})")

    def whole(self, name: str, lowest: int, highest: int, unit: str = "") -> int:
        want = f"want {lowest} to {highest} {unit}".rstrip()

        def parse(text: str) -> int:
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise ValueError(f"not a whole number; {want}")
            if not lowest <= int(text) <= highest:
                raise ValueError(f"out of range; {want}")
            return int(text)

        return self.one(name, parse, lowest)

    def endpoints(self) -> tuple[str, ...]:
        found = []
        for text in self.text("etcd-endpoints").split(","):
            try:
                found.append(endpoint(text.strip()))
            except ValueError as error:
                self.problem("etcd-endpoints", str(error), text)
        return tuple(found)


def _contradictions(options: Options, reading: Reading) -> list[str]:
    problems = []
    if (options.etcd_keyfile is None) != (options.etcd_certfile is None):
        have, lack = ("etcd-certfile", "etcd-keyfile") if options.etcd_certfile else ("etcd-keyfile", "etcd-certfile")
        problems.append(f"{reading.texts(have).where}: is of no use alone (got no --{lack}; want both or neither)")
    tls = [name for name in ("etcd-certfile", "etcd-keyfile", "etcd-cafile") if reading.texts(name).texts[-1]]
    if tls and any(url.startswith("http:") for url in options.etcd_endpoints):
        problems.append(
            f"{reading.texts(tls[0]).where}: TLS files with an endpoint that does without"
            f" (got {','.join(options.etcd_endpoints)!r}; want https:// for all)"
        )
    if (options.etcd_username is None) != (options.etcd_password is None):
        have, lack = ("username", "password") if options.etcd_username else ("password", "username")
        problems.append(f"--etcd-{have}: is of no use alone (got no --etcd-{lack}; want both or neither)")
    # The default margin is an hour: with a shorter TTL only a margin that somebody asked for is a contradiction.
    if "subnet-lease-renew-margin" in reading.given and not reading.problems:
        ttl_s, margin_s = options.subnet_lease_ttl_s, options.subnet_lease_renew_margin_s
        if margin_s >= ttl_s:
            problems.append(
                f"{reading.texts('subnet-lease-renew-margin').where}: not below the lease's life"
                f" (got {margin_s // 60}; want less than --subnet-lease-ttl, {ttl_s} s)"
            )
    if options.revoke and options.command != "cleanup":
        problems.append(
            "--revoke: belongs to cleanup (got no such command; want --revoke-on-exit or `cleanup --revoke`)"
        )
    if options.command == "bridge" and options.bridge is None:
        problems.append("--bridge: missing (got nothing; want the name of the bridge, e.g. docker0)")
    return problems
