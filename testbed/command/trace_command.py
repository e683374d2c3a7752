"""`testbed trace SRC[:PORT] DST[:PORT]`: the way of one real packet."""

import re
import sys
from contextlib import nullcontext
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import click

from testbed.command.command_line import bare_name, lab_option, next_commands, output_option, verbs
from testbed.command.completion import names
from testbed.control.client import ask, find_lab
from testbed.errors import InvalidInput

DEFAULT_UDP_PORT = 33434
"""Where traceroute begins, and where nobody listens: the answer is the destination's own «port unreachable»."""
HIGHEST_PORT = 65535
BRACKETS = re.compile(r"\[(?P<address>[^]]*)\](?::(?P<port>.*))?")


@verbs.command()
@click.argument("source", metavar="SRC[:PORT]", shell_complete=names("pods", "nodes"))
@click.argument("destination", metavar="DST[:PORT]", shell_complete=names("pods", "nodes"))
@click.option("--icmp", "protocol", flag_value="icmp", help="Send an ICMP echo request (default without DST's port).")
@click.option("--udp", "protocol", flag_value="udp", help="Send a UDP datagram (default with DST's port: TCP).")
@click.option("-6", "--ipv6", is_flag=True, help="By IPv6 addresses, on a dual-stack network.")
@click.option("--size", metavar="BYTES", type=click.IntRange(1, 65000), help="Payload.  [default: as little as does]")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0.05, 60), help="Wait for an answer.  [default: 1]")
@click.option("--step", is_flag=True, help="Show one hop per key press; q shows the rest.")
@click.option("--pcap", metavar="FILE", help="Write what was seen as pcapng too.")
@click.option("--svg", metavar="FILE", help="Draw the way on a picture of the lab too.")
@lab_option
@output_option("json")
def trace(
    source: str,
    destination: str,
    protocol: str | None,
    ipv6: bool,
    size: int | None,
    timeout: float | None,
    step: bool,
    pcap: str | None,
    svg: str | None,
    lab: str | None,
    output: str | None,
) -> int:
    """Send one real packet and show every interface that it crosses, and its answer, and why.

    \b
    trace nginx:2379 tomcat:8080    TCP: connect and send a byte
    trace client 10.0.90.2          ICMP echo
    trace client tomcat:9000 --udp  one UDP datagram
    trace nginx localhost:80        inside one pod
    trace -6 shell echo:8080        by IPv6; so is trace shell [fd00:a:0:90::2]:8080
    """
    from testbed.output import tables as render
    from testbed.output import trace_text as render_trace

    if step and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("testbed trace --step: not on a terminal (got a pipe or file; want a terminal)")
    record = find_lab(lab)
    arguments = arguments_of(source, destination, protocol) | {"size": size, "timeout_s": timeout or 1.0}
    answer = ask(record, "trace", **arguments, ipv6=ipv6, frames=pcap is not None)
    if pcap is not None:
        write_capture(pcap, answer.pop("frames"))
    if svg is not None:
        from testbed.command.graph_command import write_picture
        from testbed.graph.model import graph_of
        from testbed.graph.trace_path import draw_trace

        write_picture("trace --svg", svg, draw_trace(graph_of(ask(record, "graph")), answer).encode())
    if output == "json":
        render.as_json(answer)
    else:
        with render_trace.key_by_key() if step else nullcontext() as next_key:
            render_trace.show(answer, next_key)
        next_commands(record.name, *(answer["hints"][:2] or ["capture all -w lab.pcapng"]))
    return 0 if answer["outcome"] == "answered" else 1


def write_capture(path: str, frames: list[dict[str, Any]]) -> None:
    """A pcapng file with an interface for each point. Raises TestbedError when it cannot be written."""
    from testbed.capture import pcapng

    points = list(dict.fromkeys((frame["point"], frame["ethernet"]) for frame in frames))
    data = pcapng.section_header()
    for point, is_ethernet in points:
        data += pcapng.interface(point, pcapng.LINKTYPE_ETHERNET if is_ethernet else pcapng.LINKTYPE_RAW)
    for frame in frames:
        number = points.index((frame["point"], frame["ethernet"]))
        data += pcapng.packet(number, frame["at_ns"], bytes.fromhex(frame["frame"]), outgoing=frame["out"])
    try:
        Path(path).write_bytes(data)
    except OSError as failure:
        raise InvalidInput(f"testbed trace --pcap {path}: {failure.strerror}") from failure


def arguments_of(source: str, destination: str, protocol: str | None) -> dict[str, Any]:
    """The request for what the user typed. Raises TestbedError (usage)."""
    source_name, source_port = _split(source)
    destination_name, destination_port = _split(destination)
    protocol = protocol or ("tcp" if destination_port else "icmp")
    if protocol == "icmp" and (source_port or destination_port):
        raise InvalidInput("testbed trace: ICMP has no ports (want names without :PORT, or leave --icmp out)")
    if protocol == "tcp" and destination_port is None:
        raise InvalidInput("testbed trace: TCP wants a port (got DST without one; want DST:PORT)")
    if protocol == "udp" and destination_port is None:
        destination_port = DEFAULT_UDP_PORT
    return {
        "source": bare_name(source_name),
        "destination": bare_name(destination_name),
        "protocol": protocol,
        "source_port": source_port,
        "destination_port": destination_port,
    }


def _split(text: str) -> tuple[str, int | None]:
    """Name or address, and port: `tomcat:8080`, `[fd00:a:0:90::2]:8080`, `fd00:a:0:90::2`."""
    brackets = BRACKETS.fullmatch(text)
    if brackets is not None:
        port = brackets["port"]
        return _ipv6(brackets["address"], text), None if port is None else _port(port, text)
    if text.count(":") > 1:
        return _ipv6(text, text), None
    name, colon, port = text.partition(":")
    return name, _port(port, text) if colon else None


def _ipv6(address: str, text: str) -> str:
    try:
        return str(IPv6Address(address))
    except ValueError as error:
        raise InvalidInput(
            f"testbed trace: {text}: not an IPv6 address (got {address!r}; want one, as fd00:a:0:90::2, in brackets"
            " before a port)",
        ) from error


def _port(port: str, text: str) -> int:
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= HIGHEST_PORT:
        raise InvalidInput(f"testbed trace: {text}: not a port (got {port!r}; want 1 to {HIGHEST_PORT})")
    return int(port)
