"""`testbed trace SRC[:PORT] DST[:PORT]`: the path of one real packet."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.command.command_line import FiniteRange, bare_name, lab_option, namespace_option, output_option, verbs
from testbed.command.completion import names
from testbed.control.client import LabRecord, ask, find_lab
from testbed.control.questions import TRACE
from testbed.errors import InvalidInput
from testbed.output.next_commands import next_commands

if TYPE_CHECKING:
    from testbed.control.answers.trace import TraceAnswer, TracedFrame


@verbs.command()
@click.argument("source", metavar="SRC[:PORT]", shell_complete=names("pods", "nodes"))
@click.argument("destination", metavar="DST[:PORT]", shell_complete=names("pods", "nodes"))
@click.option("--icmp", "protocol", flag_value="icmp", help="Send an ICMP echo request (default without DST's port).")
@click.option("--udp", "protocol", flag_value="udp", help="Send a UDP datagram (default with DST's port: TCP).")
@click.option("-6", "--ipv6", is_flag=True, help="By IPv6 addresses, on a dual-stack network.")
@click.option("--size", metavar="BYTES", type=click.IntRange(1, 65000), help="Payload. [default: minimal]")
@click.option("--timeout", metavar="SECONDS", type=FiniteRange(0.05, 60), help="Wait for a reply. [default: 1]")
@click.option("--step", is_flag=True, help="Show one hop per key press; q shows the rest.")
@click.option("--no-why", is_flag=True, help="Omit all reasons, for a class to find.")
@click.option("--pcap", metavar="FILE", help="Also write the packets as pcapng.")
@click.option("--svg", metavar="FILE", help="Also draw the packet's path and headers.")
@click.option("--html", metavar="FILE", help="The same as a page, with the bytes of every hop.")
@click.option("--raw", is_flag=True, help="Also show the bytes of every hop, header by header.")
@namespace_option
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
    no_why: bool,
    pcap: str | None,
    svg: str | None,
    html: str | None,
    raw: bool,
    namespace: str | None,
    lab: str | None,
    output: str | None,
) -> int:
    """Send one real packet and show every interface that it and its reply cross, and why.

    \b
    trace nginx:2379 tomcat:8080    TCP: connect and send a byte
    trace client 10.0.90.2          ICMP echo
    trace client tomcat:9000 --udp  one UDP datagram
    trace nginx localhost:80        inside one pod
    trace -n shop client bank/web:80    from a pod of namespace shop to one of bank
    trace -6 shell echo:8080        by IPv6; so is trace shell [fd00:a:0:90::2]:8080
    """
    from testbed.output import tables as render
    from testbed.output import trace_text as render_trace
    from testbed.trace.arguments import arguments_of

    if step and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("testbed trace --step: not on a terminal (got a pipe or file; want a terminal)")
    record = find_lab(lab)
    arguments = arguments_of(bare_name(source), bare_name(destination), protocol) | {
        "size": size,
        "timeout_s": timeout or 1.0,
    }
    headers = raw or svg is not None or html is not None
    answer = ask(record, TRACE, **arguments, namespace=namespace, ipv6=ipv6, frames=pcap is not None, headers=headers)
    if pcap is not None:
        write_capture(pcap, answer.pop("frames"))
    if svg is not None or html is not None:
        draw(answer, record, svg, html)
    if output == "json":
        for hop in () if raw else (*answer["hops"], *answer["strays"]):
            hop.pop("frame", None)
        render.as_json(answer)
    else:
        with render_trace.key_by_key() if step else nullcontext() as next_key:
            render_trace.show(answer, next_key, with_why=not no_why)
        if raw:
            from testbed.output.trace_bytes import all_bytes

            print("\n" + "\n".join(all_bytes(answer["hops"])))
        hints = [] if no_why else answer["hints"][:2]
        next_commands(record.name, *(hints or ["capture all -w lab.pcapng"]))
    return 0 if answer["outcome"] == "answered" else 1


def draw(answer: "TraceAnswer", record: LabRecord, svg: str | None, html: str | None) -> None:
    """Write the requested pictures. Raises TestbedError if one cannot be written."""
    from testbed.command.graph_command import write_picture
    from testbed.graph.facts import facts_of_lab
    from testbed.graph.model import graph_of
    from testbed.graph.trace_page import trace_page
    from testbed.graph.trace_path import draw_trace

    graph = graph_of(facts_of_lab(record))
    if svg is not None:
        write_picture("trace --svg", svg, draw_trace(graph, answer).encode())
    if html is not None:
        write_picture("trace --html", html, trace_page(graph, answer).encode())


def write_capture(path: str, frames: "list[TracedFrame]") -> None:
    """Write a pcapng file with an interface for each point. Raises TestbedError if it cannot be written."""
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
