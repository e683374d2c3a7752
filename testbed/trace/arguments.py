"""Parses the arguments of a trace into the request to the lab. Pure."""

import re
from ipaddress import IPv6Address
from typing import Any

from testbed.errors import InvalidInput

DEFAULT_UDP_PORT = 33434
"""Where traceroute begins, and usually a closed port: the answer is the destination's own "port unreachable"."""
HIGHEST_PORT = 65535
BRACKETS = re.compile(r"\[(?P<address>[^]]*)\](?::(?P<port>.*))?")


def arguments_of(source: str, destination: str, protocol: str | None) -> dict[str, Any]:
    """Return the request for the user's arguments. Raises TestbedError (usage)."""
    source_name, source_port = split_end(source, "trace")
    destination_name, destination_port = split_end(destination, "trace")
    protocol = protocol or ("tcp" if destination_port else "icmp")
    if protocol == "icmp" and (source_port or destination_port):
        raise InvalidInput("testbed trace: ICMP has no ports (want names without :PORT, or leave --icmp out)")
    if protocol == "tcp" and destination_port is None:
        raise InvalidInput("testbed trace: TCP needs a port (got DST without one; want DST:PORT)")
    if protocol == "udp" and destination_port is None:
        destination_port = DEFAULT_UDP_PORT
    return {
        "source": source_name,
        "destination": destination_name,
        "protocol": protocol,
        "source_port": source_port,
        "destination_port": destination_port,
    }


def split_end(text: str, verb: str) -> tuple[str, int | None]:
    """Split name or address, and port: `tomcat:8080`, `[fd00:a:0:90::2]:8080`, `fd00:a:0:90::2`."""
    brackets = BRACKETS.fullmatch(text)
    if brackets is not None:
        port = brackets["port"]
        return _ipv6(brackets["address"], text, verb), None if port is None else _port(port, text, verb)
    if text.count(":") > 1:
        return _ipv6(text, text, verb), None
    name, colon, port = text.partition(":")
    return name, _port(port, text, verb) if colon else None


def _ipv6(address: str, text: str, verb: str) -> str:
    try:
        return str(IPv6Address(address))
    except ValueError as error:
        raise InvalidInput(
            f"testbed {verb}: {text}: not an IPv6 address (got {address!r}; want one, as fd00:a:0:90::2, in brackets"
            " before a port)",
        ) from error


def _port(port: str, text: str, verb: str) -> int:
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= HIGHEST_PORT:
        raise InvalidInput(f"testbed {verb}: {text}: not a port (got {port!r}; want 1 to {HIGHEST_PORT})")
    return int(port)
