"""Parse the text of one flag. A ValueError reads `<what is wrong>; want <what is right>`."""

import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from agent.options.go_regex import GoRegex, compile_go_regex

SHORTEST_TTL_S = 2
"""Seconds; etcd raises anything below to this (its minimum lease TTL with default election timing)."""
LONGEST_TTL_S = 9_000_000_000
"""Seconds; etcd refuses more than this."""
LONGEST_HOST_NAME = 253
"""Characters; RFC 1035 §2.3.4, minus the length bytes."""
TRUE_TEXTS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_TEXTS = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""Both as Go's strconv.ParseBool."""
MARGIN_RANGE_MIN = (1, 1439)
"""Minutes; flannel's own limits of --subnet-lease-renew-margin (one minute to a day less one)."""
DURATION_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
DATAPATHS = ("auto", "native", "python", "kernel")


def optional_text(text: str) -> str | None:
    """Return the text itself; None for an empty one."""
    return text or None


def datapath(text: str) -> str:
    """Check the name of a data path."""
    if text not in DATAPATHS:
        raise ValueError(f"unknown data path; want {', '.join(DATAPATHS)}")
    return text


def endpoint(text: str) -> str:
    """Return one etcd URL, `http://HOST:PORT` or `https://HOST:PORT`, without a final slash."""
    text = text.strip()
    want = "; want http://HOST:PORT or https://HOST:PORT, several separated by commas"
    if not text:
        raise ValueError("empty endpoint" + want)
    if "://" not in text:
        raise ValueError("endpoint without http:// or https://" + want)
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError("endpoint that is not a URL" + want) from None
    if url.scheme not in ("http", "https"):
        raise ValueError(f"endpoint with the unknown scheme {url.scheme}" + want)
    if url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        raise ValueError("endpoint with more than host and port" + want)
    if not url.hostname:
        raise ValueError("endpoint without a host" + want)
    # Checked in its original form: urlsplit drops line ends and tabs.
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", text.partition("://")[2].rstrip("/")):
        raise ValueError("endpoint with a bad host" + want)
    try:
        port = url.port
    except ValueError:
        raise ValueError("endpoint with a bad port; want a port from 1 to 65535") from None
    if port is None:
        raise ValueError("endpoint without a port" + want)
    if port == 0:
        raise ValueError("endpoint with port 0; want a port from 1 to 65535")
    return f"{url.scheme}://{url.netloc}"


def public_ip(text: str) -> IPv4Address | None:
    """Return a unicast IPv4 address that other nodes can reach; None for an empty text."""
    want = "; want the IPv4 address of this node on the underlay, e.g. 192.168.8.227"
    if not text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError("not an IP address" + want) from None
    if isinstance(address, IPv6Address):
        raise ValueError("an IPv6 address" + want)
    reasons = {
        "is the unspecified address": address.is_unspecified,
        "is a loopback address": address.is_loopback,
        "is a multicast address": address.is_multicast,
        "is the broadcast address": address == IPv4Address("255.255.255.255"),
        "is in the reserved range 240.0.0.0/4": address.is_reserved,
        "is in the range 0.0.0.0/8 (this network)": address.packed[0] == 0,
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(reason + want)
    return address


def public_ipv6(text: str) -> IPv6Address | None:
    """Return a unicast IPv6 address that other nodes can reach; None for an empty text."""
    want = "; want the IPv6 address of this node on the underlay, e.g. 2001:db8::7"
    if not text:
        return None
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError("not an IPv6 address" + want) from None
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.scope_id is not None:
        raise ValueError("no address that other nodes can reach" + want)
    return address


def regex(text: str) -> GoRegex:
    """Compile a regular expression in Go's syntax."""
    try:
        return compile_go_regex(text)
    except ValueError as error:
        raise ValueError(f"not a regular expression: {error}; want e.g. 'eth[0-9]' or '^192\\.168\\.'") from None


def reachable_ip(text: str) -> IPv4Address | None:
    """Return any IPv4 address; None for an empty text."""
    try:
        return IPv4Address(text) if text else None
    except ValueError:
        raise ValueError("not an IPv4 address; want one that packets may go to, e.g. 192.168.8.1") from None


def lease_ttl_s(text: str) -> int:
    """Return a Go duration as whole seconds that etcd grants."""
    seconds = duration_s(text)
    if seconds != int(seconds):
        raise ValueError("not whole seconds; want e.g. 30s, 5m or 24h")
    if not SHORTEST_TTL_S <= seconds <= LONGEST_TTL_S:
        raise ValueError(f"out of range; want {SHORTEST_TTL_S}s to {LONGEST_TTL_S}s, as etcd grants no other")
    return int(seconds)


def duration_s(text: str) -> float:
    """Return a Go duration such as `1h30m` in seconds."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|µs|ns|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("not a duration; want numbers with units, e.g. 30s, 5m or 24h")
    return sum(float(number) * DURATION_UNITS_S[unit] for number, unit in parts)


def switch(text: str) -> bool:
    """Read true or false as Go's strconv.ParseBool does."""
    if text in TRUE_TEXTS or text in FALSE_TEXTS:
        return text in TRUE_TEXTS
    raise ValueError("neither true nor false; want true or false")


def switched_off(text: str) -> bool:
    """Read a switch that turns something off; return whether that something is on."""
    return not switch(text)


def whole(lowest: int, highest: int, unit: str = "") -> Callable[[str], int]:
    """Return a parser of whole numbers within these limits."""
    want = f"want {lowest} to {highest} {unit}".rstrip()

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError(f"not a whole number; {want}")
        if not lowest <= int(text) <= highest:
            raise ValueError(f"out of range; {want}")
        return int(text)

    return parse


def port(text: str) -> int | None:
    """Return a TCP port; None for 0, which turns the server off."""
    return whole(0, 65535)(text) or None


def renew_margin_s(text: str) -> int:
    """Return flannel's margin, given in minutes, in seconds."""
    return 60 * whole(*MARGIN_RANGE_MIN, "minutes")(text)


def prefix(text: str) -> str:
    """Return an etcd key prefix without repeated slashes or a final one."""
    # flannel joins keys with Go's path.Join: repeated and final slashes vanish, a missing first one stays missing.
    cleaned = ("/" if text.startswith("/") else "") + "/".join(part for part in text.split("/") if part)
    if cleaned in ("", "/") or not text.isprintable():
        raise ValueError("not a key prefix; want a key such as /coreos.com/network")
    return cleaned


def path(text: str) -> Path:
    """Return a path of the file system."""
    if not text or "\0" in text:
        raise ValueError("not a path; want the path of a file")
    return Path(text)


def optional_path(text: str) -> Path | None:
    """Return a path of the file system; None for an empty text."""
    return path(text) if text else None


def interface_name(text: str) -> str | None:
    """Return a name that the kernel accepts for a link; None for an empty text."""
    if not text:
        return None
    # The kernel's rule (dev_valid_name), without names that need quotes in a shell or an nftables file.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", text):
        raise ValueError("not an interface name; want 1 to 15 letters, digits, `_`, `.` or `-`, e.g. docker0")
    return text


def node_name(text: str) -> str:
    """Return a name for this node in logs and answers; the host name for an empty text."""
    if not text.isprintable() or len(text) > LONGEST_HOST_NAME:
        raise ValueError(f"not a name; want printable characters, at most {LONGEST_HOST_NAME}")
    return text or socket.gethostname()


def listen_address(text: str) -> str:
    """Return an address to listen on, IPv4 or IPv6."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("not an IP address; want e.g. 127.0.0.1 or 0.0.0.0") from None
